"""What is there: links with their addresses and routes, all of them or one.

Blocking, for worker threads; each call opens a socket of its own, so calls may run concurrently. One link is
asked for by name and its addresses and routes by its index, so that one element costs the same on a host with
1,000 of them.
"""

from __future__ import annotations

import errno
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opfs.clients.netlink.decode import (
    ADDRESS_HEADER,
    ARPHRD_LOOPBACK,
    IFLA_EXT_MASK,
    IFLA_IFNAME,
    LINK_HEADER,
    ROUTE_HEADER,
    RTA_OIF,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTN_UNICAST,
    Address,
    Link,
    Route,
    decode_address,
    decode_link,
    decode_route,
)
from opfs.clients.netlink.kernel import KernelRefusal, NetlinkSocket
from opfs.clients.netlink.wire import attribute, text_attribute

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_NAME_BYTES = 15
"""IFNAMSIZ without the zero byte at its end."""

_SKIP_STATISTICS = attribute(IFLA_EXT_MASK, struct.pack("=I", 8))
_FAMILIES = (2, 10)
"""AF_INET and AF_INET6, each in a dump of its own: a filter by type or link needs one."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A link with what is configured on it; `others` has the links that its indices speak of."""

    link: Link
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    others: Mapping[int, Link] = field(default_factory=dict)

    @property
    def has_default_route(self) -> bool:
        return any(route.is_default for route in self.routes)


def read_all() -> dict[str, Interface]:
    """Every link of the network namespace, by name."""
    with NetlinkSocket() as kernel:
        # A link that is renamed or removed between the dumps shows without addresses, as it would a moment later.
        links = {link.index: link for link in _links(kernel)}
        addresses: dict[int, list[Address]] = defaultdict(list)
        routes: dict[int, list[Route]] = defaultdict(list)
        for address in _addresses(kernel, 0):
            addresses[address.index].append(address)
        for route in _routes(kernel, 0):
            routes[route.index].append(route)
    return {
        link.name: Interface(link, tuple(addresses[index]), tuple(routes[index]), links)
        for index, link in links.items()
    }


def read_one(name: str) -> Interface | None:
    """The link of that name, or None."""
    with NetlinkSocket() as kernel:
        link = find_link(kernel, name)
        if link is None:
            return None
        try:
            addresses, routes = tuple(_addresses(kernel, link.index)), tuple(_routes(kernel, link.index))
        except KernelRefusal as error:
            if error.number == errno.ENODEV:  # removed between the two questions
                return None
            raise
        others = {}
        for index in {link.master, 0 if link.is_remote else link.parent} - {0}:
            other = find_link(kernel, index)
            if other is not None:
                others[index] = other
    return Interface(link, addresses, routes, others)


def find_link(kernel: NetlinkSocket, wanted: str | int) -> Link | None:
    """The link of a name or an index, or None."""
    is_name = isinstance(wanted, str)
    if isinstance(wanted, str) and not 1 <= len(wanted.encode("utf-8", "surrogateescape")) <= MAX_NAME_BYTES:
        return None
    header = LINK_HEADER.pack(0, 0, 0 if is_name else wanted, 0, 0)
    by_name = text_attribute(IFLA_IFNAME, wanted) if isinstance(wanted, str) else b""
    try:
        answer = kernel.request(RTM_GETLINK, header + by_name + _SKIP_STATISTICS)
    except KernelRefusal as error:
        if error.number == errno.ENODEV:
            return None
        raise
    return None if answer is None or answer.type != RTM_NEWLINK else decode_link(answer.body)


def read_link(name: str) -> Link | None:
    """The link of a name, without addresses and routes, or None."""
    with NetlinkSocket() as kernel:
        return find_link(kernel, name)


def read_names() -> dict[int, str]:
    """The names of all links by index."""
    with NetlinkSocket() as kernel:
        return {link.index: link.name for link in _links(kernel)}


def _links(kernel: NetlinkSocket) -> list[Link]:
    answers = kernel.dump(RTM_GETLINK, LINK_HEADER.pack(0, 0, 0, 0, 0) + _SKIP_STATISTICS)
    return [decode_link(answer.body) for answer in answers if answer.type == RTM_NEWLINK]


def _addresses(kernel: NetlinkSocket, index: int) -> list[Address]:
    """Of one link, or of all for index 0."""
    answers = kernel.dump(RTM_GETADDR, ADDRESS_HEADER.pack(0, 0, 0, 0, index))
    found = [decode_address(answer.body) for answer in answers if answer.type == RTM_NEWADDR]
    return [address for address in found if index in (0, address.index)]


def _routes(kernel: NetlinkSocket, index: int) -> list[Route]:
    """Unicast routes through one link, or through any for index 0."""
    through = attribute(RTA_OIF, struct.pack("=I", index)) if index else b""
    found = []
    for family in _FAMILIES:
        body = ROUTE_HEADER.pack(family, 0, 0, 0, 0, 0, 0, RTN_UNICAST, 0) + through
        try:
            answers = kernel.dump(RTM_GETROUTE, body)
        except KernelRefusal as error:
            if error.number in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):  # a kernel without IPv6
                continue
            raise
        decoded = (decode_route(answer.body) for answer in answers if answer.type == RTM_NEWROUTE)
        found += [route for route in decoded if route is not None and index in (0, route.index)]
    return found


def managed_addresses(interface: Interface) -> list[str]:
    """Addresses that a person or opfs gave, IPv4 first, in the order of their numbers."""
    return [str(address) for address in own_addresses(interface)]


def own_addresses(interface: Interface) -> list[Address]:
    """The addresses behind `managed_addresses`; the loopback's 127.0.0.1/8 is the kernel's, though nothing says so."""
    is_loopback = interface.link.hardware == ARPHRD_LOOPBACK
    managed = [
        address
        for address in interface.addresses
        if address.is_managed and not (is_loopback and (address.packed, address.prefix) == (b"\x7f\0\0\1", 8))
    ]
    return sorted(managed, key=lambda a: (len(a.packed), a.packed, a.prefix))


def managed_routes(interface: Interface) -> list[Route]:
    """Routes that a person or opfs made, IPv4 first, in the order of table, destination and metric."""
    managed = [route for route in interface.routes if route.is_managed]
    return sorted(managed, key=lambda r: (r.family, r.table, r.destination, r.prefix, r.metric, r.gateway))
