"""/chain: HEAD and one directory per block, which is the block's snapshot as it lies on disk.

A block never changes, so the kernel may keep what it once saw for ever; which blocks there are is asked every
time. Nothing is written.

Trio thread; what may wait for a disk does so in a worker thread: looking up and listing always, reading where
the page cache has no answer (RWF_NOWAIT, preadv2(2)). Opening does not: the look-up that came before left the
file's inode in memory. A hop to a thread costs a hundred times what a cached read does.
"""

from __future__ import annotations

import os
import stat
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from opfs.core.names import BlockName
from opfs.errors import InvalidRequest, NotFound, ReadOnly
from opfs.vfs.generated import ReadOnlyDirectory, is_writing
from opfs.vfs.node import FOREVER, Attributes, CachePolicy, File, Handle, Symlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from opfs.vfs.node import Caller, Node, NodeKey

HEAD = "HEAD"
HEADER = "block.json"

TIMES_BUDGET_S = 0.2
"""How long one listing may ask the disk when blocks were made; from memory it takes 10 µs a block."""

UNTIL_KNOWN = CachePolicy(entry_timeout_s=FOREVER.entry_timeout_s)
"""The kernel may keep the name, but asks for the attributes again."""


@dataclass(slots=True)
class ChainDirectory(ReadOnlyDirectory):
    """All blocks, lowest first: `blocks` gives them in that order, `block_path` where a block lies.

    When a block was made is asked of the disk once and remembered. A listing asks for at most `TIMES_BUDGET_S`,
    newest first: a chain of thousands on a cold disk lists at once, and shows the other times the next time.
    """

    blocks: Callable[[], Sequence[BlockName]]
    block_path: Callable[[BlockName], Path]
    _times_ns: dict[BlockName, int] = field(default_factory=dict, init=False)

    async def lookup(self, name: str, caller: Caller) -> Node:
        blocks = self.blocks()
        if name == HEAD and blocks:
            await self._learn_times(blocks[-1:])
            return self._head(blocks[-1])
        try:
            block = BlockName.parse(name)
        except InvalidRequest:
            block = None
        position = bisect_left(blocks, block) if block is not None else len(blocks)
        if block is None or position == len(blocks) or blocks[position] != block:
            raise NotFound(f"there is no block {name}", hint="ls /chain lists the blocks; HEAD is the newest")
        await self._learn_times([block])
        return self._block(block)

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        blocks = list(self.blocks())
        await self._learn_times(blocks)
        listing: list[tuple[str, Node]] = [(HEAD, self._head(blocks[-1]))] if blocks else []
        listing += [(str(block), self._block(block)) for block in blocks]
        return listing

    def _head(self, block: BlockName) -> Symlink:
        return Symlink((*self.key, HEAD), str(block), time_ns=self._times_ns.get(block, 0))

    def _block(self, block: BlockName) -> StoredDirectory:
        time_ns = self._times_ns.get(block)
        policy = FOREVER if time_ns is not None else UNTIL_KNOWN
        time_ns = time_ns or 0
        shown = Attributes(mode=stat.S_IFDIR | 0o555, atime_ns=time_ns, mtime_ns=time_ns, ctime_ns=time_ns)
        return StoredDirectory((*self.key, str(block)), self.block_path(block), shown, policy)

    async def _learn_times(self, blocks: Sequence[BlockName]) -> None:
        unknown = [block for block in reversed(blocks) if block not in self._times_ns]
        if unknown:
            paths = [self.block_path(block) / HEADER for block in unknown]
            self._times_ns.update(zip(unknown, await trio.to_thread.run_sync(_modification_times, paths), strict=False))


@dataclass(slots=True)
class StoredDirectory(ReadOnlyDirectory):
    """A directory of a block. Only directories and regular files show: a block holds nothing else."""

    path: Path
    stored: Attributes
    policy: CachePolicy = FOREVER

    @property
    def cache(self) -> CachePolicy:
        return self.policy

    async def attributes(self, caller: Caller) -> Attributes:
        return self.stored

    async def lookup(self, name: str, caller: Caller) -> Node:
        path = self.path / name
        try:
            found = await trio.to_thread.run_sync(os.lstat, path)
        except FileNotFoundError:
            raise NotFound(f"/{'/'.join((*self.key, name))} does not exist") from None
        node = _stored_node((*self.key, name), path, found)
        if node is None:
            raise NotFound(f"/{'/'.join((*self.key, name))} is neither a file nor a directory")
        return node

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        return await trio.to_thread.run_sync(self._scan)

    def _scan(self) -> list[tuple[str, Node]]:
        listing = []
        with os.scandir(self.path) as found:
            for entry in found:
                node = _stored_node((*self.key, entry.name), self.path / entry.name, entry.stat(follow_symlinks=False))
                if node is not None:
                    listing.append((entry.name, node))
        return sorted(listing, key=lambda item: item[0])


@dataclass(slots=True)
class StoredFile(File):
    """A file of a block, with the owner and mode it was committed with."""

    path: Path
    stored: Attributes

    @property
    def cache(self) -> CachePolicy:
        return FOREVER

    async def attributes(self, caller: Caller) -> Attributes:
        return self.stored

    async def open(self, flags: int, caller: Caller) -> Handle:
        if is_writing(flags):
            raise ReadOnly("a block never changes", hint="write the document below /state")
        return _StoredHandle(self.path, self.stored.size)


@dataclass(slots=True, eq=False)
class _StoredHandle(Handle):
    """Opens its file at the first read: the kernel often has all pages and reads nothing."""

    path: Path
    size: int
    descriptor: int | None = None

    async def read(self, offset: int, size: int) -> bytes:
        if self.descriptor is None:
            self.descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        wanted = max(0, min(size, self.size - offset))
        buffer = bytearray(wanted)
        try:
            count = os.preadv(self.descriptor, [buffer], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            count = 0
        if count == wanted:
            return bytes(buffer)
        return await trio.to_thread.run_sync(os.pread, self.descriptor, wanted, offset)

    async def release(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)


def _modification_times(paths: Sequence[Path]) -> list[int]:
    """Of as many of the files, from the first on, as there is time for; 0 for one that is not there."""
    times: list[int] = []
    deadline = time.monotonic() + TIMES_BUDGET_S
    for path in paths:
        if times and time.monotonic() > deadline:
            break
        try:
            times.append(os.lstat(path).st_mtime_ns)
        except OSError:
            times.append(0)
    return times


def _stored_node(key: NodeKey, path: Path, found: os.stat_result) -> StoredDirectory | StoredFile | None:
    attributes = Attributes(
        mode=found.st_mode,
        size=found.st_size,
        uid=found.st_uid,
        gid=found.st_gid,
        nlink=1,
        atime_ns=found.st_mtime_ns,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
    )
    if stat.S_ISDIR(found.st_mode):
        return StoredDirectory(key, path, attributes)
    if stat.S_ISREG(found.st_mode):
        return StoredFile(key, path, attributes)
    return None
