"""A bridge's rows as a restore point, and the one transaction that brings them back; pure.

Kept are all columns that are configuration, of all rows that exist only for the bridge (mirrors and sampling too,
of which no document speaks), as the database's own schema tells them. What others put on the bridge meanwhile
stays. Secret options are left out of a restore point: they stay on rows that still exist, and are lost on others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opfs.clients.openvswitch import ROOT
from opfs.clients.ovsdb_values import NamedUuid, OvsdbProtocolError, Row, Uuid, decode, encode
from opfs.plugins.ovs.rows import MARK, WITHHELD_OPTIONS, parse_mark, read_mark

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opfs.clients.ovsdb import Operation

Dump = dict[str, dict[str, dict[str, Any]]]
"""JSON forms by table, row and column; columns that have their default are left out."""


class Layout:
    """What the database's schema (RFC 7047, 3.2) says of the tables that a bridge is made of."""

    def __init__(self, schema: object) -> None:
        tables = schema.get("tables") if isinstance(schema, dict) else None
        if not isinstance(tables, dict) or not {ROOT, "Bridge", "Port", "Interface"} <= tables.keys():
            raise OvsdbProtocolError("ovsdb-server has no schema of Open vSwitch")
        self._columns: dict[str, dict[str, Any]] = {
            table: {
                column: rule["type"]
                for column, rule in definition["columns"].items()
                if not rule.get("ephemeral") and (table, column) not in _STATUS
            }
            for table, definition in tables.items()
        }
        self._is_root = {table for table, definition in tables.items() if definition.get("isRoot")}
        self.tables = sorted(self._reachable("Bridge"))

    def columns(self, table: str) -> Mapping[str, Any]:
        return self._columns[table]

    def referred_table(self, table: str, column: str) -> str | None:
        """The table whose rows exist only because columns like this one refer to them."""
        kind = self._columns[table][column]
        if not isinstance(kind, dict):
            return None
        for part in (kind["key"], kind.get("value")):
            if isinstance(part, dict) and part.get("refTable") and part.get("refType", "strong") == "strong":
                target = str(part["refTable"])
                return None if target in self._is_root else target
        return None

    def default(self, table: str, column: str) -> Any:
        """The JSON form of what a column has that nobody set (RFC 7047, 5.2.1)."""
        kind = self._columns[table][column]
        if isinstance(kind, dict) and "value" in kind:
            return encode({})
        if isinstance(kind, dict) and (kind.get("min", 1) == 0 or kind.get("max", 1) != 1):
            return encode(frozenset())
        key = kind["key"] if isinstance(kind, dict) else kind
        name = key["type"] if isinstance(key, dict) else key
        return {"integer": 0, "real": 0.0, "boolean": False, "string": ""}.get(name)

    def _reachable(self, table: str) -> set[str]:
        found, open_ = {table}, [table]
        while open_:
            current = open_.pop()
            for column in self._columns[current]:
                target = self.referred_table(current, column)
                if target is not None and target not in found:
                    found.add(target)
                    open_.append(target)
        return found


_STATUS = {
    ("Interface", "ofport"),
    ("Interface", "error"),
    ("Bridge", "datapath_version"),
    ("Port", "bond_active_slave"),
}
"""Columns that ovs-vswitchd writes and the schema does not call ephemeral."""


def dump_bridge(layout: Layout, rows: Mapping[str, Mapping[str, Row]], name: str) -> Dump | None:
    """All rows that exist only for the bridge, by identity; None where there is no such bridge."""
    bridge = next((row for row in rows["Bridge"].values() if row.text("name") == name), None)
    if bridge is None:
        return None
    dump: Dump = {}
    open_ = [bridge]
    while open_:
        row = open_.pop()
        saved = dump.setdefault(row.table, {})
        if row.uuid.value in saved:
            continue
        saved[row.uuid.value] = dict(_configuration(layout, row))
        for column in layout.columns(row.table):
            target = layout.referred_table(row.table, column)
            if target is not None:
                open_ += [rows[target][uuid.value] for uuid in _uuids(row.value(column)) if uuid.value in rows[target]]
    return dump


