"""Netlink messages and attributes, bytes to views and back; pure.

Source: netlink(7), and include/uapi/linux/netlink.h for the layout. Every length is checked against what is
there before it is used, so any bytes give messages or MalformedMessage, in time linear in their number. Views
share the memory of what was parsed. Netlink is in the byte order of the host.
"""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING, NamedTuple

from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4

F_REQUEST = 0x1
F_ACK = 0x4
F_DUMP_INTERRUPTED = 0x10
F_ACK_CAPPED = 0x100
F_ACK_TLVS = 0x200
F_DUMP = 0x300
F_EXCL = 0x200
F_CREATE = 0x400

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
"""The two high bits of an attribute's type say "nested" and "network byte order"."""
_MAX_ATTRIBUTE_BYTES = 0xFFFF

Attributes = dict[int, memoryview]


class MalformedMessage(ApplyFailed):
    """Bytes that are no netlink message: a length passes what is there."""


class Message(NamedTuple):
    """One message: `port` is the netlink port it answers or was caused by, 0 for the kernel."""

    type: int
    flags: int
    sequence: int
    port: int
    body: memoryview


def messages(data: bytes | memoryview) -> Iterator[Message]:
    """The messages of one datagram; raises MalformedMessage."""
    view = memoryview(data)
    offset, end = 0, len(view)
    while offset < end:
        if end - offset < _HEADER.size:
            raise MalformedMessage(f"a netlink message ends within its header, at byte {offset} of {end}")
        length, type_, flags, sequence, port = _HEADER.unpack_from(view, offset)
        if not _HEADER.size <= length <= end - offset:
            raise MalformedMessage(f"a netlink message at byte {offset} of {end} says it has {length} bytes")
        yield Message(type_, flags, sequence, port, view[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


def pack_message(type_: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One message for the kernel, from this socket's own port."""
    return _HEADER.pack(_HEADER.size + len(body), type_, flags, sequence, 0) + body


def attribute_list(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The attributes in their order, for lists in which a type comes more than once; raises MalformedMessage."""
    unpack, offset, end = _ATTRIBUTE.unpack_from, 0, len(data)
    while offset < end:
        if end - offset < 4:
            raise MalformedMessage(f"a netlink attribute ends within its header, at byte {offset} of {end}")
        length, type_ = unpack(data, offset)
        if not 4 <= length <= end - offset:
            raise MalformedMessage(f"a netlink attribute at byte {offset} of {end} says it has {length} bytes")
        yield type_ & _TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attributes(data: memoryview) -> Attributes:
    """The attributes by type, the last of each; raises MalformedMessage.

    The same walk as `attribute_list`, written out once more: this one is done 5,000 times for 1,000 links.
    """
    found: Attributes = {}
    unpack, offset, end = _ATTRIBUTE.unpack_from, 0, len(data)
    while end - offset >= 4:
        length, type_ = unpack(data, offset)
        if length < 4 or length > end - offset:
            break
        found[type_ & _TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found if offset >= end else dict(attribute_list(data))


def attribute(type_: int, payload: bytes) -> bytes:
    """One attribute, padded. Raises MalformedMessage for a payload that its length field cannot hold."""
    length = 4 + len(payload)
    if length > _MAX_ATTRIBUTE_BYTES:
        raise MalformedMessage(
            f"a netlink attribute holds at most {_MAX_ATTRIBUTE_BYTES - 4} bytes, not {len(payload)}"
        )
    return _ATTRIBUTE.pack(length, type_) + payload + b"\0" * (-length & 3)


def nested(type_: int, *inner: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(type_ | _NESTED, b"".join(inner))


def text_attribute(type_: int, text: str) -> bytes:
    """A string, with the zero byte that the kernel wants at its end."""
    return attribute(type_, text.encode("utf-8", "surrogateescape") + b"\0")


def u8(data: memoryview | None, default: int = 0) -> int:
    return _unsigned(data, 1, default)


def u16(data: memoryview | None, default: int = 0) -> int:
    return _unsigned(data, 2, default)


def u32(data: memoryview | None, default: int = 0) -> int:
    return _unsigned(data, 4, default)


def text(data: memoryview | None) -> str:
    """A string up to its zero byte; bytes that are not UTF-8 survive a round trip."""
    return "" if data is None else bytes(data).partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _unsigned(data: memoryview | None, size: int, default: int) -> int:
    if data is None:
        return default
    if len(data) != size:
        raise MalformedMessage(f"a netlink attribute of {size} bytes has {len(data)}")
    return int.from_bytes(data, sys.byteorder)
