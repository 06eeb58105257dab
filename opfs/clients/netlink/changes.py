"""Links made, changed and removed, and what is configured on them.

Blocking, for worker threads; calls for different links may run concurrently. Every change says what is to be
so and compares it with what is, so it may be repeated. Raises ApplyFailed with the kernel's own words.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opfs.clients.netlink.decode import (
    ADDRESS_HEADER,
    IFA_ADDRESS,
    IFA_LOCAL,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_LINK,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    INFO_DATA,
    INFO_KIND,
    LINK_HEADER,
    ROUTE_HEADER,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_TABLE,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTNH_F_ONLINK,
    RTPROT_STATIC,
    TABLE_MAIN,
    V6_DEFAULT_METRIC,
    Address,
    Link,
    Route,
)
from opfs.clients.netlink.kernel import KernelRefusal, NetlinkSocket, refusal
from opfs.clients.netlink.kinds import TYPES, encode_options, parent_option
from opfs.clients.netlink.reading import Interface, find_link, managed_routes, own_addresses, read_one
from opfs.clients.netlink.tuntap import make_tuntap
from opfs.clients.netlink.wire import F_CREATE, F_EXCL, attribute, nested, text_attribute
from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_F_REPLACE = 0x100
_VETH_PEER = 1
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_NOWHERE = 0, 253, 255
_DAD_WAIT_S = 4.0
_DAD_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link to be made: `type` is a word of `kinds.TYPES` or another kind of the kernel that has no options."""

    name: str
    type: str
    parent: str = ""
    peer: str = ""
    mtu: int | None = None
    mac: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def make_link(new: NewLink) -> None:
    """Make a link, down and without addresses. Raises KernelRefusal; its number is EEXIST where the name is taken."""
    link_type = TYPES.get(new.type)
    if link_type is not None and link_type.kind == "tun":
        if read_one(new.name) is not None:
            raise refusal(errno.EEXIST)
        make_tuntap(new.type, new.name, new.options)
        change_link(new.name, mtu=new.mtu, mac=new.mac)
        return
    kind = link_type.kind if link_type is not None else new.type
    with NetlinkSocket() as kernel:
        body = _plain(mtu=new.mtu, mac=new.mac)
        data = encode_options(new.type, new.options) if link_type is not None else b""
        if new.parent and link_type is not None:
            index = _require(kernel, new.parent, f"which {new.name} is to lie on").index
            if link_type.parent == "link":
                body += attribute(IFLA_LINK, struct.pack("=I", index))
            data += parent_option(new.type, index)
        if new.peer:
            data += nested(_VETH_PEER, LINK_HEADER.pack(0, 0, 0, 0, 0), text_attribute(IFLA_IFNAME, new.peer))
        info = text_attribute(INFO_KIND, kind) + (nested(INFO_DATA, data) if data else b"")
        body += text_attribute(IFLA_IFNAME, new.name) + nested(IFLA_LINKINFO, info)
        try:
            kernel.request(RTM_NEWLINK, LINK_HEADER.pack(0, 0, 0, 0, 0) + body, F_CREATE | F_EXCL)
        except KernelRefusal as error:
            if error.number == errno.EOPNOTSUPP:
                hint = link_type.missing_hint if link_type is not None else ""
                raise _reworded(
                    error, f"this kernel cannot make a link of the type {new.type}: {error}", hint
                ) from error
            raise _reworded(error, f"making {new.name}: {error}") from error


def change_link(
    name: str,
    *,
    mtu: int | None = None,
    mac: str | None = None,
    alias: str | None = None,
    type_: str = "",
    options: Mapping[str, Any] | None = None,
) -> None:
    """Set what is not None. Raises KernelRefusal, with ENODEV where there is no such link."""
    body = _plain(mtu=mtu, mac=mac)
    if alias is not None:
        body += attribute(IFLA_IFALIAS, alias.encode())
    if options:
        info = text_attribute(INFO_KIND, TYPES[type_].kind) + nested(INFO_DATA, encode_options(type_, options))
        body += nested(IFLA_LINKINFO, info)
    if body:
        with NetlinkSocket() as kernel:
            _change(kernel, _require(kernel, name), body=body)