def restore_operations(
    layout: Layout, rows: Mapping[str, Mapping[str, Row]], root: Uuid, name: str, dump: Dump | None
) -> list[Operation]:
    """The operations that make the bridge what it was, from what the database has now."""
    bridge = next((row for row in rows["Bridge"].values() if row.text("name") == name), None)
    at_root = [["_uuid", "==", encode(root)]]
    if dump is None:
        if bridge is None:
            return []
        mutation = ["bridges", "delete", encode(frozenset({bridge.uuid}))]
        return [{"op": "mutate", "table": ROOT, "where": at_root, "mutations": [mutation]}]
    saved = {uuid: table for table, found in dump.items() for uuid in found}
    missing = {uuid for uuid, table in saved.items() if uuid not in rows[table]}
    operations: list[Operation] = []
    for uuid, table in saved.items():
        wanted = {column: _renamed(value, missing) for column, value in dump[table][uuid].items()}
        if uuid in missing:
            operations.append({"op": "insert", "table": table, "uuid-name": _name(uuid), "row": wanted})
            continue
        row = rows[table][uuid]
        if table == "Bridge":
            wanted["ports"] = encode(frozenset({*_members(wanted["ports"]), *_foreign_ports(row, rows, saved)}))
        changed = _changed_columns(layout, row, wanted)
        if changed:
            condition = [["_uuid", "==", encode(row.uuid)]]
            operations.append({"op": "update", "table": table, "where": condition, "row": changed})
    [saved_bridge] = dump["Bridge"]
    if saved_bridge in missing:
        mutations = [["bridges", "insert", encode(frozenset({NamedUuid(_name(saved_bridge))}))]]
        if bridge is not None:
            mutations.insert(0, ["bridges", "delete", encode(frozenset({bridge.uuid}))])
        operations.append({"op": "mutate", "table": ROOT, "where": at_root, "mutations": mutations})
    return operations


def _configuration(layout: Layout, row: Row) -> Iterator[tuple[str, Any]]:
    for column in layout.columns(row.table):
        value = row.raw(column)
        if (row.table, column) == ("Interface", "options"):
            value = encode({key: item for key, item in row.pairs(column).items() if key not in WITHHELD_OPTIONS})
        if decode(value) != decode(layout.default(row.table, column)):
            yield column, value


def _changed_columns(layout: Layout, row: Row, wanted: Mapping[str, Any]) -> dict[str, Any]:
    changed = {}
    for column in layout.columns(row.table):
        value = wanted.get(column, layout.default(row.table, column))
        if (row.table, column) == ("Interface", "options"):
            withheld = {key: item for key, item in row.pairs(column).items() if key in WITHHELD_OPTIONS}
            value = encode({**_pairs(value), **withheld})
        elif column == "external_ids":
            value = encode(_restored_ids(row, _pairs(value)))
        if decode(value) != decode(row.raw(column)):
            changed[column] = value
    return changed


def _foreign_ports(bridge: Row, rows: Mapping[str, Mapping[str, Row]], saved: Mapping[str, str]) -> list[Uuid]:
    """Ports that others put on the bridge since the restore point was made."""
    new = [uuid for uuid in bridge.references("ports") if uuid.value not in saved and uuid.value in rows["Port"]]
    return [uuid for uuid in new if read_mark(rows["Port"][uuid.value]) is None]


def _renamed(raw: Any, missing: set[str]) -> Any:
    """A JSON form in which rows that are made anew are named as the transaction names them."""
    if isinstance(raw, list):
        if len(raw) == 2 and raw[0] == "uuid" and raw[1] in missing:
            return ["named-uuid", _name(raw[1])]
        return [_renamed(item, missing) for item in raw]
    return raw


def _name(uuid: str) -> str:
    return f"r_{uuid.replace('-', '')}"


def _members(raw: Any) -> frozenset[Any]:
    value = decode(raw)
    return value if isinstance(value, frozenset) else frozenset({value})


def _pairs(raw: Any) -> dict[str, str]:
    value = decode(raw)
    return value if isinstance(value, dict) else {}


def _restored_ids(row: Row, saved: Mapping[str, str]) -> dict[str, str]:
    """The external ids with opfs' own as they were; those of others as they are by now."""
    now = row.pairs("external_ids")
    own = {MARK}
    for mark in (read_mark(row), parse_mark(saved.get(MARK))):
        own |= set(mark.ids) if mark else set()
    kept = {key: value for key, value in now.items() if key not in own}
    return kept | {key: value for key, value in saved.items() if key in own}


def _uuids(value: Any) -> list[Uuid]:
    if isinstance(value, Uuid):
        return [value]
    atoms = (
        [*value, *value.values()] if isinstance(value, dict) else list(value) if isinstance(value, frozenset) else []
    )
    return sorted(atom for atom in atoms if isinstance(atom, Uuid))
