"""Drafts in the tree: files of a plugin's directory that are no documents, passed through to the disk.

A draft is never applied and never in a block; editors' temporary files, backups and the targets of `rsync` are
drafts. Renames between drafts and documents are in opfs.vfs.renames.

Concurrency: what changes the disk, and what moves file bytes, runs in worker threads: a change joins a
transaction of the pool's file system, which may first wait for the snapshot of a block. Looking (stat, names,
attributes) is answered from memory nearly always, and costs less than the way to a thread.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from opfs.errors import Rejected
from opfs.vfs.node import Attributes, File, Handle
from opfs.vfs.notes import NO_NOTE, PREFIX, with_xattr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from opfs.core.names import BlockName
    from opfs.vfs.draft_store import DraftStore
    from opfs.vfs.node import AttributeChanges, Caller, NodeKey

RENAME_EXCHANGE = 2


@dataclass(slots=True)
class Drafts:
    """The drafts of all plugins, and which are open: an open file outlives its name."""

    store: DraftStore
    head: Callable[[], BlockName]
    _open: dict[NodeKey, list[DraftHandle]] = field(default_factory=dict)

    def file(self, plugin: str, name: str) -> DraftFile:
        return DraftFile(("state", plugin, name), self)

    async def create(
        self, plugin: str, name: str, mode: int, flags: int, caller: Caller
    ) -> tuple[DraftFile, DraftHandle]:
        owner = (caller.uid, caller.gid)
        descriptor = await trio.to_thread.run_sync(self.store.create, plugin, name, flags, mode, owner)
        file = self.file(plugin, name)
        return file, DraftHandle(descriptor, file.key, self)

    async def unlink(self, plugin: str, name: str) -> None:
        await trio.to_thread.run_sync(self.store.unlink, plugin, name)

    async def rename(self, plugin: str, name: str, target_plugin: str, target_name: str, flags: int) -> None:
        await trio.to_thread.run_sync(self.store.rename, plugin, name, target_plugin, target_name, flags)
        source, target = ("state", plugin, name), ("state", target_plugin, target_name)
        moved, met = self._open.pop(source, []), self._open.pop(target, []) if flags & RENAME_EXCHANGE else []
        for handles, key in ((moved, target), (met, source)):
            for handle in handles:
                handle.key = key
                self.opened(handle)

    def opened(self, handle: DraftHandle) -> None:
        self._open.setdefault(handle.key, []).append(handle)

    def closed(self, handle: DraftHandle) -> None:
        self._open[handle.key].remove(handle)
        if not self._open[handle.key]:
            del self._open[handle.key]

    def open_file(self, key: NodeKey) -> DraftHandle | None:
        return self._open.get(key, [None])[-1]


@dataclass(slots=True)
class DraftFile(File):
    """A draft by its name."""

    drafts: Drafts

    @property
    def _place(self) -> tuple[str, str]:
        return self.key[1], self.key[2]

    async def attributes(self, caller: Caller) -> Attributes:
        try:
            status = self.drafts.store.stat(*self._place)
        except FileNotFoundError:
            handle = self.drafts.open_file(self.key)
            if handle is None:
                raise
            status = os.fstat(handle.descriptor)
        return Attributes(
            mode=status.st_mode,
            size=status.st_size,
            uid=status.st_uid,
            gid=status.st_gid,
            nlink=status.st_nlink,
            atime_ns=status.st_atime_ns,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
        )

    async def set_attributes(self, changes: AttributeChanges, handle: Handle | None, caller: Caller) -> None:
        await trio.to_thread.run_sync(self._set_attributes, changes)

    def _set_attributes(self, changes: AttributeChanges) -> None:
        with self._descriptor(os.O_RDONLY if changes.size is None else os.O_RDWR) as descriptor:
            if changes.size is not None:
                os.ftruncate(descriptor, changes.size)
            if changes.uid is not None or changes.gid is not None:
                os.fchown(descriptor, _or_same(changes.uid), _or_same(changes.gid))
            if changes.mode is not None:
                os.fchmod(descriptor, changes.mode & 0o7777)
            if changes.atime_ns is not None or changes.mtime_ns is not None:
                status = os.fstat(descriptor)
                atime_ns = status.st_atime_ns if changes.atime_ns is None else changes.atime_ns
                mtime_ns = status.st_mtime_ns if changes.mtime_ns is None else changes.mtime_ns
                os.utime(descriptor, ns=(atime_ns, mtime_ns))

    async def open(self, flags: int, caller: Caller) -> Handle:
        descriptor = await trio.to_thread.run_sync(self.drafts.store.open, *self._place, flags)
        return DraftHandle(descriptor, self.key, self.drafts)

    async def list_xattrs(self, caller: Caller) -> Iterable[str]:
        with self._descriptor(os.O_RDONLY) as descriptor:
            return [name for name in os.listxattr(descriptor) if name.startswith("user.")]

    async def get_xattr(self, name: str, caller: Caller) -> bytes | None:
        _check_namespace(name)
        with self._descriptor(os.O_RDONLY) as descriptor:
            return os.getxattr(descriptor, name) if name in os.listxattr(descriptor) else None

    async def set_xattr(self, name: str, value: bytes, caller: Caller) -> None:
        """A message or base set here goes along when the draft is renamed onto a document."""
        _check_namespace(name)
        if name.startswith(PREFIX):
            with_xattr(NO_NOTE, name, value, self.drafts.head())
        await trio.to_thread.run_sync(self._set_xattr, name, value)

    def _set_xattr(self, name: str, value: bytes) -> None:
        with self._descriptor(os.O_RDONLY) as descriptor:
            if value:
                os.setxattr(descriptor, name, value)
            elif name in os.listxattr(descriptor):
                os.removexattr(descriptor, name)

    @contextlib.contextmanager
    def _descriptor(self, flags: int) -> Iterator[int]:
        """A descriptor of the file, or one of those it is open by if its name is gone."""
        try:
            descriptor = self.drafts.store.open(*self._place, flags)
        except FileNotFoundError:
            handle = self.drafts.open_file(self.key)
            if handle is None:
                raise
            descriptor = os.dup(handle.descriptor)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@dataclass(slots=True, eq=False)
class DraftHandle(Handle):
    """An open draft: a descriptor of its own, with the flags of its own open."""

    descriptor: int
    key: NodeKey
    drafts: Drafts

    def __post_init__(self) -> None:
        self.drafts.opened(self)

    async def read(self, offset: int, size: int) -> bytes:
        return await trio.to_thread.run_sync(os.pread, self.descriptor, size, offset)

    async def write(self, offset: int, data: bytes, caller: Caller) -> int:
        # with O_APPEND the kernel appends, whatever the offset: pwrite(2), BUGS
        return await trio.to_thread.run_sync(os.pwrite, self.descriptor, data, offset)

    async def truncate(self, size: int, caller: Caller) -> None:
        await trio.to_thread.run_sync(os.ftruncate, self.descriptor, size)

    async def fsync(self, caller: Caller) -> None:
        await trio.to_thread.run_sync(os.fsync, self.descriptor)

    async def release(self) -> None:
        self.drafts.closed(self)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(os.close, self.descriptor)


def _or_same(id: int | None) -> int:
    """For fchown(2), which reads -1 as "leave it"."""
    return -1 if id is None else id


def _check_namespace(name: str) -> None:
    if not name.startswith("user."):
        raise Rejected(f"drafts carry no attribute {name}", hint="only those of the user namespace")
