"""A block in /chain whose snapshot was pruned: the same directories and files, out of the archive.

What was in it follows from the history; header, events and documents come from whatever keeps them, and are
checked before a byte is handed out, as those of a snapshot are. Owners and modes are those the documents had when they
were written. Trio thread; everything that reads does so in a worker thread.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from opfs.core.names import ElementId, element_of_file, is_draft
from opfs.errors import InvalidRequest, NotFound, ReadOnly
from opfs.vfs.generated import ContentHandle, ReadOnlyDirectory, is_writing
from opfs.vfs.node import FOREVER, Attributes, CachePolicy, File

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from opfs.core.names import BlockName
    from opfs.ports import RecordedEvent
    from opfs.vfs.node import Caller, Handle, Node, NodeKey

HEADER, EVENTS, STATE = "block.json", "events.jsonl", "state"


class PrunedBlocks(Protocol):
    """What is known of blocks without a snapshot; every method but `is_pruned` blocks, and raises OpfsError."""

    def is_pruned(self, name: BlockName) -> bool: ...

    def time_ns(self, name: BlockName) -> int: ...

    def documents(self, name: BlockName, plugin: str) -> Sequence[RecordedEvent]:
        """The versions of a plugin's elements that held in the block, by element."""
        ...

    def version(self, name: BlockName, id: ElementId) -> RecordedEvent | None:
        """The version of one element that held in the block, None where it had no document."""
        ...

    def plugins(self, name: BlockName) -> Sequence[str]: ...

    def read_header(self, name: BlockName) -> bytes: ...

    def read_events(self, name: BlockName) -> bytes: ...

    def read_document(self, name: BlockName, id: ElementId) -> bytes: ...


@dataclass(slots=True)
class ArchivedBlock(ReadOnlyDirectory):
    """The block's directory; `beside` are files that no snapshot has either."""

    block: BlockName
    pruned: PrunedBlocks
    beside: Mapping[str, Node]

    async def lookup(self, name: str, caller: Caller) -> Node:
        found = dict(await self.entries(caller))
        if name not in found:
            raise NotFound(f"/{'/'.join((*self.key, name))} does not exist")
        return found[name]

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        header = await trio.to_thread.run_sync(self.pruned.read_header, self.block)
        events = await trio.to_thread.run_sync(self.pruned.read_events, self.block)
        state = ArchivedState((*self.key, STATE), self.block, self.pruned, time_ns=self.time_ns)
        # Events tell what was done to documents that not everybody may read; a header holds hashes only.
        files = [(HEADER, self._file(HEADER, header, 0o444)), (EVENTS, self._file(EVENTS, events, 0o400))]
        return sorted([*files, (STATE, state), *self.beside.items()], key=lambda item: item[0])

    def _file(self, name: str, content: bytes, mode: int) -> ArchivedFile:
        stored = Attributes(stat.S_IFREG | mode, len(content), mtime_ns=self.time_ns, ctime_ns=self.time_ns)
        return ArchivedFile((*self.key, name), stored, lambda: content)


@dataclass(slots=True)
class ArchivedState(ReadOnlyDirectory):
    """The block's `state`."""

    block: BlockName
    pruned: PrunedBlocks

    async def lookup(self, name: str, caller: Caller) -> Node:
        found = dict(await self.entries(caller))
        if name not in found:
            raise NotFound(f"/{'/'.join((*self.key, name))} does not exist")
        return found[name]

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        names = await trio.to_thread.run_sync(self.pruned.plugins, self.block)
        return [
            (name, ArchivedPlugin((*self.key, name), self.block, self.pruned, time_ns=self.time_ns)) for name in names
        ]


@dataclass(slots=True)
class ArchivedPlugin(ReadOnlyDirectory):
    """The documents of one plugin."""

    block: BlockName
    pruned: PrunedBlocks

    async def lookup(self, name: str, caller: Caller) -> Node:
        try:
            element = None if is_draft(name) else element_of_file(name)
        except InvalidRequest:
            element = None
        if element is not None:
            id = ElementId(self.key[-1], element)
            version = await trio.to_thread.run_sync(self.pruned.version, self.block, id)
            if version is not None:
                return self._file(version)
        raise NotFound(f"/{'/'.join((*self.key, name))} does not exist")

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        return [(f"{version.id.element}.json", self._file(version)) for version in await self._versions()]

    async def _versions(self) -> Sequence[RecordedEvent]:
        return await trio.to_thread.run_sync(self.pruned.documents, self.block, self.key[-1])

    def _file(self, version: RecordedEvent) -> ArchivedFile:
        kept, id, block = version.attributes, version.id, self.block
        stored = Attributes(
            mode=stat.S_IFREG | kept.mode,
            size=version.size,
            uid=kept.uid,
            gid=kept.gid,
            atime_ns=kept.mtime_ns,
            mtime_ns=kept.mtime_ns,
            ctime_ns=kept.mtime_ns,
        )
        return ArchivedFile((*self.key, f"{id.element}.json"), stored, lambda: self.pruned.read_document(block, id))


@dataclass(slots=True)
class ArchivedFile(File):
    """One file; `read` gives its bytes, checked, and blocks."""

    stored: Attributes
    read: Callable[[], bytes]

    @property
    def cache(self) -> CachePolicy:
        return FOREVER

    async def attributes(self, caller: Caller) -> Attributes:
        return self.stored

    async def open(self, flags: int, caller: Caller) -> Handle:
        if is_writing(flags):
            raise ReadOnly("a block never changes", hint="write the document below /state")
        return ContentHandle(await trio.to_thread.run_sync(self.read))


def archived_directory(
    key: NodeKey, block: BlockName, path: str, pruned: PrunedBlocks, beside: Mapping[str, Node], time_ns: int
) -> ReadOnlyDirectory:
    """The directory at `path` below a pruned block: empty for the block itself, `state`, or `state/<plugin>`."""
    if not path:
        return ArchivedBlock(key, block, pruned, beside, time_ns=time_ns)
    kind = ArchivedState if path == STATE else ArchivedPlugin
    return kind(key, block, pruned, time_ns=time_ns)


def read_pruned(pruned: PrunedBlocks, block: BlockName, path: str) -> bytes:
    """A file at `path` below a pruned block; raises NotFound. Blocking."""
    if path == HEADER:
        return pruned.read_header(block)
    if path == EVENTS:
        return pruned.read_events(block)
    return pruned.read_document(block, ElementId.parse(path.removeprefix(f"{STATE}/")))