def set_up(name: str, is_up: bool) -> None:
    """Set a link up or down."""
    with NetlinkSocket() as kernel:
        link = _require(kernel, name)
        if link.is_up == is_up:
            return
        try:
            _change(kernel, link, flags=IFF_UP if is_up else 0, mask=IFF_UP)
        except KernelRefusal as error:
            if error.number == errno.ENETDOWN and link.parent:
                raise _reworded(error, error.reason, "bring up the interface that it lies on first") from error
            raise


def set_master(name: str, master: str | None) -> None:
    """Make a link a port of a bridge, bond or VRF, or of nothing; it stays up if it was up."""
    with NetlinkSocket() as kernel:
        link = _require(kernel, name)
        wanted = _require(kernel, master, f"of which {name} is to be a port") if master else None
        index = wanted.index if wanted else 0
        if link.master == index:
            return
        if wanted is not None and wanted.kind == "bond" and link.is_up:
            _change(kernel, link, mask=IFF_UP)  # a bond takes only links that are down
        try:
            _change(kernel, link, body=attribute(IFLA_MASTER, struct.pack("=I", index)))
        except KernelRefusal as error:
            if error.number == errno.EOPNOTSUPP and wanted is not None:
                reason = f"{wanted.name} takes no ports from the kernel's netlink: {error}"
                raise _reworded(error, reason, "ports of Open vSwitch are declared with their bridge") from error
            raise
        finally:
            # Also a bond that lets a link go takes it down.
            if link.is_up and not _require(kernel, name).is_up:
                _change(kernel, link, flags=IFF_UP, mask=IFF_UP)


def delete_link(name: str) -> bool:
    """Remove a link; False where there was none."""
    with NetlinkSocket() as kernel:
        link = find_link(kernel, name)
        if link is None:
            return False
        try:
            kernel.request(RTM_DELLINK, LINK_HEADER.pack(0, 0, link.index, 0, 0))
        except KernelRefusal as error:
            if error.number == errno.ENODEV:
                return False
            raise _reworded(error, f"removing {name}: {error}") from error
    return True


