"""What of a wireguard document the schema cannot say; pure."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from opfs.clients.wireguard.device import split_endpoint
from opfs.clients.wireguard.keys import KEY_PATTERN
from opfs.core.position import join_pointer
from opfs.plugins.addresses import check_network, parsed
from opfs.plugins.contract import refuse

if TYPE_CHECKING:
    from opfs.core.action import Document

INTERFACE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,14}\Z")
_KEY = re.compile(KEY_PATTERN)


def check_interface(element: str, desired: Document) -> None:
    """Raise InvalidRequest for what the schema cannot say."""
    if not INTERFACE_NAME.match(element):
        refuse("", f"{element!r} cannot name an interface", "use 1 to 15 of A-Z a-z 0-9 . _ @ + -")
    for index, text in enumerate(desired.get("addresses", ())):
        if parsed(ipaddress.ip_interface, text) is None:
            refuse(
                join_pointer(["addresses", index]), f"{text!r} is not an address with a prefix length", "10.0.0.1/24"
            )
    keys: dict[str, str] = {}
    networks: dict[str, str] = {}
    for name, peer in desired.get("peers", {}).items():
        _check_peer(name, peer, desired, keys, networks)
    routes = desired.get("routes", ())
    for index, text in enumerate(routes if isinstance(routes, list | tuple) else ()):
        _check_network(["routes", index], text)
    if routes and isinstance(routes, list | tuple) and desired.get("state") == "down":
        refuse("/routes", "routes go through an interface that is up", 'say "state": "up" or no routes')


def _check_peer(
    name: str, peer: dict[str, Any], desired: Document, keys: dict[str, str], networks: dict[str, str]
) -> None:
    at: list[str | int] = ["peers", name]
    key = peer.get("public_key", name)
    if not _KEY.match(key):
        refuse(
            join_pointer(at), f"the peer {name!r} has no public key", 'say "public_key", or name the peer by its key'
        )
    if key in keys:
        refuse(join_pointer(at), f"the peers {keys[key]!r} and {name!r} have one public key", "each host has its own")
    if key == desired.get("public_key"):
        refuse(join_pointer(at), f"the peer {name!r} has this interface's own public key", "leave it out")
    keys[key] = name
    if "endpoint" in peer and parsed(split_endpoint, peer["endpoint"]) is None:
        hint = (
            "an address and a port: 192.0.2.1:51820 or [2001:db8::1]:51820; a host's name would be resolved only once"
        )
        refuse(join_pointer([*at, "endpoint"]), f"{peer['endpoint']!r} is not an endpoint", hint)
    for index, text in enumerate(peer.get("allowed_ips", ())):
        network = _check_network([*at, "allowed_ips", index], text)
        if networks.setdefault(network, name) != name:
            reason = f"{text} is allowed to the peers {networks[network]!r} and {name!r}, and one alone can have it"
            refuse(join_pointer([*at, "allowed_ips", index]), reason, "keep it with one of them")


def _check_network(at: list[str | int], text: str) -> str:
    return str(check_network(at, text, "10.0.0.2/32 or 192.0.2.0/24"))
