"""The `openflow` plugin: flows and groups of Open vSwitch bridges, every change one atomic bundle.

It keeps nothing of its own: its flows have cookies of their own, and a note about the rest is with the bridge.
Bridges themselves are not its matter. Runs on the trio thread; calls for different bridges may run concurrently.
Meters are left alone: bundles do not cover them.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Self

import trio

from opfs.clients.openflow import OpenFlow
from opfs.clients.openflow_text import NORMAL, Group, read_flow
from opfs.clients.openvswitch import OpenVSwitch, Tables
from opfs.clients.ovsdb import OvsdbClient, OvsdbRefused
from opfs.clients.switch import DEFAULT, PACKAGES, SwitchPlace
from opfs.core.action import Action, ApplyResult, Checkpoint, Difference, Document, StateDiff
from opfs.core.names import ELEMENT_NAME, ElementId
from opfs.errors import ApplyFailed, OpfsError
from opfs.plugins.contract import ContractDefaults, PluginContext
from opfs.plugins.openflow.documents import Reader, read_observed, write_document
from opfs.plugins.openflow.plan import (
    PLUGIN,
    Contents,
    Goal,
    check_no_clash,
    differences,
    is_ours,
    plan_flows,
    with_default,
)
from opfs.plugins.openflow.record import Record, read_record, record_text, write_record
from opfs.plugins.openflow.watch import FlowWatch
from opfs.ports import Capabilities, Dependency

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from opfs.clients.ovsdb_values import Row
    from opfs.ports import Sighting

MAX_FLOWS_OF_OTHERS = 20_000
"""More flows of others are neither shown nor kept for an undoing."""
_DUMPS_AT_ONCE = 4


class OpenFlowPlugin(ContractDefaults):
    """The flows of bridges as elements."""

    name: ClassVar[str] = PLUGIN
    capabilities: ClassVar[Capabilities] = Capabilities(
        supports_rollback=True, supports_checkpoints=True, atomic_operations=True, watch=True, slow_check=True
    )

    def __init__(self, place: SwitchPlace = DEFAULT) -> None:
        super().__init__()
        self.apply_timeout_s = 8 * place.timeout_s
        self._place = place
        self._switch = OpenVSwitch(OvsdbClient(place.database, timeout_s=place.timeout_s))
        self._openflow = OpenFlow(place.run_dir, timeout_s=place.timeout_s)
        self._reader = Reader(self._openflow)

    @classmethod
    def from_context(cls, context: PluginContext) -> Self:
        """Settings: those of `SwitchPlace.of`."""
        return cls(SwitchPlace.of(context.settings))

    def why_unavailable(self) -> str | None:
        if not self._openflow.is_installed():
            return f"ovs-ofctl is not installed; apt-get install {PACKAGES}"
        return self._place.why_unavailable()

    # --- pure, if at times slow: see documents.py ------------------------------------------------------

    def check(self, element: str, desired: Document) -> None:
        """Has ovs-ofctl parse every flow, so what it refuses is refused before anything is done."""
        super().check(element, desired)
        self._reader.check(desired)

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        now = None if current is None else read_observed(current)
        return plan_flows(element, now, None if desired is None else self._reader.read(desired))

    def compare(self, element: str, desired: Document | None, observed: Document | None) -> Sequence[Difference]:
        if observed is not None and desired is None and read_observed(observed).is_foreign:
            return ()
        if desired is None or observed is None:
            return super().compare(element, desired, observed)
        return tuple(differences(self._reader.read(desired), read_observed(observed)))

    def depends_on(self, element: str, desired: Document) -> Sequence[Dependency]:
        """The bridge."""
        del desired
        return [Dependency((ElementId("ovs", element),))]

    # --- observe ---------------------------------------------------------------------------------------

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        """Each bridge is asked for its flows, a few at once; what opfs did not make is told apart."""
        for document in (desired or {}).values():
            # So that a plan or a comparison made next finds the normal forms known. One that is refused by now,
            # after another version of ovs-ofctl came, is that element's matter and no reason to see nothing.
            with suppress(OpfsError):
                await trio.to_thread.run_sync(self._reader.read, document)
        bridges = await self._bridges()
        names = sorted(bridges.keys() if elements is None else bridges.keys() & set(elements))
        found: dict[str, Document] = {}
        at_once = trio.CapacityLimiter(_DUMPS_AT_ONCE)

        failures: list[OpfsError] = []

        async def look(name: str) -> None:
            try:
                async with at_once:
                    contents = await self._contents(name, bridges[name])
            except OpfsError as error:
                failures.append(error)
                return
            if contents is not None:
                found[name] = write_document(contents)

        async with trio.open_nursery() as nursery:
            for name in names:
                if self._openflow.has_bridge(name):
                    nursery.start_soon(look, name)
        if failures:
            raise failures[0]
        return dict(sorted(found.items()))

    async def _contents(self, name: str, bridge: Row) -> Contents | None:
        flows, groups = await self._openflow.dump(name)
        record = read_record(record_text(bridge))
        if record is None and not any(map(is_ours, flows)):
            is_untouched = not groups and all(flow == NORMAL for flow in flows)
            if is_untouched or len(flows) > MAX_FLOWS_OF_OTHERS:
                return None
            return Contents(tuple(flows), tuple(groups), is_exclusive=True, is_foreign=True)
        record = record or Record()
        if record.is_exclusive:
            return Contents(tuple(flows), tuple(groups), is_exclusive=True, is_protected=record.is_protected)
        ours = tuple(flow.with_cookie(flow.cookie & 0xFFFFFFFF) for flow in flows if is_ours(flow))
        others = sum(not is_ours(flow) and flow != NORMAL for flow in flows)
        own_groups = tuple(group for group in groups if group.number in record.groups)
        return Contents(ours, own_groups, is_protected=record.is_protected, others=others)

    # --- apply -----------------------------------------------------------------------------------------

    async def apply(self, action: Action) -> ApplyResult:
        if not ELEMENT_NAME.match(action.element) or action.step not in ("set", "remove"):
            raise ApplyFailed(f"openflow has no step {action.step!r} for {action.element!r}")
        if action.step == "set":
            done = await self._set(action.element, action.details)
        else:
            done = await self._remove(action.element)
        return ApplyResult(action, done)

    async def _set(self, name: str, details: Mapping[str, Any]) -> str:
        groups = tuple(map(_read_group, details["groups"]))
        flows = tuple(map(read_flow, details["flows"]))
        wanted = Contents(flows, groups, details["exclusive"], details["protected"])
        bridge = await self._bridge(name)
        before = read_record(record_text(bridge))
        present, present_groups = await self._openflow.dump(name)
        was_exclusive = before is not None and before.is_exclusive
        target = tuple(wanted.on_the_switch)
        if wanted.is_exclusive:
            others = 0 if was_exclusive else sum(not is_ours(flow) and flow != NORMAL for flow in present)
            if others > details["others"] and set(present) - set(target):
                raise ApplyFailed(f"{name} has {others} flows that opfs did not make, more than the plan knew of")
        elif not was_exclusive:
            check_no_clash(name, present, target)
            _check_groups(name, present_groups, groups, before)
        if not wanted.is_exclusive and _has_default(bridge):
            target = with_default(target, present, removes_all=was_exclusive)
        own_groups = before.groups if before else frozenset()
        goal = Goal(target, groups, own_groups, removes_all=wanted.is_exclusive or was_exclusive)
        record = Record(wanted.is_exclusive, wanted.is_protected, frozenset(group.number for group in groups))
        lines = goal.lines(present, present_groups)
        await self._reach(name, goal, lines, before, record)
        return f"set {len(flows)} flows and {len(groups)} groups of {name} in one bundle of {len(lines)} lines"

    async def _remove(self, name: str) -> str:
        bridge = (await self._bridges()).get(name)
        before = read_record(record_text(bridge)) if bridge is not None else None
        if bridge is None or (before is None and not self._openflow.has_bridge(name)):
            return f"the bridge {name} and its flows were gone"
        present, groups = await self._openflow.dump(name)
        before = before or Record()
        all_ours = before.is_exclusive
        target = with_default((), present, removes_all=all_ours) if _has_default(bridge) else ()
        goal = Goal(target, (), before.groups, all_ours)
        lines = goal.lines(present, groups)
        await self._reach(name, goal, lines, before, None)
        return f"removed the flows of {name} in one bundle of {len(lines)} lines"

    async def _reach(
        self, name: str, goal: Goal, lines: Sequence[str], before: Record | None, after: Record | None
    ) -> None:
        """One bundle between two notes, and a look at what came of it."""
        known = after or before or Record()
        await self._note(name, known.with_groups(before.groups if before else ()).render())
        # The note now names every group that is opfs' own before or after the bundle. If nothing more is done, it
        # names more than there are, and the next change corrects it.
        if lines:
            await self._openflow.bundle(name, lines)
            left = goal.lines(*await self._openflow.dump(name))
            if left:
                raise ApplyFailed(f"the bundle is said to be done, and {name} still lacks {len(left)} lines: {left[0]}")
        await self._note(name, None if after is None else after.render())

    async def _note(self, name: str, text: str | None) -> None:
        for is_last in (False, False, True):
            operations = write_record(await self._bridge(name), text)
            try:
                if operations:
                    await self._switch.client.transact(operations)
                return
            except OvsdbRefused as refused:
                if refused.error != "timed out" or is_last:
                    raise

    async def _bridges(self) -> dict[str, Row]:
        return _bridges(await self._switch.read(names=["Bridge"]))

    async def _bridge(self, name: str) -> Row:
        bridges = await self._bridges()
        if name not in bridges:
            known = ", ".join(sorted(bridges)) or "none"
            raise ApplyFailed(f"there is no Open vSwitch bridge {name!r}", hint=f"there are: {known}")
        return bridges[name]

    async def watch(self, report: Callable[[Sighting], None]) -> None:
        """Report bridges whose flows change; OpenFlow does not say who changed them."""
        await FlowWatch(self._switch, self._openflow).run(report)

    # --- restore points --------------------------------------------------------------------------------

    async def checkpoint(self, element: str) -> Checkpoint | None:
        """All flows, or none where there are more of others than are kept: then the inverse plan undoes."""
        bridge = (await self._bridges()).get(element)
        if bridge is None:
            return Checkpoint(secrets.token_hex(8), PLUGIN, element, {"bridge": False})
        flows, groups = await self._openflow.dump(element)
        if sum(not is_ours(flow) for flow in flows) > MAX_FLOWS_OF_OTHERS:
            return None
        details = {
            "bridge": True,
            "note": record_text(bridge),
            "flows": [flow.text for flow in flows],
            "groups": [group.text for group in groups],
        }
        return Checkpoint(secrets.token_hex(8), PLUGIN, element, details)

    async def rollback(self, checkpoint: Checkpoint) -> None:
        """One bundle that brings back what was there; flows that others added since stay, unless we were exclusive."""
        name, details = checkpoint.element, checkpoint.details
        if not details["bridge"]:
            return
        saved = tuple(map(read_flow, details["flows"]))
        saved_groups = list(map(_read_group, details["groups"]))
        bridge = await self._bridge(name)
        now, before = read_record(record_text(bridge)), read_record(details["note"])
        ours = frozenset(number for record in (now, before) if record for number in record.groups)
        is_exclusive = bool(now and now.is_exclusive) or bool(before and before.is_exclusive)
        groups = tuple(group for group in saved_groups if is_exclusive or group.number in ours)
        lines = Goal(saved, groups, ours, is_exclusive).lines(*await self._openflow.dump(name))
        if lines:
            await self._openflow.bundle(name, lines)
        await self._note(name, details["note"])


def _bridges(tables: Tables) -> dict[str, Row]:
    names = {row.text("name"): row for row in tables.rows["Bridge"].values()}
    return {name: row for name, row in names.items() if ELEMENT_NAME.match(name)}


def _check_groups(name: str, present: Sequence[Group], wanted: Sequence[Group], record: Record | None) -> None:
    """Raise ApplyFailed where a wanted group's number is that of a group of others."""
    own = record.groups if record else frozenset()
    others = {group.number: group for group in present if group.number not in own}
    for group in wanted:
        other = others.get(group.number)
        if other is not None:
            raise ApplyFailed(
                f"{name} has a group {group.number} of others: {other.text}", hint="give yours another number"
            )


def _has_default(bridge: Row) -> bool:
    """Whether Open vSwitch would give this bridge a flow that switches as usual."""
    return bridge.optional("fail_mode") != "secure" and not bridge.members("controller")


def _read_group(text: str) -> Group:
    return Group(int(text.removeprefix("group_id=").split(",")[0]), text)
