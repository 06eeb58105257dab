"""Generic netlink: a family of the kernel's, found by its name, and requests to it.

Blocking, for worker threads. Source: genetlink(7) of the kernel's documentation, include/uapi/linux/genetlink.h.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from opfs.clients.netlink.kernel import NETLINK_GENERIC, KernelRefusal, NetlinkSocket
from opfs.clients.netlink.wire import MalformedMessage, attributes, text_attribute, u16

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTROL, _GET_FAMILY = 16, 3
_FAMILY_ID, _FAMILY_NAME = 1, 2
_HEADER = struct.Struct("=BBxx")


class GenericFamily:
    """One family on one socket; a context manager through its socket. Raises KernelRefusal where there is none."""

    def __init__(self, kernel: NetlinkSocket, name: str, version: int = 1) -> None:
        self._kernel = kernel
        self._version = version
        answer = kernel.request(_CONTROL, _HEADER.pack(_GET_FAMILY, 1) + text_attribute(_FAMILY_NAME, name))
        if answer is None:
            raise MalformedMessage(f"the kernel says nothing of its family {name}")
        self._id = u16(attributes(_body(answer.body)).get(_FAMILY_ID))

    def request(self, command: int, body: bytes) -> None:
        self._kernel.request(self._id, _HEADER.pack(command, self._version) + body)

    def dump(self, command: int, body: bytes) -> Iterator[memoryview]:
        """The attributes of every message."""
        for message in self._kernel.dump(self._id, _HEADER.pack(command, self._version) + body):
            if message.type == self._id:
                yield _body(message.body)


def open_socket() -> NetlinkSocket:
    return NetlinkSocket(NETLINK_GENERIC)


def has_family(name: str) -> bool:
    """Whether the kernel has a family now; one in a module that is not loaded counts as missing."""
    try:
        with open_socket() as kernel:
            GenericFamily(kernel, name)
    except KernelRefusal as error:
        if error.number == errno.ENOENT:
            return False
        raise
    return True


def _body(data: memoryview) -> memoryview:
    if len(data) < _HEADER.size:
        raise MalformedMessage(f"a generic netlink message has {len(data)} bytes")
    return data[_HEADER.size :]
