"""Which bridge a change of the database belongs to: follows a monitor of what bridges are made of.

Only references and names are remembered, so that a change of an interface leads to its port and bridge. Belongs to
one task, on a connection of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.clients.openvswitch import COLUMNS
from opfs.clients.ovsdb_values import Row, Uuid
from opfs.ports import Sighting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opfs.clients.ovsdb import RowChange, Session

_MEMBERS = {"Bridge": ("ports", "controller"), "Port": ("interfaces",)}
_WATCHED = {
    table: [column for column in columns if column not in ("_uuid", "ofport")]
    for table, columns in COLUMNS.items()
    if table in ("Bridge", "Port", "Interface", "Controller")
}


class BridgeWatch:
    """Turns updates of a session's monitor into sightings."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names: dict[Uuid, str] = {}
        self._members: dict[Uuid, dict[str, frozenset[Uuid]]] = {}

    async def run(self, report: Callable[[Sighting], None]) -> None:
        """Report until cancelled; raises ApplyFailed where the server goes away."""
        self.bridges_of(await self._session.monitor(_WATCHED))
        while True:
            for bridge in self.bridges_of(await self._session.next_update()):
                report(Sighting(bridge))

    def bridges_of(self, changes: Sequence[RowChange]) -> list[str]:
        """Take note of changes and name the bridges they belong to, before or after them."""
        touched = {change.uuid for change in changes}
        found = self._owners(touched)
        for change in changes:
            self._follow(change)
        return sorted(found | self._owners(touched))

    def _owners(self, touched: set[Uuid]) -> set[str]:
        owners = set()
        for bridge, name in self._names.items():
            parts = self._parts(bridge)
            below = {member for part in parts for member in self._parts(part)}
            if not touched.isdisjoint({bridge, *parts, *below}):
                owners.add(name)
        return owners

    def _parts(self, uuid: Uuid) -> set[Uuid]:
        return {part for members in self._members.get(uuid, {}).values() for part in members}

    def _follow(self, change: RowChange) -> None:
        if change.columns is None:
            self._names.pop(change.uuid, None)
            self._members.pop(change.uuid, None)
            return
        row = Row(change.table, change.columns)
        if change.table == "Bridge" and "name" in row:
            self._names[change.uuid] = row.text("name")
        for column in _MEMBERS.get(change.table, ()):
            if column in row:
                members = row.references(column)
                known = self._members.setdefault(change.uuid, {})
                known[column] = known.get(column, frozenset()) ^ members if change.is_difference else members
