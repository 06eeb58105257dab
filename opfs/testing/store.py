"""A SnapshotStore in memory: passes the real one's contract suite, and watches over those who use it.

It polices what the real store takes on trust: one writer at a time, blocks that grow by one in height and are
never made twice, a header and events that are the block's own bytes. Breaking a rule is an AssertionError, a
bug of the caller. Nothing is durable and nothing is slow.

Faults: `fail(step, error)` makes the next passing of a step raise, before it has an effect or, with
`persisted=True`, after. The steps of `write_block` are `document` (each), `events`, `header`, `snapshot`, and of
`restore_layer` `restore` (each document). "Failed but persisted" at `snapshot` is the block that is there
although nobody could tell.

Concurrency: as the port; reads from any thread while one thread writes.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from opfs.core.names import PLUGIN_NAME, check_element_name
from opfs.errors import CommitUnknown, InvalidRequest, NotFound
from opfs.ports import FileAttributes, StoredDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from opfs.core.names import BlockName, ElementId
    from opfs.errors import OpfsError
    from opfs.ports import DocumentWrite

STEPS = ("document", "events", "header", "snapshot", "restore")


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """One block, immutable."""

    header: bytes
    events: bytes
    documents: Mapping[ElementId, StoredDocument]


@dataclass(frozen=True, slots=True)
class _Fault:
    step: str
    error: OpfsError
    persisted: bool


class MemorySnapshotStore:
    """The layer and the blocks as dictionaries.

    `blocks` and `layer` are for tests to look at and, to play a tamperer or a crash, to change.
    """

    def __init__(self) -> None:
        self.blocks: dict[BlockName, StoredBlock] = {}
        self.layer: dict[ElementId, StoredDocument] = {}
        self._layer_events = b""
        self._layer_header = b""
        self._faults: list[_Fault] = []
        self._writer = threading.Lock()

    def fail(self, step: str, error: OpfsError, *, persisted: bool = False) -> None:
        """Make the next passing of `step` raise `error`; several calls fail several passings, in order."""
        assert step in STEPS, f"{step} is none of {STEPS}"
        self._faults.append(_Fault(step, error, persisted))

    # --- reading ---------------------------------------------------------------------------------------

    def list_blocks(self) -> Sequence[BlockName]:
        return sorted(self.blocks)

    def read_header(self, name: BlockName) -> bytes:
        return self._block(name).header

    def read_events(self, name: BlockName) -> bytes:
        return self._block(name).events

    def read_document(self, name: BlockName, id: ElementId) -> bytes:
        return self._document(name, id).content

    def document_attributes(self, name: BlockName, id: ElementId) -> FileAttributes:
        return self._document(name, id).attributes

    def scan_layer(self) -> Iterator[StoredDocument]:
        yield from list(self.layer.values())

    def scan_block(self, name: BlockName) -> Iterator[StoredDocument]:
        yield from self._block(name).documents.values()

    # --- writing ---------------------------------------------------------------------------------------

    def write_block(
        self,
        name: BlockName,
        writes: Sequence[DocumentWrite],
        header: bytes,
        events: bytes,
        before_snapshot: Callable[[], None] = lambda: None,
    ) -> None:
        with self._only_writer():
            if name in self.blocks:
                raise CommitUnknown(f"{name} exists in the chain already; it was not touched")
            self._check_next(name, header, events)
            for write in writes:
                with self._step("document"):
                    self._put(write.id, write.content, write.attributes)
            with self._step("events"):
                self._layer_events = events
            with self._step("header"):
                self._layer_header = header
            before_snapshot()
            with self._step("snapshot"):
                frozen = MappingProxyType(dict(self.layer))
                self.blocks[name] = StoredBlock(self._layer_header, self._layer_events, frozen)

    def restore_layer(self, name: BlockName | None, ids: Collection[ElementId]) -> None:
        with self._only_writer():
            source: Mapping[ElementId, StoredDocument] = {} if name is None else self._block(name).documents
            for id in ids:
                with self._step("restore"):
                    self.layer.pop(id, None)
                    if id in source:
                        self.layer[id] = source[id]

    def set_attributes(self, id: ElementId, attributes: FileAttributes) -> None:
        with self._only_writer():
            if id not in self.layer:
                raise NotFound(f"there is no document {id}")
            self.layer[id] = StoredDocument(id, self.layer[id].content, attributes)

    def delete_blocks(self, names: Collection[BlockName]) -> None:
        with self._only_writer():
            for name in names:
                assert name != max(self.blocks), "the head's snapshot is deleted"
                self.blocks.pop(name, None)

    # --- the rules -------------------------------------------------------------------------------------

    @contextmanager
    def _only_writer(self) -> Iterator[None]:
        assert self._writer.acquire(blocking=False), "a second writer while a write is being made"
        try:
            yield
        finally:
            self._writer.release()

    def _check_next(self, name: BlockName, header: bytes, events: bytes) -> None:
        height = max((block.height for block in self.blocks), default=-1) + 1
        assert name.height == height, f"block {name} was made where one of height {height} is due"
        assert header, f"block {name} has no header"
        assert not events or events.endswith(b"\n"), f"the last event of block {name} has no newline"

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """Pass a step, or fail at it as the first fault set for it says."""
        fault = next((fault for fault in self._faults if fault.step == name), None)
        if fault is not None:
            self._faults.remove(fault)
            if not fault.persisted:
                raise fault.error
        yield
        if fault is not None:
            raise fault.error

    def _put(self, id: ElementId, content: bytes | None, attributes: FileAttributes | None) -> None:
        check_element_name(id.element)
        if not PLUGIN_NAME.match(id.plugin):
            raise InvalidRequest(f"{id.plugin!r} cannot name a plugin")
        before = self.layer.pop(id, None)
        if content is None:
            return
        if attributes is None:
            now_ns = time.time_ns()
            attributes = FileAttributes(0o644, 0, 0, now_ns)
            if before is not None:
                kept = before.attributes
                attributes = FileAttributes(kept.mode, kept.uid, kept.gid, now_ns)
        self.layer[id] = StoredDocument(id, content, attributes)

    def _block(self, name: BlockName) -> StoredBlock:
        try:
            return self.blocks[name]
        except KeyError:
            raise NotFound(f"there is no block {name}") from None

    def _document(self, name: BlockName, id: ElementId) -> StoredDocument:
        try:
            return self._block(name).documents[id]
        except KeyError:
            raise NotFound(f"there is no document {id} in block {name}") from None