def set_addresses(name: str, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """Give a link exactly these ("192.0.2.1/24"), beside those that nobody gave; what was added and removed."""
    targets = {str(address): address for address in map(_parse_address, wanted)}
    before = _require_interface(name)
    removed = [address for address in own_addresses(before) if str(address) not in targets]
    with NetlinkSocket() as kernel:
        for address in removed:
            _change_address(kernel, RTM_DELADDR, before.link, address)
    # IPv4: with its first address of a network, a link loses the others of that network.
    there = {str(address) for address in own_addresses(_require_interface(name))}
    added = [text for text in targets if text not in there]
    with NetlinkSocket() as kernel:
        for text in added:
            _change_address(kernel, RTM_NEWADDR, before.link, targets[text])
    known = {str(address) for address in own_addresses(before)}
    return [text for text in added if text not in known], [str(address) for address in removed]


def set_routes(name: str, wanted: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Make exactly these the routes through a link, beside those of protocols; what was added and removed."""
    interface = _require_interface(name)
    targets = {_key(route): route for route in (_parse_route(interface.link.index, route) for route in wanted)}
    there = {_key(route): route for route in managed_routes(interface)}
    removed = [route for key, route in there.items() if key not in targets]
    added = [route for key, route in targets.items() if key not in there]
    with NetlinkSocket() as kernel:
        for route in removed:
            try:
                kernel.request(RTM_DELROUTE, _route_body(route, _SCOPE_NOWHERE))
            except KernelRefusal as error:
                if error.number != errno.ESRCH:
                    raise _reworded(error, f"removing the route to {route.to}: {error}") from error
        for route in added:
            _add_route(kernel, route)
    return [route.to for route in added], [route.to for route in removed]


def _add_route(kernel: NetlinkSocket, route: Route) -> None:
    scope = _SCOPE_UNIVERSE if route.gateway or route.family == socket.AF_INET6 else _SCOPE_LINK
    body = _route_body(route, scope, RTPROT_STATIC)
    deadline = time.monotonic() + _DAD_WAIT_S
    while True:
        try:
            kernel.request(RTM_NEWROUTE, body, F_CREATE | F_EXCL)
        except KernelRefusal as error:
            is_tentative = error.number == errno.EINVAL and len(route.source) == 16
            if is_tentative and time.monotonic() < deadline:
                # A new IPv6 address is no source before the search for duplicates ends, a second or two.
                time.sleep(_DAD_POLL_S)
                continue
            hint = (
                "another route to it has the same metric; give this one another" if error.number == errno.EEXIST else ""
            )
            raise _reworded(error, f"the route to {route.to}: {error}", hint) from error
        return


def _plain(*, mtu: int | None, mac: str | None) -> bytes:
    body = attribute(IFLA_MTU, struct.pack("=I", mtu)) if mtu is not None else b""
    return body + (attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))) if mac is not None else b"")


def _change(kernel: NetlinkSocket, link: Link, *, flags: int = 0, mask: int = 0, body: bytes = b"") -> None:
    try:
        kernel.request(RTM_NEWLINK, LINK_HEADER.pack(0, 0, link.index, flags, mask) + body)
    except KernelRefusal as error:
        raise _reworded(error, f"changing {link.name}: {error}") from error


def _change_address(kernel: NetlinkSocket, type_: int, link: Link, address: Address) -> None:
    family = socket.AF_INET if len(address.packed) == 4 else socket.AF_INET6
    body = ADDRESS_HEADER.pack(family, address.prefix, 0, 0, link.index)
    body += attribute(IFA_LOCAL, address.packed) + attribute(IFA_ADDRESS, address.peer or address.packed)
    # "Replace": the address may be there already as one with a lifetime, from DHCP or a router.
    flags = F_CREATE | _F_REPLACE if type_ == RTM_NEWADDR else 0
    try:
        kernel.request(type_, body, flags)
    except KernelRefusal as error:
        if type_ == RTM_DELADDR and error.number in (errno.EADDRNOTAVAIL, errno.ENODEV):
            return
        raise _reworded(error, f"the address {address} of {link.name}: {error}") from error


def _route_body(route: Route, scope: int, protocol: int = 0) -> bytes:
    table = route.table if route.table < 256 else 0
    flags = RTNH_F_ONLINK if route.is_onlink else 0
    body = ROUTE_HEADER.pack(route.family, route.prefix, 0, 0, table, protocol, scope, RTN_UNICAST, flags)
    body += attribute(RTA_TABLE, struct.pack("=I", route.table)) + attribute(RTA_OIF, struct.pack("=I", route.index))
    if route.prefix:
        body += attribute(RTA_DST, route.destination)
    if route.gateway:
        body += attribute(RTA_GATEWAY, route.gateway)
    if route.metric:
        body += attribute(RTA_PRIORITY, struct.pack("=I", route.metric))
    if route.source:
        body += attribute(RTA_PREFSRC, route.source)
    return body


def _parse_address(text: str) -> Address:
    interface = ipaddress.ip_interface(text)
    return Address(0, interface.packed, interface.network.prefixlen)


def _parse_route(index: int, route: Mapping[str, Any]) -> Route:
    """A route in the shape of documents, as `Route.describe` gives it."""
    network = ipaddress.ip_network("0.0.0.0/0" if route["to"] == "default" else route["to"])
    return Route(
        index,
        socket.AF_INET if network.version == 4 else socket.AF_INET6,
        network.network_address.packed,
        network.prefixlen,
        gateway=ipaddress.ip_address(route["via"]).packed if "via" in route else b"",
        metric=route.get("metric", V6_DEFAULT_METRIC if network.version == 6 else 0),
        table=route.get("table", TABLE_MAIN),
        source=ipaddress.ip_address(route["src"]).packed if "src" in route else b"",
        is_onlink=route.get("onlink", False),
    )


def _key(route: Route) -> tuple[object, ...]:
    return (*sorted(route.describe().items()), route.family)


def _require(kernel: NetlinkSocket, name: str, what: str = "") -> Link:
    link = find_link(kernel, name)
    if link is None:
        error = KernelRefusal(f"there is no link {name}{f', {what}' if what else ''}")
        error.number = errno.ENODEV
        raise error
    return link


def _require_interface(name: str) -> Interface:
    interface = read_one(name)
    if interface is None:
        raise ApplyFailed(f"there is no link {name}")
    return interface


def _reworded(error: KernelRefusal, reason: str, hint: str = "") -> KernelRefusal:
    again = KernelRefusal(reason, hint=hint)
    again.number = error.number
    return again
