"""/chain: HEAD and one directory per block, which is the block's snapshot as it lies on disk.

A block never changes, so the kernel may keep what it once saw for ever; which blocks there are is asked every
time. Nothing is written.

A file is read whole and checked before any of its bytes is handed out, and the bytes handed out are those that
were checked. The kernel keeps them, so reading again costs nothing; what it has dropped is read and checked
again. A name that is not there is checked too: a document that was removed from a block does not just not exist.
Owner, mode and times are not what a block commits to, and are not checked.

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
from typing import TYPE_CHECKING, Protocol

import trio

from opfs.commit.content import ContentCache
from opfs.core.names import BlockName
from opfs.errors import InvalidRequest, NotFound, OpfsError, ReadOnly
from opfs.vfs.archived import ArchivedBlock, PrunedBlocks, archived_directory, read_pruned
from opfs.vfs.generated import ReadOnlyDirectory, is_writing
from opfs.vfs.node import FOREVER, Attributes, CachePolicy, File, Handle, Symlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from opfs.vfs.node import Caller, Directory, Node, NodeKey

    BlockFiles = Callable[[NodeKey, BlockName, int], Mapping[str, Node]]
    """Files of a block that are not in its snapshot, by name; given the key and the time of the block's directory."""

HEAD = "HEAD"
HEADER = "block.json"

_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: a fifo would hang the open

VERIFIED_LIMIT_BYTES = 32 << 20
"""Of files that the kernel is in the middle of reading: they are kept between its requests for their pieces."""

THREAD_ABOVE_BYTES = 1 << 18
"""Checking so much takes longer than handing it to a thread."""

TIMES_BUDGET_S = 0.2
"""How long one listing may ask the disk when blocks were made; from memory it takes 10 µs a block."""

UNTIL_KNOWN = CachePolicy(entry_timeout_s=FOREVER.entry_timeout_s)
"""The kernel may keep the name, but asks for the attributes again."""


class BlockVerifier(Protocol):
    """Knows what every file of every block must be; paths are below the block."""

    def is_known(self, block: BlockName, path: str) -> bool:
        """Whether `check` of the file answers from memory."""
        ...

    def check(self, block: BlockName, path: str, content: bytes) -> None:
        """Raise IntegrityError unless the file consists of these bytes; blocks, if not known."""
        ...

    def check_absent(self, block: BlockName, path: str) -> None:
        """Raise IntegrityError if the block has the file; blocks."""
        ...


@dataclass(slots=True)
class _Reader:
    """Hands out verified files; keeps those that are being read.

    The kernel may know a file or directory since before its snapshot was pruned: then the archive has it.
    """

    verifier: BlockVerifier
    pruned: PrunedBlocks
    verified: ContentCache = field(default_factory=lambda: ContentCache(VERIFIED_LIMIT_BYTES))
    thread: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(2))

    async def read(self, place: _Place, size: int, offset: int, count: int) -> bytes:
        """A piece of a file of that size; raises IntegrityError or OSError."""
        key = f"{place.block}/{place.name}".encode()
        content = self.verified.get(key)
        if content is None:
            content = await self._load(place.block, place.name, place.path, size)
            self.verified.put(key, content)
        if offset + count >= len(content):
            self.verified.discard(key)  # the kernel has it all, and keeps it as long as it likes
        return content[offset : offset + count]

    async def _load(self, block: BlockName, path: str, file: Path, size: int) -> bytes:
        """The whole file, checked."""
        try:
            content = _read_now(file, size)
            if content is None:
                content = await trio.to_thread.run_sync(_read_whole, file)
        except FileNotFoundError:  # gone since it was looked up
            if not self.pruned.is_pruned(block):
                await self.check_absent(block, path)
                raise
            content = await trio.to_thread.run_sync(read_pruned, self.pruned, block, path)
        if len(content) <= THREAD_ABOVE_BYTES and self.verifier.is_known(block, path):
            self.verifier.check(block, path, content)
        else:
            await trio.to_thread.run_sync(self.verifier.check, block, path, content, limiter=self.thread)
        return content

    async def check_absent(self, block: BlockName, path: str) -> None:
        await trio.to_thread.run_sync(self.verifier.check_absent, block, path, limiter=self.thread)


