"""What of a document the schema cannot say: names, addresses and routes that can be, keys that go together; pure."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from opfs.clients.netlink.kinds import TYPES
from opfs.core.position import join_pointer
from opfs.plugins.addresses import check_network, parsed
from opfs.plugins.contract import refuse
from opfs.plugins.net.settings import FOUND, route_key, settle_addresses, settle_route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.core.action import Document

MAX_NAME_BYTES = 15
"""IFNAMSIZ of the kernel, without the zero byte at its end."""

_KERNEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*\Z")
_NEEDED = {"vlan": ("id",), "vxlan": ("id",), "geneve": ("id", "remote"), "vrf": ("table",)}
_MAX_DESCRIPTION_BYTES = 255
_NEVER_FORWARDED = 0b111
"""Groups that the kernel refuses in `group_fwd_mask`: spanning tree, pause frames, LACP (BR_GROUPFWD_RESTRICTED)."""


def is_kernel_name(element: str) -> bool:
    """Whether an element's name can be an interface's."""
    return len(element) <= MAX_NAME_BYTES and bool(_KERNEL_NAME.match(element))


def check_interface(element: str, desired: Document) -> None:
    """Raise InvalidRequest for what the schema cannot say."""
    if len(element) > MAX_NAME_BYTES:
        refuse(
            "",
            f"{element!r} is {len(element)} characters long, and the kernel takes {MAX_NAME_BYTES} for an interface",
            f"e.g. {element[:MAX_NAME_BYTES]!r}",
        )
    if not _KERNEL_NAME.match(element):
        refuse("", f"{element!r} cannot name an interface", "use A-Z a-z 0-9 . _ @ + -, no colon")
    type_ = desired["type"]
    if (type_ == "loopback") != (element == "lo"):
        refuse("/type", "the loopback is the interface lo, and that alone", "name the document lo.json")
    _check_keys(element, type_, desired)
    _check_options(type_, desired)
    if "mac" in desired:
        _check_mac(desired["mac"])
    if len(desired.get("description", "").encode()) > _MAX_DESCRIPTION_BYTES:
        refuse("/description", f"the kernel keeps {_MAX_DESCRIPTION_BYTES} bytes of a description", "shorten it")
    _check_addresses(desired)
    _check_routes(desired)


def _check_keys(element: str, type_: str, desired: Document) -> None:
    for key in TYPES:
        if key in desired and key != type_:
            refuse(f"/{key}", f"these are options of the type {key}, and this is of the type {type_}", "leave them out")
    for key in ("master", "parent", "peer"):
        if desired.get(key) == element:
            refuse(f"/{key}", f"{element} cannot be its own {key}", "name another interface")
    link_type = TYPES.get(type_)
    if "parent" in desired and (link_type is None or link_type.parent == "none"):
        refuse("/parent", f"an interface of the type {type_} lies on no other", "leave it out")
    if link_type is not None and link_type.parent_required and not desired.get("parent"):
        refuse("", f"a {type_} needs a parent", 'say the interface it lies on, e.g. "parent": "eth0"')
    if (type_ == "veth") != ("peer" in desired):
        if type_ == "veth":
            refuse("", "a veth is a pair: its other end needs a name", f'e.g. "peer": "{element[:13]}-p"')
        refuse("/peer", "only a veth has another end", "leave it out")
    if "kind" in desired and type_ != "other":
        refuse("/kind", "the kernel's kind is only said of the type other", "leave it out")
    if type_ == "tun" and "mac" in desired:
        refuse("/mac", "a tun carries packets, not frames, and has no MAC address", 'leave it out, or use "tap"')


def _check_options(type_: str, desired: Document) -> None:
    options: Mapping[str, Any] = desired.get(type_, {}) if type_ not in FOUND else {}
    for word in _NEEDED.get(type_, ()):
        if word not in options:
            refuse(f"/{type_}" if type_ in desired else "", f"a {type_} needs its {word}", f'in "{type_}"')
    versions = set()
    for word in ("local", "remote"):
        if word in options:
            address = parsed(ipaddress.ip_address, options[word])
            if address is None:
                refuse(f"/{type_}/{word}", f"{options[word]!r} is not an IP address", "e.g. 192.0.2.1")
                return
            versions.add(address.version)
            if word == "remote" and address.is_multicast and not desired.get("parent"):
                refuse(f"/{type_}/{word}", "a multicast group needs the interface it is joined on", 'say "parent"')
    if len(versions) > 1:
        refuse(f"/{type_}/local", "local and remote are of different versions of IP", "use one")
    if type_ == "bridge" and options.get("group_fwd_mask", 0) & _NEVER_FORWARDED:
        hint = f"say {options['group_fwd_mask'] & ~_NEVER_FORWARDED}"
        refuse(
            "/bridge/group_fwd_mask", "spanning tree, pause frames and LACP are never forwarded (bits 1, 2, 4)", hint
        )
    if type_ == "bridge" and options.get("stp") and options.get("forward_delay", 15) < 2:
        refuse("/bridge/forward_delay", "a bridge that speaks STP waits at least 2 s", "say 2 to 30")


def _check_mac(mac: str) -> None:
    first = int(mac[:2], 16)
    if first & 1:
        refuse("/mac", f"{mac} is a multicast address", f"e.g. {first & 0xFE:02x}{mac[2:]}")
    if not mac.strip("0:"):
        refuse("/mac", "an address of zeros is none", "e.g. 02:00:00:00:00:01")


def _check_addresses(desired: Document) -> None:
    for index, text in enumerate(desired.get("addresses", ())):
        pointer = join_pointer(["addresses", index])
        address = parsed(ipaddress.ip_interface, text)
        if address is None:
            refuse(pointer, f"{text!r} is not an address with a prefix length", "e.g. 192.0.2.1/24 or 2001:db8::1/64")
            return
        if address.is_multicast or address.ip.is_unspecified:
            refuse(pointer, f"{text!r} cannot be the address of an interface", "give a unicast address")
    settled = settle_addresses(desired.get("addresses", ()))
    if len(set(settled)) != len(settled):
        refuse("/addresses", "an address is given twice", "keep one of them")


def _check_routes(desired: Document) -> None:
    routes = desired.get("routes", ())
    if routes and desired.get("state", "up") == "down":
        refuse("/routes", "routes go through an interface that is up", 'say "state": "up" or no routes')
    seen = set()
    for index, route in enumerate(routes):
        at: list[str | int] = ["routes", index]
        _check_route(at, route)
        key = route_key(settle_route(route))
        if key in seen:
            refuse(join_pointer(at), "there is another route to it with the same metric and table", "keep one of them")
        seen.add(key)


def _check_route(at: list[str | int], route: Mapping[str, Any]) -> None:
    is_default = route["to"] == "default"
    to = None if is_default else check_network([*at, "to"], route["to"], "default or 192.0.2.0/24")
    versions = {to.version} if to is not None else set()
    for key in ("via", "src"):
        if key in route:
            address = parsed(ipaddress.ip_address, route[key])
            if address is None:
                refuse(join_pointer([*at, key]), f"{route[key]!r} is not an IP address", "e.g. 192.0.2.1")
                return
            versions.add(address.version)
    if to is None and "via" not in route:
        versions.add(4)
    if len(versions) > 1:
        refuse(join_pointer(at), "the addresses of a route are of different versions of IP", "use one")
