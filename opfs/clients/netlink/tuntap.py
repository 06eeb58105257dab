"""TUN and TAP links that persist: made by an ioctl of /dev/net/tun, the one thing netlink cannot.

Blocking, for worker threads. Source: Documentation/networking/tuntap.rst and tun(4) of Linux.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING

from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

DEVICE = "/dev/net/tun"
_SET_INTERFACE, _SET_PERSISTENT, _SET_OWNER, _SET_GROUP = 0x400454CA, 0x400454CB, 0x400454CC, 0x400454CE
_TUN, _TAP, _MULTI_QUEUE, _NO_PACKET_INFO, _EXCLUSIVE = 0x0001, 0x0002, 0x0100, 0x1000, 0x8000


def make_tuntap(type_: str, name: str, options: Mapping[str, object]) -> None:
    """Make a persistent link `name`, 1 to 15 bytes; raises ApplyFailed, also where the name is taken."""
    flags = (_TAP if type_ == "tap" else _TUN) | _NO_PACKET_INFO | _EXCLUSIVE
    flags |= _MULTI_QUEUE if options.get("multi_queue") else 0
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise ApplyFailed(f"{DEVICE}: {error.strerror}", hint="load the module tun") from error
    try:
        fcntl.ioctl(descriptor, _SET_INTERFACE, struct.pack("16sH22x", name.encode(), flags))
        for word, command in (("owner", _SET_OWNER), ("group", _SET_GROUP)):
            number = options.get(word)
            if isinstance(number, int):
                # Python's argument is a signed int; ids are not.
                fcntl.ioctl(descriptor, command, number - (1 << 32) if number >= 1 << 31 else number)
        # Last: until this line, closing the descriptor takes a link that is half made away again.
        fcntl.ioctl(descriptor, _SET_PERSISTENT, 1)
    except OSError as error:
        raise ApplyFailed(f"{DEVICE} refuses to make {name}: {error.strerror}") from error
    finally:
        os.close(descriptor)
