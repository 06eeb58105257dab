"""What of a mesh the schema cannot say; pure."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from opfs.clients.wireguard.device import split_endpoint
from opfs.core.position import join_pointer
from opfs.plugins.addresses import check_network, parsed
from opfs.plugins.contract import refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.core.action import Document
    from opfs.plugins.addresses import Network

INTERFACE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,14}\Z")


def check_mesh(element: str, desired: Document) -> None:
    """Raise InvalidRequest for what the schema cannot say."""
    if not INTERFACE_NAME.match(element):
        refuse("", f"{element!r} cannot name an interface", "use 1 to 15 of A-Z a-z 0-9 . _ @ + -")
    networks = [_network(["networks", index], text) for index, text in enumerate(desired["networks"])]
    taken: dict[str, str] = {}
    keys: dict[str, str] = {}
    for name, node in desired["nodes"].items():
        at: list[str | int] = ["nodes", name]
        if keys.setdefault(node["public_key"], name) != name:
            reason = f"the nodes {keys[node['public_key']]!r} and {name!r} have one public key"
            refuse(join_pointer([*at, "public_key"]), reason, "each host has its own")
        _check_addresses(at, name, node, networks, taken)
        if "endpoint" in node and parsed(split_endpoint, node["endpoint"]) is None:
            hint = "an address and a port: 192.0.2.1:51820 or [2001:db8::1]:51820"
            refuse(join_pointer([*at, "endpoint"]), f"{node['endpoint']!r} is not an endpoint", hint)
        for index, text in enumerate(node.get("allowed_ips", ())):
            _take([*at, "allowed_ips", index], str(_network([*at, "allowed_ips", index], text)), name, taken)
    routes = desired.get("routes", ())
    for index, text in enumerate(routes if isinstance(routes, list | tuple) else ()):
        _network(["routes", index], text)


def _check_addresses(
    at: list[str | int], name: str, node: Mapping[str, Any], networks: list[Any], taken: dict[str, str]
) -> None:
    for index, text in enumerate(node["addresses"]):
        here = [*at, "addresses", index]
        address = parsed(ipaddress.ip_interface, text)
        if address is None:
            refuse(join_pointer(here), f"{text!r} is not an IP address", "e.g. 10.9.0.1")
        is_held = any(network.version == address.version and address.ip in network for network in networks)
        if "/" not in text and not is_held:
            listed = ", ".join(map(str, networks)) or "none"
            refuse(join_pointer(here), f"{text} lies in no network of the mesh ({listed})", "add it to networks")
        _take(here, f"{address.ip}/{address.max_prefixlen}", name, taken)


def _take(at: list[str | int], network: str, name: str, taken: dict[str, str]) -> None:
    if taken.setdefault(network, name) != name:
        reason = f"{network} belongs to the nodes {taken[network]!r} and {name!r}, and one alone can have it"
        refuse(join_pointer(at), reason, "keep it with one of them")


def _network(at: list[str | int], text: str) -> Network:
    return check_network(at, text, "10.9.0.0/24")
