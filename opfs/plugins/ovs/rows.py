"""The rows of a bridge as a document, with what opfs made told from what others made; pure.

The mark is an external id called `opfs` on each row of opfs' own, which also lists the external ids that are its
own and, on a bridge, what the document says and the switch has no column for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opfs.clients.openvswitch import interface_problem
from opfs.plugins.ovs.settled import FOREIGN, SHORT_KEYS

if TYPE_CHECKING:
    from opfs.clients.openvswitch import Tables
    from opfs.clients.ovsdb_values import Row

MARK = "opfs"
WITHHELD_OPTIONS = ("psk",)
"""Options of interfaces that are secrets: never shown, never changed."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What the external id of opfs says of a row."""

    ids: tuple[str, ...] = ()
    is_exclusive: bool = False
    is_protected: bool = False

    def render(self) -> str:
        said: dict[str, Any] = {"ids": sorted(self.ids)} if self.ids else {}
        said |= {"exclusive": True} if self.is_exclusive else {}
        said |= {"protected": True} if self.is_protected else {}
        return json.dumps(said, separators=(",", ":"))


def read_mark(row: Row) -> Mark | None:
    """The mark of a row; None where others made it."""
    return parse_mark(row.pairs("external_ids").get(MARK))


def parse_mark(text: str | None) -> Mark | None:
    """What a mark says; None where there is none, or not one that opfs writes."""
    try:
        said = json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    ids = said.get("ids", [])
    if not isinstance(ids, list) or not all(isinstance(key, str) for key in ids):
        return None
    return Mark(tuple(ids), said.get("exclusive") is True, said.get("protected") is True)


def describe_bridge(tables: Tables, bridge: Row) -> dict[str, Any]:
    """A bridge in the schema's shape, keys that have their default left out; raises OvsdbProtocolError."""
    mark = read_mark(bridge)
    document: dict[str, Any] = {"datapath_type": bridge.text("datapath_type") or "system"}
    if mark is None:
        document |= {"origin": FOREIGN, "exclusive": True}
    else:
        document |= {"exclusive": True} if mark.is_exclusive else {}
        document |= {"protected": True} if mark.is_protected else {}
    document |= _said("fail_mode", bridge.optional("fail_mode") or "standalone", "standalone")
    document |= _said("protocols", sorted(bridge.members("protocols")))
    targets = [row.text("target") for row in tables.referred(bridge, "controller", "Controller")]
    document |= _said("controller", sorted(targets))
    for key in ("stp", "rstp", "mcast_snooping"):
        document |= _said(key, bridge.flag(f"{key}_enable"))
    document |= _said("flood_vlans", sorted(bridge.members("flood_vlans")))
    document |= _said("other_config", bridge.pairs("other_config"))
    document |= _ids(bridge, mark)
    name = bridge.text("name")
    ports = {}
    for row in tables.referred(bridge, "ports", "Port"):
        port = _describe_port(tables, name, row)
        if mark is not None and read_mark(row) is None and row.text("name") != name:
            port["origin"] = FOREIGN
        if row.text("name") != name or port.keys() - {"type"}:
            ports[row.text("name")] = port
    return document | _said("ports", ports)


def _describe_port(tables: Tables, bridge: str, row: Row) -> dict[str, Any]:
    name = row.text("name")
    document: dict[str, Any] = {}
    for key in ("tag", "vlan_mode", "bond_mode", "lacp"):
        document |= _said(key, row.optional(key), None)
    for key in ("trunks", "cvlans"):
        document |= _said(key, sorted(row.members(key)))
    document |= _said("other_config", row.pairs("other_config"))
    document |= _ids(row, read_mark(row))
    rows = tables.referred(row, "interfaces", "Interface")
    members = {member.text("name"): _describe_interface(member, is_local=name == bridge) for member in rows}
    if set(members) == {name} and members[name].keys() <= set(SHORT_KEYS):
        document |= members[name]
    else:
        document["interfaces"] = members
    problems = {member.text("name"): problem for member in rows if (problem := interface_problem(tables, member))}
    if problems:
        document["error"] = "; ".join(
            problem if member == name else f"{member}: {problem}" for member, problem in problems.items()
        )
    return document


def _describe_interface(row: Row, *, is_local: bool) -> dict[str, Any]:
    kind = "internal" if is_local else row.text("type") or "system"
    document: dict[str, Any] = {"type": kind}
    options = {key: value for key, value in row.pairs("options").items() if key not in WITHHELD_OPTIONS}
    document |= _said("options", options)
    for key in ("mtu_request", "ofport_request", "mac"):
        value = row.optional(key)
        document |= _said(key, value.lower() if key == "mac" and isinstance(value, str) else value, None)
    document |= _said("other_config", row.pairs("other_config"))
    return document | _ids(row, read_mark(row))


def _ids(row: Row, mark: Mark | None) -> dict[str, Any]:
    """External ids, those of opfs' own apart from those of others."""
    ids = {key: value for key, value in row.pairs("external_ids").items() if key != MARK}
    own = {key: value for key, value in ids.items() if mark is not None and key in mark.ids}
    others = {key: value for key, value in ids.items() if key not in own}
    return _said("external_ids", own) | _said("foreign_ids", others)


def _said(key: str, value: Any, default: Any = ...) -> dict[str, Any]:
    """The key, unless the value is the default: false or empty where no other is given."""
    return {} if value == default or (default is ... and not value) else {key: value}
