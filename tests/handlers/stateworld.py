"""/state without a mount: the real commit path on a store and plugins in memory, and processes that use it.

`Process` makes of system calls what the kernel makes of them: a path walk is lookups, `open` with O_CREAT is a
create where the lookup found nothing, each closed descriptor is a flush and the last one a release.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from opfs.commit.chain import load_chain
from opfs.commit.confirmations import Confirmations
from opfs.commit.failsafe import FailSafe
from opfs.commit.journal import Journal
from opfs.commit.logbook import Logbook
from opfs.commit.refusals import Refusals
from opfs.commit.sequencer import Sequencer
from opfs.commit.tips import Tips
from opfs.commit.verify import check_chain
from opfs.core.actor import Actor
from opfs.core.event import decode_events
from opfs.core.names import ElementId
from opfs.errors import NotFound
from opfs.testing.log import MemoryLog
from opfs.testing.memoryhost import MemoryPlugin
from opfs.testing.store import MemorySnapshotStore
from opfs.vfs.draft_store import DraftStore
from opfs.vfs.node import AttributeChanges, Caller, Directory, File, Handle
from opfs.vfs.state import StateDirectory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FIRST_PID = 5_000_000
"""Beyond the kernel's largest pid, so that /proc knows none of them: each is a process of one thread."""

PATH = "memory/100.json"
RED, BLUE = b'{"colour": "red"}\n', b'{"colour": "blue"}\n'
"""A document of the plugin in memory, and what tests write there."""

_pids = itertools.count(FIRST_PID)


class SteppingClock:
    def __init__(self) -> None:
        self.now = 1_800_000_000_000_000_000

    def now_ns(self) -> int:
        self.now += 1_000_000
        return self.now


class World:
    """A pool with the plugins `memory` and `other`, and /state over it."""

    def __init__(self, sequencer: Sequencer, store: MemorySnapshotStore, drafts: Path, clock: SteppingClock) -> None:
        self.sequencer = sequencer
        self.store = store
        self.drafts_path = drafts
        self.draft_store = DraftStore(drafts)
        self.refusals = Refusals(drafts.parent / "refused", clock)
        self.state = StateDirectory(sequencer, self.refusals, self.draft_store, identify, clock)
        self.host = sequencer.plugins["memory"].host

    def blocks(self) -> int:
        """Blocks after genesis."""
        return self.sequencer.catalog.head.height

    def events(self) -> list[Any]:
        return [event for name in self.store.list_blocks() for event in decode_events(self.store.read_events(name))]

    def entry(self, path: str) -> Any:
        return self.sequencer.catalog.get(ElementId.parse(path))

    async def content(self, path: str) -> bytes:
        return await self.sequencer.read_document(ElementId.parse(path))

    def errors(self) -> list[str]:
        return [errno.errorcode[refusal.errno] for refusal in self.refusals.recent(None)]

    def refused(self, path: str) -> bytes:
        """The refused document that is kept; raises NotFound."""
        return self.refusals.read(ElementId.parse(path))

    def draft_names(self, plugin: str = "memory") -> list[str]:
        return sorted(self.draft_store.names(plugin))


def identify(caller: Caller) -> Actor:
    return Actor(uid=caller.uid, user={0: "root", 1000: "alice", 1001: "bob"}[caller.uid], pid=caller.pid)


@asynccontextmanager
async def a_world(directory: Path) -> AsyncIterator[World]:
    """Started like the daemon starts it; at the end the chain is checked from its bytes."""
    store, clock = MemorySnapshotStore(), SteppingClock()
    tips, journal = Tips(directory / "tips"), Journal(directory / "journal")
    other = MemoryPlugin()
    other.name = "other"
    try:
        chain = load_chain(store, tips, "test.example/opfs", clock.now_ns())
        plugins = {"memory": MemoryPlugin(), "other": other}
        logbook = Logbook(MemoryLog(), store)
        sequencer = Sequencer(chain, store, logbook, journal, plugins, Confirmations(clock), FailSafe(), clock)
        async with trio.open_nursery() as nursery:
            await nursery.start(sequencer.run)
            world = World(sequencer, store, directory / "drafts" / "state", clock)
            yield world
            world.draft_store.close()
            nursery.cancel_scope.cancel()
    finally:
        journal.close()
        tips.close()
    assert [str(finding) for finding in check_chain(store)] == []


@dataclass
class _Open:
    handle: Handle
    node: File
    flags: int
    offset: int = 0
    descriptors: int = 1


