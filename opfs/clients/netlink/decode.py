"""Messages about links, addresses and routes, as records; pure.

Source: rtnetlink(7), include/uapi/linux/if_link.h, if_addr.h and rtnetlink.h. Raises MalformedMessage for what
is not such a message. What no document speaks of (statistics, queues) is not looked at, which is what makes
reading 1,000 links cheap.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opfs.clients.netlink.kinds import decode_options, parent_index, type_of
from opfs.clients.netlink.wire import MalformedMessage, attributes, text, u8, u32

if TYPE_CHECKING:
    from collections.abc import Mapping

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFF_UP = 0x1
ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772

LINK_HEADER = struct.Struct("=BxHiII")
"""family, hardware type, index, flags, change mask"""
ADDRESS_HEADER = struct.Struct("=BBBBI")
"""family, prefix length, flags, scope, index"""
ROUTE_HEADER = struct.Struct("=BBBBBBBBI")
"""family, destination bits, source bits, TOS, table, protocol, scope, type, flags"""

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_EXT_MASK, IFLA_LINK_NETNSID = 18, 20, 29, 37
INFO_KIND, INFO_DATA = 1, 2
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS, IFA_PROTO = 1, 2, 8, 11
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15

RTPROT_BOOT, RTPROT_STATIC = 3, 4
RTN_UNICAST = 1
RTNH_F_ONLINK = 4
TABLE_MAIN = 254
V6_DEFAULT_METRIC = 1024

_F_PERMANENT = 0x80


@dataclass(frozen=True, slots=True)
class Link:
    """A link: `type` is the word of documents, "" where only `kind`, the kernel's own word, names it.

    `kind` is "" for hardware and for the loopback. `parent` and `master` are indices, 0 if none; `is_remote`
    says that `parent` is an index of another network namespace.
    """

    index: int
    name: str
    type: str
    kind: str
    hardware: int
    is_up: bool
    mtu: int
    mac: str
    master: int = 0
    parent: int = 0
    is_remote: bool = False
    alias: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a link; `is_managed` unless the kernel, a router or DHCP gave it.

    `peer` is the other end's address on a point-to-point link, else the same.
    """

    index: int
    packed: bytes
    prefix: int
    is_managed: bool = True
    peer: bytes = b""

    def __str__(self) -> str:
        return f"{_shown(self.packed)}/{self.prefix}"


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route through one link: `is_managed` where a person or opfs made it, not a protocol."""

    index: int
    family: int
    destination: bytes
    prefix: int
    gateway: bytes = b""
    metric: int = 0
    table: int = TABLE_MAIN
    source: bytes = b""
    is_onlink: bool = False
    is_managed: bool = True

    @property
    def is_default(self) -> bool:
        return self.prefix == 0 and self.table == TABLE_MAIN

    @property
    def to(self) -> str:
        """The destination in the words of documents: `default` for IPv4's, `::/0` for IPv6's."""
        if self.prefix == 0 and self.family == socket.AF_INET:
            return "default"
        return f"{_shown(self.destination)}/{self.prefix}"

    def describe(self) -> dict[str, Any]:
        """The route in the shape of documents, without what is the default."""
        shown: dict[str, Any] = {"to": self.to}
        if self.gateway:
            shown["via"] = _shown(self.gateway)
        if self.metric != (V6_DEFAULT_METRIC if self.family == socket.AF_INET6 else 0):
            shown["metric"] = self.metric
        if self.table != TABLE_MAIN:
            shown["table"] = self.table
        if self.source:
            shown["src"] = _shown(self.source)
        if self.is_onlink:
            shown["onlink"] = True
        return shown


def decode_link(body: memoryview) -> Link:
    if len(body) < LINK_HEADER.size:
        raise MalformedMessage(f"a message about a link has {len(body)} bytes")
    _, hardware, index, flags, _ = LINK_HEADER.unpack_from(body)
    found = attributes(body[LINK_HEADER.size :])
    kind, type_, parent = "", "", u32(found.get(IFLA_LINK))
    options: dict[str, Any] = {}
    info = found.get(IFLA_LINKINFO)
    if info is not None:
        parts = attributes(info)
        kind = text(parts.get(INFO_KIND))
        data = attributes(parts[INFO_DATA]) if INFO_DATA in parts else {}
        type_, options = type_of(kind, data), decode_options(kind, data)
        parent = parent_index(kind, data) or parent
    mac = found.get(IFLA_ADDRESS)
    return Link(
        index=index,
        name=text(found.get(IFLA_IFNAME)),
        type=type_,
        kind=kind,
        hardware=hardware,
        is_up=bool(flags & IFF_UP),
        mtu=u32(found.get(IFLA_MTU)),
        mac=bytes(mac).hex(":") if mac is not None and len(mac) == 6 else "",
        master=u32(found.get(IFLA_MASTER)),
        parent=parent,
        is_remote=IFLA_LINK_NETNSID in found,
        alias=text(found.get(IFLA_IFALIAS)),
        options=options,
    )


def decode_address(body: memoryview) -> Address:
    if len(body) < ADDRESS_HEADER.size:
        raise MalformedMessage(f"a message about an address has {len(body)} bytes")
    family, prefix, flags, _, index = ADDRESS_HEADER.unpack_from(body)
    found = attributes(body[ADDRESS_HEADER.size :])
    packed = _packed(family, found.get(IFA_LOCAL, found.get(IFA_ADDRESS)))
    flags = u32(found.get(IFA_FLAGS), flags)
    # What the kernel or a router's advertisement gave says so, since Linux 5.18; DHCP's addresses have a lifetime.
    is_managed = bool(flags & _F_PERMANENT) and not u8(found.get(IFA_PROTO))
    return Address(index, packed, prefix, is_managed, _packed(family, found.get(IFA_ADDRESS, found.get(IFA_LOCAL))))


def decode_route(body: memoryview) -> Route | None:
    """The route, or None for one that is not a unicast route through exactly one link."""
    if len(body) < ROUTE_HEADER.size:
        raise MalformedMessage(f"a message about a route has {len(body)} bytes")
    family, bits, source_bits, tos, table, protocol, _, type_, flags = ROUTE_HEADER.unpack_from(body)
    if type_ != RTN_UNICAST or source_bits or tos or family not in (socket.AF_INET, socket.AF_INET6):
        return None
    if protocol not in (RTPROT_BOOT, RTPROT_STATIC) and bits:
        return None
    found = attributes(body[ROUTE_HEADER.size :])
    index = u32(found.get(RTA_OIF))
    if not index:
        return None
    return Route(
        index,
        family,
        _packed(family, found.get(RTA_DST)),
        bits,
        gateway=_packed(family, found[RTA_GATEWAY]) if RTA_GATEWAY in found else b"",
        metric=u32(found.get(RTA_PRIORITY)),
        table=u32(found.get(RTA_TABLE), table),
        source=_packed(family, found[RTA_PREFSRC]) if RTA_PREFSRC in found else b"",
        is_onlink=bool(flags & RTNH_F_ONLINK),
        is_managed=protocol in (RTPROT_BOOT, RTPROT_STATIC),
    )


def _packed(family: int, data: memoryview | None) -> bytes:
    if family not in (socket.AF_INET, socket.AF_INET6):
        raise MalformedMessage(f"a message about the address family {family}")
    size = 4 if family == socket.AF_INET else 16
    if data is None:
        return bytes(size)
    if len(data) != size:
        raise MalformedMessage(f"an address of family {family} has {len(data)} bytes")
    return bytes(data)


def _shown(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