@dataclass(slots=True)
class ChainDirectory(ReadOnlyDirectory):
    """All blocks, lowest first: `blocks` gives them in that order, `block_path` where a block lies.

    `beside` stands beside the blocks and `beside_block` in each of them, though no snapshot has it.

    When a block was made is asked of the disk once and remembered. A listing asks for at most `TIMES_BUDGET_S`,
    newest first: a chain of thousands on a cold disk lists at once, and shows the other times the next time.
    """

    blocks: Callable[[], Sequence[BlockName]]
    block_path: Callable[[BlockName], Path]
    verifier: BlockVerifier
    pruned: PrunedBlocks
    beside: Mapping[str, Node] = field(default_factory=dict)
    beside_block: BlockFiles = lambda key, block, time_ns: {}
    _reader: _Reader = field(init=False)
    _times_ns: dict[BlockName, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._reader = _Reader(self.verifier, self.pruned)

    async def lookup(self, name: str, caller: Caller) -> Node:
        if name in self.beside:
            return self.beside[name]
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
        return [*listing, *self.beside.items()]

    def forget(self) -> None:
        """Drop the bytes that are being read, because some of them are no more."""
        self._reader.verified = ContentCache(VERIFIED_LIMIT_BYTES)

    def _head(self, block: BlockName) -> Symlink:
        return Symlink((*self.key, HEAD), str(block), time_ns=self._times_ns.get(block, 0))

    def _block(self, block: BlockName) -> StoredDirectory | ArchivedBlock:
        time_ns = self._times_ns.get(block)
        if self.pruned.is_pruned(block):
            key = (*self.key, str(block))
            beside = self.beside_block(key, block, time_ns or 0)
            return ArchivedBlock(key, block, self.pruned, beside, time_ns=time_ns or 0)
        policy = FOREVER if time_ns is not None else UNTIL_KNOWN
        time_ns = time_ns or 0
        shown = Attributes(mode=stat.S_IFDIR | 0o555, atime_ns=time_ns, mtime_ns=time_ns, ctime_ns=time_ns)
        place = _Place(self._reader, block, "", self.block_path(block))
        key = (*self.key, str(block))
        return StoredDirectory(key, place, shown, policy, self.beside_block(key, block, time_ns))

    async def _learn_times(self, blocks: Sequence[BlockName]) -> None:
        unknown = [block for block in reversed(blocks) if block not in self._times_ns]
        if unknown:
            self._times_ns.update(await trio.to_thread.run_sync(self._times_of, unknown))

    def _times_of(self, blocks: Sequence[BlockName]) -> dict[BlockName, int]:
        """Of as many of the blocks, from the first on, as there is time for; 0 for one that is not there."""
        times: dict[BlockName, int] = {}
        deadline = time.monotonic() + TIMES_BUDGET_S
        for block in blocks:
            if times and time.monotonic() > deadline:
                break
            try:
                if self.pruned.is_pruned(block):
                    times[block] = self.pruned.time_ns(block)
                else:
                    times[block] = os.lstat(self.block_path(block) / HEADER).st_mtime_ns
            except (OSError, OpfsError):
                times[block] = 0
        return times


@dataclass(frozen=True, slots=True)
class _Place:
    """A file or directory of a block: `name` is its path below the block, `path` where it lies on disk."""

    reader: _Reader
    block: BlockName
    name: str
    path: Path

    def below(self, name: str) -> _Place:
        return _Place(self.reader, self.block, f"{self.name}/{name}" if self.name else name, self.path / name)


@dataclass(slots=True)
class StoredDirectory(ReadOnlyDirectory):
    """A directory of a block. Only directories and regular files show: a block holds nothing else."""

    place: _Place
    stored: Attributes
    policy: CachePolicy = FOREVER
    beside: Mapping[str, Node] = field(default_factory=dict)

    @property
    def cache(self) -> CachePolicy:
        return self.policy

    async def attributes(self, caller: Caller) -> Attributes:
        return self.stored

    async def lookup(self, name: str, caller: Caller) -> Node:
        if name in self.beside:
            return self.beside[name]
        place = self.place.below(name)
        try:
            found = await trio.to_thread.run_sync(os.lstat, place.path)
        except FileNotFoundError:
            found = None
        if found is None and (archived := self._archived()) is not None:
            return await archived.lookup(name, caller)
        node = _stored_node((*self.key, name), place, found) if found else None
        if node is None:
            await place.reader.check_absent(place.block, place.name)
            what = "is neither a file nor a directory" if found else "does not exist"
            raise NotFound(f"/{'/'.join((*self.key, name))} {what}")
        return node

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        try:
            return await trio.to_thread.run_sync(self._scan)
        except FileNotFoundError:
            archived = self._archived()
            if archived is None:
                raise
            return await archived.entries(caller)

    def _archived(self) -> Directory | None:
        """This directory as the archive has it, where the snapshot was pruned since the kernel learned of it."""
        pruned = self.place.reader.pruned
        if not pruned.is_pruned(self.place.block):
            return None
        return archived_directory(self.key, self.place.block, self.place.name, pruned, self.beside, self.time_ns)

    def _scan(self) -> list[tuple[str, Node]]:
        listing: list[tuple[str, Node]] = list(self.beside.items())
        with os.scandir(self.place.path) as found:
            for entry in found:
                place = self.place.below(entry.name)
                node = _stored_node((*self.key, entry.name), place, entry.stat(follow_symlinks=False))
                if node is not None:
                    listing.append((entry.name, node))
        return sorted(listing, key=lambda item: item[0])


@dataclass(slots=True)
class StoredFile(File):
    """A file of a block, with the owner and mode it was committed with."""

    place: _Place
    stored: Attributes

    @property
    def cache(self) -> CachePolicy:
        return FOREVER

    async def attributes(self, caller: Caller) -> Attributes:
        return self.stored

    async def open(self, flags: int, caller: Caller) -> Handle:
        if is_writing(flags):
            raise ReadOnly("a block never changes", hint="write the document below /state")
        if not self.stored.size:
            # the kernel asks for no byte of an empty file, so this is the time to see whether it may be empty
            await self.place.reader.read(self.place, 0, 0, 0)
        return _StoredHandle(self.place, self.stored.size)


@dataclass(slots=True, eq=False)
class _StoredHandle(Handle):
    """Touches its file at the first read: the kernel often has all pages and reads nothing."""

    place: _Place
    size: int

    async def read(self, offset: int, size: int) -> bytes:
        return await self.place.reader.read(self.place, self.size, offset, size)


def _read_now(path: Path, size: int) -> bytes | None:
    """The whole file, as far as memory has it; None where the disk has to be waited for, or the size is another."""
    descriptor = os.open(path, _OPEN_FILE)
    try:
        buffer = bytearray(size + 1)
        count = os.preadv(descriptor, [buffer], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return None
    finally:
        os.close(descriptor)
    return bytes(buffer[:count]) if count == size else None


def _read_whole(path: Path) -> bytes:
    with os.fdopen(os.open(path, _OPEN_FILE), "rb") as file:
        return file.read()


def _stored_node(key: NodeKey, place: _Place, found: os.stat_result) -> StoredDirectory | StoredFile | None:
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
        return StoredDirectory(key, place, attributes)
    if stat.S_ISREG(found.st_mode):
        return StoredFile(key, place, attributes)
    return None
