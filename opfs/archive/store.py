"""`KeptStore`: every block there ever was as one SnapshotStore, whether its snapshot is there or was pruned.

Snapshots are asked first; what was pruned comes from the archive. A document of a pruned block is the version that
held when the block was made: it is in the archive with the block that introduced it or, if that one is still there, in
its snapshot. Which version that is tells the history; where there is none yet, opfs.archive.origins.

Nothing is deleted that is not in the archive, but for what is erased: reading that raises Erased. Concurrency: as
the store it wraps; `archive_blocks`, `delete_snapshots` and `erase` are called by one thread at a time, which need not
be the one that writes blocks.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import TYPE_CHECKING, Protocol, TypeVar

from opfs.archive.origins import Origins
from opfs.archive.pack import ArchivedBlock
from opfs.core.canonical import hash_bytes
from opfs.core.erasure import erased_content
from opfs.core.event import decode_events
from opfs.core.header import BlockHeader
from opfs.core.names import BlockName
from opfs.core.printable import printable
from opfs.core.standing import DOCUMENT_OPS
from opfs.errors import Erased, IntegrityError, NotFound, OpfsError, PoolError
from opfs.ports import FileAttributes, SnapshotStore, StoredDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from opfs.archive.packs import Archive
    from opfs.core.names import ElementId
    from opfs.ports import DocumentWrite, Erasure, RecordedEvent

_DELETED_AT_ONCE = 50

_T = TypeVar("_T")


class Snapshots(SnapshotStore, Protocol):
    """A SnapshotStore whose snapshots can go."""

    def delete_blocks(self, names: Collection[BlockName]) -> None:
        """Delete snapshots, durably on return; those that are gone already are no error."""
        ...


class Versions(Protocol):
    """The part of `ports.History` that is needed."""

    @property
    def indexed_count(self) -> int: ...

    def version_at(self, id: ElementId, before_seq: int) -> RecordedEvent | None: ...

    def documents_at(self, before_seq: int, plugin: str | None = None) -> Sequence[RecordedEvent]: ...


class KeptStore:
    """`live` holds the snapshots, `archive` what was pruned; set `versions` as soon as there is a history."""

    def __init__(self, live: Snapshots, archive: Archive) -> None:
        self._live = live
        self._archive = archive
        self._changing = threading.Lock()
        """Held while those below are changed or copied."""
        self._made: set[BlockName] = set()
        self._deleted: set[BlockName] = set()
        """Snapshots that this process made and deleted: what it knows better than a listing that was under way."""
        self._snapshots = set(live.list_blocks())
        self._blocks = sorted(self._snapshots | set(archive.names()))
        self.versions: Versions | None = None
        self._origins = Origins(self.read_events)

    # --- which there are -------------------------------------------------------------------------------

    def list_blocks(self) -> Sequence[BlockName]:
        """All blocks, lowest first: as they are now, also where another process makes and prunes them."""
        self._look_again()
        with self._changing:
            return list(self._blocks)

    def _look_again(self) -> None:
        found = set(self._live.list_blocks())
        with self._changing:
            there = (found | self._made) - self._deleted
            is_known = there == self._snapshots
            gone = self._snapshots - there
        if is_known:
            return
        if any(name not in self._archive for name in gone):
            self._archive.load_new()
        with self._changing:
            self._snapshots = (found | self._made) - self._deleted
            self._blocks = sorted(self._snapshots | set(self._archive.names()))

    def is_pruned(self, name: BlockName) -> bool:
        """Whether the block has no snapshot any more."""
        return name not in self._snapshots and name in self._archive

    @property
    def live_blocks(self) -> Sequence[BlockName]:
        """Those that have a snapshot, lowest first."""
        with self._changing:
            return sorted(self._snapshots)

    @property
    def live_count(self) -> int:
        """How many have a snapshot; asked after every commit."""
        return len(self._snapshots)

    # --- reading ---------------------------------------------------------------------------------------

    def read_header(self, name: BlockName) -> bytes:
        return self._read(name, self._live.read_header, self._archive.read_header)

    def read_events(self, name: BlockName) -> bytes:
        return self._read(name, self._live.read_events, self._archive.read_events)

    def read_document(self, name: BlockName, id: ElementId) -> bytes:
        return self._read(name, lambda name: self._live.read_document(name, id), lambda name: self._content(name, id))

    def document_attributes(self, name: BlockName, id: ElementId) -> FileAttributes:
        return self._read(
            name, lambda name: self._live.document_attributes(name, id), lambda name: self._version(name, id).attributes
        )

    def scan_layer(self) -> Iterator[StoredDocument]:
        return self._live.scan_layer()

    def scan_block(self, name: BlockName) -> Iterator[StoredDocument]:
        if not self.is_pruned(name):
            yield from self._live.scan_block(name)
            return
        for id in sorted(self._elements_at(name)):
            yield self._version(name, id)

    # --- writing ---------------------------------------------------------------------------------------

    def write_block(
        self,
        name: BlockName,
        writes: Sequence[DocumentWrite],
        header: bytes,
        events: bytes,
        before_snapshot: Callable[[], None] = lambda: None,
    ) -> None:
        self._live.write_block(name, writes, header, events, before_snapshot)
        with self._changing:
            self._made.add(name)
            self._snapshots.add(name)
            if not self._blocks or self._blocks[-1] < name:  # a listing may have seen it already
                self._blocks.append(name)

    def restore_layer(self, name: BlockName | None, ids: Collection[ElementId]) -> None:
        self._live.restore_layer(name, ids)

    def set_attributes(self, id: ElementId, attributes: FileAttributes) -> None:
        self._live.set_attributes(id, attributes)

    # --- erasing ---------------------------------------------------------------------------------------

    def erase(self, erasure: Erasure, names: Sequence[BlockName]) -> None:
        """Destroy a content that blocks `names` hold, all of them; durable on return, and may be called again.

        The last block is not among them, or its documents would be gone from the host's declaration. Raises NoSpace,
        PoolError or IntegrityError.
        """
        with self._changing:
            live = [name for name in names if name in self._snapshots]
        self._archive.add([self._gather(name, erasure) for name in live if name not in self._archive])
        self._archive.erase(erasure)
        for start in range(0, len(live), _DELETED_AT_ONCE):
            self.delete_snapshots(live[start : start + _DELETED_AT_ONCE])

    def erased_in(self, name: BlockName, id: ElementId) -> BlockName | None:
        """The block whose event erased the document that block `name` set, None where it is there."""
        erasure = self._archive.erasure_of(name, id)
        return None if erasure is None else erasure.block

    # --- pruning ---------------------------------------------------------------------------------------

    def archive_blocks(self, names: Sequence[BlockName]) -> None:
        """Put blocks that are not there yet into the archive, durably; raises NoSpace, PoolError or IntegrityError."""
        self._archive.add([self._gather(name) for name in names if name not in self._archive])

    def delete_snapshots(self, names: Sequence[BlockName]) -> None:
        """Delete the snapshots of archived blocks, durably; readers go on in the archive."""
        missing = [name for name in names if name not in self._archive]
        if missing:
            raise PoolError(f"block {missing[0]} is not in the archive, so its snapshot is kept")
        with self._changing:
            self._deleted.update(names)
            self._made.difference_update(names)
            self._snapshots.difference_update(names)
        self._live.delete_blocks(names)
        # After this line: the snapshots are gone; a crash here or before leaves some of them; repaired by the next
        # pruning, which finds their blocks in the archive and deletes them.

    def _gather(self, name: BlockName, erasure: Erasure | None = None) -> ArchivedBlock:
        """What of a live block has to be kept, without what is being erased."""
        events = self._live.read_events(name)
        documents = []
        for id in sorted({event.id for event in decode_events(events) if event.op in DOCUMENT_OPS}):
            try:
                content = self._live.read_document(name, id)
            except NotFound:
                continue  # it deleted the element
            attributes = self._live.document_attributes(name, id)
            if erasure is not None and hash_bytes(content) == erasure.content:
                documents.append(StoredDocument(id, b"", attributes, erasure))
            else:
                documents.append(StoredDocument(id, content, attributes))
        return ArchivedBlock(name, self._live.read_header(name), events, tuple(documents))

    # --- versions --------------------------------------------------------------------------------------

    def _read(
        self, name: BlockName, from_snapshot: Callable[[BlockName], _T], from_archive: Callable[[BlockName], _T]
    ) -> _T:
        if not self.is_pruned(name):
            try:
                return from_snapshot(name)
            except (NotFound, PoolError):
                # a document that a block never had is asked for at each create: no reason to list all snapshots
                if self._has_snapshot(name):
                    raise
                self._look_again()
                if not self.is_pruned(name):  # else it was pruned under this reader
                    raise
        return from_archive(name)

    def _has_snapshot(self, name: BlockName) -> bool:
        try:
            self._live.read_header(name)
        except OpfsError:
            return False
        return True

    def _content(self, name: BlockName, id: ElementId) -> bytes:
        """Of a document of a pruned block; raises NotFound or Erased."""
        document = self._version(name, id)
        if document.erasure is None:
            return document.content
        block = document.erasure.block
        events = decode_events(self.read_events(block)) if block in self._blocks else ()
        event = next((event for event in events if erased_content(event) == document.content_hash), None)
        if event is None:
            raise IntegrityError(
                f"{id} of block {name} is not in the archive, which says that block {block} erased it; no event does"
            )
        who = printable(str(event.actor.get("user") or event.actor.get("uid", "")))
        raise Erased(f"{id} of block {name} was erased in block {block} by {who}", document.content_hash)

    def _version(self, name: BlockName, id: ElementId) -> StoredDocument:
        """The document of a pruned block, perhaps erased; raises NotFound."""
        origin = self._origin(name, id)
        if origin is None:
            raise NotFound(f"{id} does not exist in block {name}")
        if origin in self._archive:
            return self._archive.read_version(origin, id)
        content = self._live.read_document(origin, id)
        return StoredDocument(id, content, self._live.document_attributes(origin, id))

    def _origin(self, name: BlockName, id: ElementId) -> BlockName | None:
        """The block that set the document that held in block `name`; None where it had none."""
        versions, end = self._versions_at(name)
        if versions is not None:
            version = versions.version_at(id, end)
            return None if version is None or version.content is None else self._at(version.height)
        height = self._learned(name).find(id, name.height)
        return None if height is None else self._at(height)

    def _elements_at(self, name: BlockName) -> Iterable[ElementId]:
        """Every element that had a document in block `name`, once."""
        versions, end = self._versions_at(name)
        if versions is not None:
            return {version.id for version in versions.documents_at(end)}
        return self._learned(name).elements(name.height)

    def _learned(self, name: BlockName) -> Origins:
        """Where there is no history: what the events up to block `name` tell."""
        self._origins.learn(self._blocks, name)
        return self._origins

    def _versions_at(self, name: BlockName) -> tuple[Versions | None, int]:
        """The history, if it has got to block `name`, and the number of the first event after it."""
        if self.versions is None:
            return None, 0
        end = self._events_end(name)
        return (self.versions if self.versions.indexed_count >= end else None), end

    def _events_end(self, name: BlockName) -> int:
        header = BlockHeader.decode(self.read_header(name))
        return header.events_first + header.events_count

    def _at(self, height: int) -> BlockName:
        position = bisect_left(self._blocks, BlockName(height, ""))
        if position == len(self._blocks) or self._blocks[position].height != height:
            raise NotFound(f"there is no block {height}")
        return self._blocks[position]