@dataclass
class Process:
    """A process: paths are `memory/100.json`; descriptors are small numbers."""

    world: World
    uid: int = 0
    pid: int = field(default_factory=lambda: next(_pids))
    _table: dict[int, _Open] = field(default_factory=dict)
    _numbers: Any = field(default_factory=lambda: itertools.count(3))

    @property
    def caller(self) -> Caller:
        return Caller(self.uid, self.uid, self.pid)

    async def directory(self, path: str) -> tuple[Directory, str]:
        plugin, _, name = path.partition("/")
        return await self.world.state.lookup(plugin, self.caller), name

    async def node(self, path: str) -> File:
        directory, name = await self.directory(path)
        return await directory.lookup(name, self.caller)

    async def exists(self, path: str) -> bool:
        try:
            await self.node(path)
        except NotFound:
            return False
        return True

    async def ls(self, plugin: str = "memory") -> list[str]:
        directory = await self.world.state.lookup(plugin, self.caller)
        return sorted(name for name, _ in await directory.entries(self.caller))

    # --- descriptors -------------------------------------------------------------------------------------

    async def open(self, path: str, flags: int, mode: int = 0o644) -> int:
        directory, name = await self.directory(path)
        try:
            node = await directory.lookup(name, self.caller)
        except NotFound:
            if not flags & os.O_CREAT:
                raise
            node, handle = await directory.create(name, mode, flags & ~os.O_CREAT | os.O_CREAT, self.caller)
        else:
            if flags & os.O_CREAT and flags & os.O_EXCL:
                raise FileExistsError(path)
            handle = await node.open(flags & ~(os.O_CREAT | os.O_EXCL), self.caller)
        fd = next(self._numbers)
        self._table[fd] = _Open(handle, node, flags)
        return fd

    def dup(self, fd: int) -> int:
        new = next(self._numbers)
        self._table[new] = self._table[fd]
        self._table[fd].descriptors += 1
        return new

    async def write(self, fd: int, data: bytes) -> int:
        file = self._table[fd]
        if file.flags & os.O_APPEND:
            file.offset = (await file.node.attributes(self.caller)).size
        count = await file.handle.write(file.offset, data, self.caller)
        file.offset += count
        return count

    async def read(self, fd: int, size: int = 1 << 20) -> bytes:
        file = self._table[fd]
        data = await file.handle.read(file.offset, size)
        file.offset += len(data)
        return data

    def seek(self, fd: int, offset: int) -> None:
        self._table[fd].offset = offset

    async def ftruncate(self, fd: int, size: int) -> None:
        await self._table[fd].handle.truncate(size, self.caller)

    async def fsync(self, fd: int) -> None:
        await self._table[fd].handle.fsync(self.caller)

    async def close(self, fd: int) -> None:
        """close(2): the flush may fail, the descriptor is gone all the same."""
        file = self._table.pop(fd)
        file.descriptors -= 1
        try:
            await file.handle.flush(self.caller)
        finally:
            if not file.descriptors:
                await file.handle.release()

    async def fset(self, fd: int, **changes: int) -> None:
        """fchmod, fchown, futimens: the kernel passes no file handle for these."""
        await self._table[fd].node.set_attributes(AttributeChanges(**changes), None, self.caller)

    async def fstat(self, fd: int) -> Any:
        return await self._table[fd].node.attributes(self.caller)

    # --- paths -------------------------------------------------------------------------------------------

    async def stat(self, path: str) -> Any:
        return await (await self.node(path)).attributes(self.caller)

    async def set(self, path: str, **changes: int) -> None:
        await (await self.node(path)).set_attributes(AttributeChanges(**changes), None, self.caller)

    async def unlink(self, path: str) -> None:
        directory, name = await self.directory(path)
        await directory.lookup(name, self.caller)
        await directory.unlink(name, self.caller)

    async def rename(self, source: str, target: str, flags: int = 0) -> None:
        old, old_name = await self.directory(source)
        new, new_name = await self.directory(target)
        await old.lookup(old_name, self.caller)
        await old.rename(old_name, new, new_name, flags, self.caller)

    async def setxattr(self, path: str, name: str, value: bytes) -> None:
        await (await self.node(path)).set_xattr(name, value, self.caller)

    async def getxattr(self, path: str, name: str) -> bytes | None:
        return await (await self.node(path)).get_xattr(name, self.caller)

    # --- what shells and tools do ------------------------------------------------------------------------

    async def redirect(self, path: str, *writes: bytes, flags: int = os.O_TRUNC, mode: int = 0o644) -> None:
        """`… > path`: open, write, close; an error of a write leaves nothing unclosed."""
        fd = await self.open(path, os.O_WRONLY | os.O_CREAT | flags, mode)
        try:
            for data in writes:
                await self.write(fd, data)
        except BaseException:
            await self.close(fd)
            raise
        await self.close(fd)

    async def cat(self, path: str) -> bytes:
        fd = await self.open(path, os.O_RDONLY)
        data = b""
        while chunk := await self.read(fd, 4096):
            data += chunk
        await self.close(fd)
        return data

    async def permissions(self, path: str) -> int:
        return stat.S_IMODE((await self.stat(path)).mode)
