"""Drafts in the tree: files of a plugin's directory that are no documents, passed through to the disk.

A draft is never applied and never in a block; editors' temporary files, backups and the targets of `rsync` are
drafts. Renames between drafts and documents are in opfs.vfs.renames.

Concurrency: what changes the disk, and what moves file bytes, runs in worker threads: a change joins a
transaction of the pool's file system, which may first wait for the snapshot of a block. Looking (stat, names,
attributes) is answered from memory nearly always, and costs less than the way to a thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import trio

from opfs.errors import Rejected
from opfs.vfs.node import Attributes, File, Handle
from opfs.vfs.notes import NO_NOTE, PREFIX, with_xattr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from opfs.core.names import BlockName
    from opfs.ports import FileAttributes
    from opfs.vfs.draft_store import DraftStore
    from opfs.vfs.node import AttributeChanges, Caller, NodeKey

RENAME_EXCHANGE = 2
_NAME_BYTES = 4096
"""What a new name is taken to cost: btrfs tells nobody."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class Draft:
    """One file on the disk, equal only to itself: renames change its `key`, without a name it is None."""

    key: NodeKey | None
    handles: list[DraftHandle] = field(default_factory=list)


@dataclass(slots=True)
class Drafts:
    """The drafts of all plugins, and which of them are known: an open file outlives its name.

    A name that is given to another file does not give that file to whoever has the old one open, so what nodes
    and handles hold on to is the `Draft`.
    """

    store: DraftStore
    head: Callable[[], BlockName]
    require_room: Callable[[int], Awaitable[None]]
    """Raises NoSpace where so many bytes more are too many for the pool."""
    _named: WeakValueDictionary[NodeKey, Draft] = field(default_factory=WeakValueDictionary)

    def file(self, plugin: str, name: str) -> DraftFile:
        key = ("state", plugin, name)
        draft = self._named.get(key)
        if draft is None:
            draft = self._named[key] = Draft(key)
        return DraftFile(key, self, draft)

    async def create(
        self, plugin: str, name: str, mode: int, flags: int, caller: Caller
    ) -> tuple[DraftFile, DraftHandle]:
        await self.require_room(_NAME_BYTES)
        owner = (caller.uid, caller.gid)
        descriptor = await trio.to_thread.run_sync(self.store.create, plugin, name, flags, mode, owner)
        file = self.file(plugin, name)
        return file, DraftHandle(descriptor, file.draft, self)

    async def unlink(self, plugin: str, name: str) -> None:
        await trio.to_thread.run_sync(self.store.unlink, plugin, name)
        self._forget(("state", plugin, name))

    async def rename(self, plugin: str, name: str, target_plugin: str, target_name: str, flags: int) -> None:
        await trio.to_thread.run_sync(self.store.rename, plugin, name, target_plugin, target_name, flags)
        source, target = ("state", plugin, name), ("state", target_plugin, target_name)
        if source == target:
            return
        moved, met = self._named.pop(source, None), self._named.pop(target, None)
        self._name(moved, target)
        self._name(met, source if flags & RENAME_EXCHANGE else None)

    async def put(self, key: NodeKey, content: bytes, attributes: FileAttributes, flags: int) -> None:
        """Make a draft of `content`, in one step, over what has that name unless RENAME_NOREPLACE is given."""
        await trio.to_thread.run_sync(self.store.put, key[1], key[2], content, attributes, flags)
        self._forget(key)

    def _forget(self, key: NodeKey) -> None:
        self._name(self._named.pop(key, None), None)

    def _name(self, draft: Draft | None, key: NodeKey | None) -> None:
        if draft is not None:
            draft.key = key
            if key is not None:
                self._named[key] = draft


@dataclass(slots=True)
class DraftFile(File):
    """A draft by its name, or by what is open of it when that is gone."""

    drafts: Drafts
    draft: Draft

    async def attributes(self, caller: Caller) -> Attributes:
        status = self._status()
        return Attributes(
            mode=status.st_mode,
            size=status.st_size,
            uid=status.st_uid,
            gid=status.st_gid,
            nlink=status.st_nlink,
            atime_ns=status.st_atime_ns,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            blocks=status.st_blocks,
        )

    def _status(self) -> os.stat_result:
        key = self.draft.key
        if key is not None:
            with contextlib.suppress(FileNotFoundError):
                return self.drafts.store.stat(key[1], key[2])
        return os.fstat(self._open_descriptor())

    def _open_descriptor(self) -> int:
        if not self.draft.handles:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.key[-1])
        return self.draft.handles[-1].descriptor

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
        return DraftHandle(await trio.to_thread.run_sync(self._opened, flags), self.draft, self.drafts)

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

    async def remove_xattr(self, name: str, caller: Caller) -> None:
        await trio.to_thread.run_sync(self._set_xattr, name, None)

    def _set_xattr(self, name: str, value: bytes | None) -> None:
        is_removal = value is None or (not value and name.startswith(PREFIX))
        with self._descriptor(os.O_RDONLY) as descriptor:
            if not is_removal:
                os.setxattr(descriptor, name, value or b"")
            elif name in os.listxattr(descriptor):
                os.removexattr(descriptor, name)

    @contextlib.contextmanager
    def _descriptor(self, flags: int) -> Iterator[int]:
        descriptor = self._opened(flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _opened(self, flags: int) -> int:
        """A new descriptor of the file."""
        key = self.draft.key
        if key is not None:
            with contextlib.suppress(FileNotFoundError):
                return self.drafts.store.open(key[1], key[2], flags)
        return self.drafts.store.reopen(self._open_descriptor(), flags)


@dataclass(slots=True, eq=False)
class DraftHandle(Handle):
    """An open draft: a descriptor of its own, with the flags of its own open."""

    descriptor: int
    draft: Draft
    drafts: Drafts

    def __post_init__(self) -> None:
        self.draft.handles.append(self)

    async def read(self, offset: int, size: int) -> bytes:
        return await trio.to_thread.run_sync(os.pread, self.descriptor, size, offset)

    async def write(self, offset: int, data: bytes, caller: Caller) -> int:
        await self.drafts.require_room(len(data))
        return await trio.to_thread.run_sync(os.pwrite, self.descriptor, data, offset)

    async def truncate(self, size: int, caller: Caller) -> None:
        await trio.to_thread.run_sync(os.ftruncate, self.descriptor, size)

    async def fsync(self, caller: Caller) -> None:
        await trio.to_thread.run_sync(os.fsync, self.descriptor)

    async def release(self) -> None:
        self.draft.handles.remove(self)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(os.close, self.descriptor)


def _or_same(id: int | None) -> int:
    """For fchown(2), which reads -1 as "leave it"."""
    return -1 if id is None else id


def _check_namespace(name: str) -> None:
    if not name.startswith("user."):
        raise Rejected(f"drafts carry no attribute {name}", hint="only those of the user namespace")
