"""Changes in directories and who made them, as fanotify(7) reports them to root: directory, name, process.

The kernel names a directory by a handle, so the handle of each watched one is kept. File systems without handles,
and subvolumes of btrfs whose mount has another identity, cannot be watched this way: `add` says so, and
opfs.clients.inotify can, without the process. Reading waits on the trio thread; adding a directory is two system
calls. One reader at a time. Where the kernel drops events, `changes` yields None.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import trio

from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CLOEXEC, _NONBLOCK, _REPORT_DFID_NAME = 0x01, 0x02, 0xC00
_MARK_ADD, _MARK_REMOVE, _MARK_ONLYDIR = 0x01, 0x02, 0x08
_ATTRIB, _CLOSE_WRITE, _MOVED, _CREATE, _DELETE = 0x04, 0x08, 0x40 | 0x80, 0x100, 0x200
_ON_CHILD, _ONDIR, _OVERFLOW = 0x0800_0000, 0x4000_0000, 0x4000
_MASK = _ATTRIB | _CLOSE_WRITE | _MOVED | _CREATE | _DELETE | _ON_CHILD | _ONDIR
_INFO_DFID_NAME = 2
_AT_FDCWD = -100
_METADATA = struct.Struct("=IBBHQii")
_INFO = struct.Struct("=BBH8sIi")
_HANDLE_BYTES_MAX = 128
_READ_BYTES = 256 << 10
_LIBC = ctypes.CDLL(None, use_errno=True)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True, slots=True)
class Change:
    """`name` in `directory` was changed by `pid`, 0 where the kernel does not tell."""

    directory: str
    name: str
    pid: int


class _Handle(ctypes.Structure):
    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * _HANDLE_BYTES_MAX),
    )


class Fanotify:
    """Watched directories. Use as a context manager. Raises ApplyFailed where the kernel or the caller may not."""

    def __init__(self) -> None:
        self._descriptor = _LIBC.fanotify_init(_CLOEXEC | _NONBLOCK | _REPORT_DFID_NAME, os.O_RDONLY)
        if self._descriptor < 0:
            raise ApplyFailed(f"fanotify: {os.strerror(ctypes.get_errno())}")
        self._paths: dict[tuple[int, bytes], str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def add(self, directory: str) -> bool:
        """Watch a directory; returns whether it is there. Raises ApplyFailed where it cannot be watched this way."""
        handle = _handle_of(directory)
        if handle is None or not self._mark(_MARK_ADD, directory):
            return False
        self._paths[handle] = directory
        return True

    def remove(self, directory: str) -> None:
        """Watch a directory no longer; nothing to do where it is gone."""
        for handle in [handle for handle, path in self._paths.items() if path == directory]:
            del self._paths[handle]
        self._mark(_MARK_REMOVE, directory)

    def _mark(self, how: int, directory: str) -> bool:
        mask = ctypes.c_uint64(_MASK)
        path = os.fsencode(directory)
        if _LIBC.fanotify_mark(self._descriptor, how | _MARK_ONLYDIR, mask, _AT_FDCWD, path) == 0:
            return True
        number = ctypes.get_errno()
        if number in _GONE:
            return False
        raise ApplyFailed(f"{directory} cannot be watched by fanotify: {os.strerror(number)}")

    async def changes(self) -> AsyncIterator[Change | None]:
        """What changes in the watched directories; None where some went unreported."""
        while True:
            await trio.lowlevel.wait_readable(self._descriptor)
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                continue
            while data:
                length, _, _, skip, mask, _, pid = _METADATA.unpack_from(data)
                event, data = data[skip:length], data[length:]
                if mask & _OVERFLOW:
                    yield None
                    continue
                change = self._read(event, pid)
                if change is not None:
                    yield change

    def _read(self, event: bytes, pid: int) -> Change | None:
        kind, _, _, _, count, handle_type = _INFO.unpack_from(event)
        if kind != _INFO_DFID_NAME:
            return None
        handle = event[_INFO.size : _INFO.size + count]
        name = event[_INFO.size + count :].split(b"\0", 1)[0]
        directory = self._paths.get((handle_type, handle))
        return None if directory is None else Change(directory, os.fsdecode(name), pid)


def describe_process(pid: int) -> str:
    """Who a process is, in the kernel's words; as much as is known of one that has ended. Blocking, briefly."""
    if pid <= 0:
        return ""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return f"pid {pid}, which has ended"
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return f"uid {fields.get('Uid', '?').split()[0]}, pid {pid} ({fields.get('Name', '?')})"


def _handle_of(directory: str) -> tuple[int, bytes] | None:
    """The kernel's handle of a directory, None if it is not there."""
    handle, mount = _Handle(handle_bytes=_HANDLE_BYTES_MAX), ctypes.c_int()
    path = os.fsencode(directory)
    follow = 0x400  # AT_SYMLINK_FOLLOW, as marking does
    if _LIBC.name_to_handle_at(_AT_FDCWD, path, ctypes.byref(handle), ctypes.byref(mount), follow) != 0:
        number = ctypes.get_errno()
        if number in _GONE:
            return None
        raise ApplyFailed(f"{directory} has no handle: {os.strerror(number)}")
    return handle.handle_type, bytes(handle.f_handle[: handle.handle_bytes])
