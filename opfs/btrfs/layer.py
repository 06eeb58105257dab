"""Change the layer: the writable subvolume that blocks are snapshots of.

It decides nothing about blocks. Files are replaced whole: written under one temporary name at the root of the
layer, given their attributes, renamed into place. Measured against writing `block.json` and `events.jsonl` in
place through descriptors kept open, the renames cost nothing that shows beside the snapshot (2.97 and 2.98 ms
for a block, 1,000 documents), so there is one way to write.

Concurrency: one thread at a time, and no other writer in the subvolume ever: a write that races with the
snapshot ioctl is torn by it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from opfs.btrfs.tree import STATE, open_directory
from opfs.core.names import DOCUMENT_SUFFIX, PLUGIN_NAME, check_element_name
from opfs.errors import CommitUnknown, InvalidRequest, NoSpace, NotFound, PoolReadOnly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.core.names import ElementId
    from opfs.ports import FileAttributes

TEMPORARY = ".new"
"""The one name in the layer that is in no block: every call that makes it renames or removes it."""

INLINE_LIMIT_BYTES = 2048
"""Default of btrfs' max_inline: up to it content is metadata, whose write errors the snapshot reports."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_SYNC_FILE_RANGE_WRITE, _SYNC_FILE_RANGE_WAIT_AFTER = 2, 4  # linux/fs.h


class _Owner(NamedTuple):
    uid: int
    gid: int
    mode: int


_ROOT = _Owner(0, 0, 0o644)

_libc = ctypes.CDLL(None, use_errno=True)
_sync_file_range = _libc.sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Translate what the kernel says about a write: out of space is an answer, all else a broken pool."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise NoSpace(f"the pool is full: {what}", hint="free space in it or make it larger") from error
        if error.errno == errno.EROFS:
            raise PoolReadOnly(what) from error
        raise CommitUnknown(f"the pool fails: {what}: {os.strerror(error.errno or 0)}") from error


class Layer:
    """The writer of the subvolume whose root is `root_fd`, which stays the caller's to close."""

    def __init__(self, root_fd: int) -> None:
        """Open the layer for writing; raises OSError. Removes what a crash left half-written."""
        self._root_fd = root_fd
        self._state_fd = open_directory(STATE, root_fd)
        self._plugin_fds: dict[str, int] = {}
        try:
            self._remove_temporary()
        except OSError:
            os.close(self._state_fd)
            raise

    def close(self) -> None:
        for fd in (*self._plugin_fds.values(), self._state_fd):
            os.close(fd)
        self._plugin_fds.clear()

    def put_document(self, id: ElementId, content: bytes, attributes: FileAttributes | None) -> None:
        """Create or replace a document; raises OSError.

        Without `attributes` a document keeps its owner and mode, and a new one is root's with mode 0644.
        """
        plugin_fd = self._plugin_fd(id, create=True)
        file_name = id.element + DOCUMENT_SUFFIX
        if attributes is not None:
            owner = _Owner(attributes.uid, attributes.gid, attributes.mode)
            self._put(file_name, plugin_fd, content, owner, attributes.mtime_ns)
            return
        try:
            before = os.stat(file_name, dir_fd=plugin_fd, follow_symlinks=False)
        except FileNotFoundError:
            owner = _ROOT
        else:
            owner = _Owner(before.st_uid, before.st_gid, stat.S_IMODE(before.st_mode))
        self._put(file_name, plugin_fd, content, owner, None)

    def put_file(self, file_name: str, content: bytes, mode: int) -> None:
        """Create or replace a file of root's at the root of the layer; raises OSError."""
        self._put(file_name, self._root_fd, content, _Owner(0, 0, mode), None)

    def remove_document(self, id: ElementId) -> None:
        """Remove a document, and its plugin's directory with the last one; absent is fine. Raises OSError."""
        try:
            plugin_fd = self._plugin_fd(id, create=False)
        except FileNotFoundError:
            return
        with suppress(FileNotFoundError):
            os.unlink(id.element + DOCUMENT_SUFFIX, dir_fd=plugin_fd)
        try:
            os.rmdir(id.plugin, dir_fd=self._state_fd)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
        else:
            os.close(self._plugin_fds.pop(id.plugin))

    def set_attributes(self, id: ElementId, attributes: FileAttributes) -> None:
        """Change owner, mode and mtime of a document; raises NotFound or OSError."""
        try:
            plugin_fd = self._plugin_fd(id, create=False)
            file_fd = os.open(
                id.element + DOCUMENT_SUFFIX, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=plugin_fd
            )
        except FileNotFoundError:
            raise NotFound(f"there is no document {id}") from None
        try:
            _set_owner(file_fd, _Owner(attributes.uid, attributes.gid, attributes.mode))
            os.utime(file_fd, ns=(attributes.mtime_ns, attributes.mtime_ns))
        finally:
            os.close(file_fd)

    def _plugin_fd(self, id: ElementId, *, create: bool) -> int:
        check_element_name(id.element)
        known = self._plugin_fds.get(id.plugin)
        if known is not None:
            return known
        if not PLUGIN_NAME.match(id.plugin):
            raise InvalidRequest(f"{id.plugin!r} cannot name a plugin")
        if create:
            with suppress(FileExistsError):
                os.mkdir(id.plugin, 0o755, dir_fd=self._state_fd)
        return self._plugin_fds.setdefault(id.plugin, open_directory(id.plugin, self._state_fd))

    def _put(self, file_name: str, dir_fd: int, content: bytes, owner: _Owner, mtime_ns: int | None) -> None:
        try:
            fd = os.open(TEMPORARY, _CREATE, 0o600, dir_fd=self._root_fd)
            try:
                if os.write(fd, content) != len(content):
                    raise OSError(errno.ENOSPC, f"only a part of {file_name} could be written")
                _set_owner(fd, owner)
                if mtime_ns is not None:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
                if len(content) > INLINE_LIMIT_BYTES:
                    _wait_written(fd)
            finally:
                os.close(fd)
            os.rename(TEMPORARY, file_name, src_dir_fd=self._root_fd, dst_dir_fd=dir_fd)
        except OSError:
            self._remove_temporary()
            raise

    def _remove_temporary(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(TEMPORARY, dir_fd=self._root_fd)


def _set_owner(fd: int, owner: _Owner) -> None:
    os.fchown(fd, owner.uid, owner.gid)
    os.fchmod(fd, owner.mode)  # second, because a change of owner clears the set-user-id bit


def _wait_written(fd: int) -> None:
    """Write a file's data to the disk and raise OSError if that fails, which the snapshot ioctl would hide.

    Neither do the devices' counters show it when the host of a sparse image is full: they leave out ENOSPC.
    sync_file_range(2) does it without the log commit and the flush that make fsync cost 1 ms more; it makes
    nothing durable, the snapshot does. Twice, because data to be compressed is handed to a worker while its
    pages stay locked: the second round waits for the locks and so meets the write.
    """
    for flags in (_SYNC_FILE_RANGE_WRITE, _SYNC_FILE_RANGE_WRITE | _SYNC_FILE_RANGE_WAIT_AFTER):
        if _sync_file_range(fd, 0, 0, flags) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
