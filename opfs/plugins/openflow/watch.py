"""Changes of flows as ovs-vswitchd reports them: one flow monitor a bridge, for the bridges that there are.

Which bridges there are, and what notes they have, comes from a monitor of the database. Changes of groups are not
reported by the switch. Runs until it is cancelled; its processes end with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from opfs.clients.ovsdb_values import Row
from opfs.errors import OpfsError
from opfs.ports import Sighting

if TYPE_CHECKING:
    from collections.abc import Callable

    from opfs.clients.openflow import OpenFlow
    from opfs.clients.openvswitch import OpenVSwitch
    from opfs.clients.ovsdb import RowChange
    from opfs.clients.ovsdb_values import Uuid

AGAIN_AFTER_S = 0.5
"""How long after a monitor has ended, because ovs-vswitchd did, the next is begun."""


class FlowWatch:
    """Flow monitors of all bridges."""

    def __init__(self, switch: OpenVSwitch, openflow: OpenFlow) -> None:
        self._switch = switch
        self._openflow = openflow
        self._bridges: dict[Uuid, tuple[str, trio.CancelScope]] = {}

    async def run(self, report: Callable[[Sighting], None]) -> None:
        """Report until cancelled; raises ApplyFailed where the database goes away."""
        failure: OpfsError | None = None
        async with trio.open_nursery() as nursery:
            try:
                await self._follow_bridges(nursery, report)
            except OpfsError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _follow_bridges(self, nursery: trio.Nursery, report: Callable[[Sighting], None]) -> None:
        async with self._switch.client.session() as session:
            for change in await session.monitor({"Bridge": ["name", "external_ids"]}):
                self._follow(change, nursery, report)
            while True:
                for change in await session.next_update():
                    name = self._follow(change, nursery, report)
                    if name is not None:
                        report(Sighting(name))

    def _follow(self, change: RowChange, nursery: trio.Nursery, report: Callable[[Sighting], None]) -> str | None:
        """Begin or end the monitor of a bridge; returns its name."""
        known = self._bridges.get(change.uuid)
        if change.columns is None:
            if known is None:
                return None
            del self._bridges[change.uuid]
            known[1].cancel()
            return known[0]
        if known is None:
            name, scope = Row("Bridge", change.columns).text("name"), trio.CancelScope()
            self._bridges[change.uuid] = (name, scope)
            nursery.start_soon(self._watch_bridge, name, scope, report, name=f"flows of {name}")
            return name
        return known[0]

    async def _watch_bridge(self, name: str, scope: trio.CancelScope, report: Callable[[Sighting], None]) -> None:
        with scope:
            while True:
                await self._openflow.watch(name, lambda: report(Sighting(name)))
                await trio.sleep(AGAIN_AFTER_S)
                # A switch that was started anew has no flows but its own.
                report(Sighting(name))
