"""What a document of an interface says, with every default filled in; pure.

Two sorts of interfaces. Those that documents make (`kinds.TYPES`): a key that is left out has its default, so
that a document says the same whatever was there before; only `mtu`, `mac` and `peer` stay as they are. And those
that exist by themselves (`FOUND`: hardware, the loopback, links of other programs): they are neither made nor
removed, and a key that is left out is left alone.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from opfs.clients.netlink.kinds import TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.core.action import Document

PLUGIN = "net"
FOUND = ("ethernet", "loopback", "other")
"""Types that a document never makes or removes."""
PLAIN = ("type", "state", "mtu", "mac", "master", "description", "parent", "peer", "kind")
"""Keys compared as they are; `options`, `addresses` and `routes` are settled first."""

Settled = dict[str, Any]

MADE_DEFAULTS: Settled = {"state": "up", "master": "", "description": "", "addresses": [], "routes": []}


def is_made(document: Mapping[str, Any]) -> bool:
    """Whether such an interface is made and removed by documents."""
    return document["type"] in TYPES


def settle(document: Document) -> Settled:
    """The settings a document asks for, or an observation shows; options by their words under `options`."""
    settled: Settled = {key: document[key] for key in PLAIN if key in document}
    if is_made(document):
        link_type = TYPES[document["type"]]
        settled = {**MADE_DEFAULTS, **settled}
        if link_type.parent != "none":
            settled.setdefault("parent", "")
        given = document.get(document["type"], {})
        settled["options"] = {
            word: _settle_option(given.get(word, option.default)) for word, option in link_type.options.items()
        }
    if "mac" in settled:
        settled["mac"] = str(settled["mac"]).lower()
    if "addresses" in document:
        settled["addresses"] = settle_addresses(document["addresses"])
    if "routes" in document:
        settled["routes"] = settle_routes(document["routes"])
    return settled


def _settle_option(value: Any) -> Any:
    """IP addresses in their one form; every other string is a word of the schema's."""
    if isinstance(value, str) and (":" in value or value.count(".") == 3):
        return _settle_ip(value)
    return value


def settle_addresses(addresses: Sequence[str]) -> list[str]:
    """In their one form, IPv4 first; the order of a document has no meaning."""
    return [text for _, text in sorted(map(_ordered_address, addresses))]


@lru_cache(maxsize=1 << 14)
def _ordered_address(text: str) -> tuple[tuple[int, bytes, int], str]:
    # Remembered, because a plan of everything asks for each address twice, and reading one takes 10 µs.
    address = ipaddress.ip_interface(text)
    return (address.version, address.packed, address.network.prefixlen), str(address)


def settle_routes(routes: Sequence[Mapping[str, Any]]) -> list[Settled]:
    """In their one form, without what is the default; the order of a document has no meaning."""
    return sorted(map(settle_route, routes), key=_route_order)


def settle_route(route: Mapping[str, Any]) -> Settled:
    """`default` through an IPv6 gateway is `::/0`; metric and table are left out where they are the kernel's own."""
    is_ipv6 = ":" in route["to"] or ":" in route.get("via", "")
    settled: Settled = {"to": _settle_network("::/0" if is_ipv6 and route["to"] == "default" else route["to"])}
    if "via" in route:
        settled["via"] = _settle_ip(route["via"])
    if route.get("metric", 0) not in (0, 1024 if is_ipv6 else 0):
        settled["metric"] = route["metric"]
    if route.get("table", 254) != 254:
        settled["table"] = route["table"]
    if "src" in route:
        settled["src"] = _settle_ip(route["src"])
    if route.get("onlink"):
        settled["onlink"] = True
    return settled


@lru_cache(maxsize=1 << 14)
def _settle_network(to: str) -> str:
    return "default" if to == "0.0.0.0/0" else to if to == "default" else str(ipaddress.ip_network(to))


@lru_cache(maxsize=1 << 14)
def _settle_ip(address: str) -> str:
    return str(ipaddress.ip_address(address))


def _route_order(route: Mapping[str, Any]) -> tuple[Any, ...]:
    to = _ordered_address("0.0.0.0/0" if route["to"] == "default" else route["to"])[0]
    return to[0], route.get("table", 254), to[1:], route.get("metric", 0), route.get("via", "")


def route_key(route: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two routes of one host cannot share."""
    return route["to"], route.get("table", 254), route.get("metric", 0)


def is_default_route(route: Mapping[str, Any]) -> bool:
    return route["to"] in ("default", "0.0.0.0/0", "::/0") and route.get("table", 254) == 254
