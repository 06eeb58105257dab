"""Changes in directories, as inotify(7) reports them: which name in which directory, not who did it.

Knows names and nothing of what they mean. Reading waits on the trio thread; adding a directory is one system
call. One reader at a time. The kernel drops events when too many wait, and says so: then `changes` yields
None, and whoever listens looks at everything.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING, Self

import trio

from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_ATTRIB, _CLOSE_WRITE, _MOVED, _CREATE, _DELETE = 0x04, 0x08, 0x40 | 0x80, 0x100, 0x200
_ONLYDIR, _DONT_FOLLOW = 0x0100_0000, 0x0200_0000
_MASK = _ATTRIB | _CLOSE_WRITE | _MOVED | _CREATE | _DELETE | _ONLYDIR | _DONT_FOLLOW
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_HEADER = struct.Struct("iIII")
_READ_BYTES = 64 << 10
_LIBC = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Watched directories. Use as a context manager."""

    def __init__(self) -> None:
        self._descriptor = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise ApplyFailed(f"inotify: {os.strerror(ctypes.get_errno())}", hint="fs.inotify.max_user_instances")
        self._watched: dict[str, int] = {}
        self._paths: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    @property
    def directories(self) -> frozenset[str]:
        return frozenset(self._watched)

    def add(self, directory: str) -> bool:
        """Watch a directory, which is no link; returns whether it is there. Raises ApplyFailed at the limit."""
        watch = _LIBC.inotify_add_watch(self._descriptor, os.fsencode(directory), _MASK)
        if watch < 0:
            number = ctypes.get_errno()
            if number in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            hint = "raise fs.inotify.max_user_watches" if number == errno.ENOSPC else ""
            raise ApplyFailed(f"{directory} cannot be watched: {os.strerror(number)}", hint=hint)
        self._watched[directory] = watch
        self._paths[watch] = directory
        return True

    def remove(self, directory: str) -> None:
        watch = self._watched.pop(directory, None)
        if watch is not None:
            self._paths.pop(watch, None)
            _LIBC.inotify_rm_watch(self._descriptor, watch)

    async def changes(self) -> AsyncIterator[tuple[str, str] | None]:
        """The directory and the name in it that changed; None where some went unreported."""
        while True:
            await trio.lowlevel.wait_readable(self._descriptor)
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                continue
            while data:
                watch, mask, _, length = _HEADER.unpack_from(data)
                name = os.fsdecode(data[_HEADER.size : _HEADER.size + length].rstrip(b"\0"))
                data = data[_HEADER.size + length :]
                if mask & _OVERFLOW:
                    yield None
                    continue
                directory = self._paths.get(watch)
                if mask & _IGNORED:
                    # The directory itself is gone, or watched no longer.
                    self._paths.pop(watch, None)
                    if directory is not None and self._watched.get(directory) == watch:
                        del self._watched[directory]
                if directory is not None:
                    yield directory, name
