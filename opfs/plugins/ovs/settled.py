"""A bridge's document with every default filled in and every port in full: what plans and observations share; pure.

`datapath_type` is the exception: left out, it stays as it is. Every bridge has a port called like itself for the
host; a document that does not name it means the default one (`is_implied`). What only an observation says
(`origin`, `foreign_ids`, `error`) is carried along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.core.action import Document

FOREIGN = "foreign"
"""The `origin` of what others made."""

BRIDGE_DEFAULTS: Mapping[str, Any] = {
    "fail_mode": "standalone",
    "protocols": (),
    "controller": (),
    "stp": False,
    "rstp": False,
    "mcast_snooping": False,
    "flood_vlans": (),
    "other_config": {},
    "external_ids": {},
    "exclusive": False,
    "protected": False,
}
PORT_DEFAULTS: Mapping[str, Any] = {
    "tag": None,
    "trunks": (),
    "cvlans": (),
    "vlan_mode": None,
    "bond_mode": None,
    "lacp": None,
    "other_config": {},
    "external_ids": {},
}
INTERFACE_DEFAULTS: Mapping[str, Any] = {
    "type": "system",
    "options": {},
    "mtu_request": None,
    "ofport_request": None,
    "mac": None,
    "other_config": {},
    "external_ids": {},
}
SHORT_KEYS = ("type", "options", "mtu_request", "ofport_request", "mac")
"""Keys of its only interface that a port may have itself."""
_UNORDERED = ("protocols", "controller", "flood_vlans", "trunks", "cvlans")

Settled = dict[str, Any]


def settle(element: str, document: Document) -> Settled:
    """A bridge in full; lists whose order means nothing are sorted."""
    settled = _with_defaults(document, BRIDGE_DEFAULTS)
    if "datapath_type" in document:
        settled["datapath_type"] = document["datapath_type"]
    ports = document.get("ports", {})
    settled["ports"] = {name: settle_port(element, name, port) for name, port in sorted(ports.items())}
    settled["ports"].setdefault(element, {**settle_port(element, element, {}), "is_implied": True})
    return settled


def settle_port(element: str, name: str, port: Mapping[str, Any]) -> Settled:
    """A port in full, its interfaces by name."""
    settled = _with_defaults(port, PORT_DEFAULTS)
    settled |= {key: port[key] for key in ("error",) if key in port}
    interfaces = port.get("interfaces") or {name: {key: port[key] for key in SHORT_KEYS if key in port}}
    settled["interfaces"] = {
        member: _settle_interface("internal" if member == element else "system", interface)
        for member, interface in sorted(interfaces.items())
    }
    return settled


def named_ports(settled: Settled) -> dict[str, Settled]:
    """The ports that a document itself speaks of, but for those that it says are others'."""
    ports: dict[str, Settled] = settled["ports"]
    return {name: port for name, port in ports.items() if not port.get("is_implied") and port["origin"] != FOREIGN}


def plain_port(port: Settled) -> Settled:
    """A settled port without what only an observation says of it."""
    plain = {key: port[key] for key in PORT_DEFAULTS}
    plain["interfaces"] = {
        member: {key: interface[key] for key in INTERFACE_DEFAULTS} for member, interface in port["interfaces"].items()
    }
    return plain


def host_interfaces(port: Settled) -> list[str]:
    """The members of a port that are interfaces the host has for itself, network devices of any kind."""
    return [member for member, interface in port["interfaces"].items() if interface["type"] == "system"]


def owned_ids(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """The external ids that will be opfs' own: the wanted ones, but for those that others have set alike."""
    others = before["foreign_ids"]
    return {key: value for key, value in after["external_ids"].items() if others.get(key) != value}


def _settle_interface(kind: str, interface: Mapping[str, Any]) -> Settled:
    settled = _with_defaults(interface, {**INTERFACE_DEFAULTS, "type": kind})
    if settled["mac"] is not None:
        settled["mac"] = str(settled["mac"]).lower()
    return settled


def _with_defaults(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Settled:
    settled: Settled = {"origin": given.get("origin", ""), "foreign_ids": dict(given.get("foreign_ids", {}))}
    for key, default in defaults.items():
        value = given.get(key, default)
        if key in _UNORDERED:
            value = sorted(set(value))
        settled[key] = dict(value) if isinstance(value, dict) else value
    return settled
