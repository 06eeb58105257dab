"""Check a chain against its own hashes: what `opfs verify`, the scrub and the tests' oracle all run.

Reads only. The rules are opfs.core.audit's; this module feeds it, one block after the other, and knows how to begin
in the middle. Blocking; any number of passes may run at the same time, each in one thread.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

from opfs.commit.described import describe_event
from opfs.core.audit import EVENTS, STATE, BlockBytes, ChainAudit, Finding
from opfs.core.canonical import hash_bytes, hash_hex
from opfs.core.event import decode_events
from opfs.core.merkle import leaf_hash
from opfs.errors import IntegrityError, NotFound, OpfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from opfs.core.names import BlockName, ElementId
    from opfs.ports import IndexedEvent, SnapshotStore


FULL: Final = sys.maxsize
"""As a sample: every document, also of a block of which the archive has only those that changed."""


class BlockReader(Protocol):
    """Reads and hashes blocks."""

    def read(self, requests: Iterable[tuple[BlockName, int | None]]) -> Iterator[BlockBytes]:
        """Each block asked for, in order, with all documents hashed (None) or so many of them, chosen at random."""
        ...


@dataclass(frozen=True, slots=True)
class StoreReader:
    """The reader of any store; it has no samples."""

    store: SnapshotStore

    def read(self, requests: Iterable[tuple[BlockName, int | None]]) -> Iterator[BlockBytes]:
        for name, _ in requests:
            documents = list(self.store.scan_block(name))
            contents = {document.id.path: document.content_hash for document in documents}
            erased = {found.id.path: found.erasure.block for found in documents if found.erasure is not None}
            header, events = self.store.read_header(name), self.store.read_events(name)
            yield BlockBytes(name, header, events, frozenset(contents), contents, erased=erased)


@dataclass(slots=True)
class Verification:
    """One pass over the blocks of `store`, from `since` on; `sample` documents of each, or all.

    `run` yields after every block, so that its user can show progress, note where it is, or stop.
    """

    store: SnapshotStore
    reader: BlockReader
    since: int = 0
    sample: int | None = None
    true_header: Callable[[int], bytes | None] = field(default=lambda _: None)
    blocks: Sequence[BlockName] = field(init=False)
    audit: ChainAudit = field(init=False)
    documents_read: int = field(default=0, init=False)
    leaves: dict[int, bytes] = field(default_factory=dict, init=False)
    """The leaf in the log of every header that fits its block's name, by height."""
    damaged: set[tuple[int, str]] = field(default_factory=set, init=False)
    """Height and path of what there were findings about."""

    def __post_init__(self) -> None:
        self.audit = ChainAudit(self.true_header)
        self.blocks = self.store.list_blocks()

    def run(self) -> Iterator[tuple[BlockName, list[Finding]]]:
        """Each block and what is wrong with it, lowest first."""
        wanted = [name for name in self.blocks if name.height >= self.since]
        self._skip([name for name in self.blocks if name.height < self.since])
        # what stands before the first block is known of genesis only: the first has to be read in full
        samples = [self.sample if name.height == 0 or position else FULL for position, name in enumerate(wanted)]
        for block in self.reader.read(zip(wanted, samples, strict=True)):
            self.documents_read += len(block.contents)
            self._note_leaf(block.name, block.header)
            findings = list(self.audit.check(block))
            self.damaged.update((block.name.height, finding.path) for finding in findings)
            yield block.name, findings
        if unproved := list(self._check_erased()):
            yield self.blocks[-1], unproved

    def _check_erased(self) -> Iterator[Finding]:
        """What is missing though nobody erased it; an event may be in a block that was made since the pass began."""
        known = set(self.blocks)
        for eraser, _ in list(self.audit.unproved()):
            if eraser not in known:
                with suppress(IntegrityError, NotFound):
                    self.audit.note_erasures(eraser, decode_events(self.store.read_events(eraser)))
        for eraser, places in self.audit.unproved():
            for name, path in places:
                problem = f"it is missing, and block {eraser}, which should have erased it, does not say so"
                yield Finding(name, path, "stored bytes", problem)

    def _skip(self, names: Sequence[BlockName]) -> None:
        """Learn from the blocks before the first what the last event of each element is; they are not checked."""
        for name in names:
            try:
                header = self.store.read_header(name)
                self._note_leaf(name, header)
                self.audit.skip(name, header, self.store.read_events(name))
            except (IntegrityError, NotFound):
                self.audit.skip_unreadable(name)

    def _note_leaf(self, name: BlockName, header: bytes) -> None:
        if hash_hex(header).startswith(name.short_hash):
            self.leaves[name.height] = leaf_hash(header)

    def leaves_now(self, count: int) -> list[bytes | None]:
        """The leaves of all blocks by height, also of those made since `run` began, if more than `count` are there."""
        for name in self.store.list_blocks() if count > len(self.blocks) else ():
            if name.height not in self.leaves:
                with suppress(IntegrityError, NotFound):
                    self._note_leaf(name, self.store.read_header(name))
        heights = [*self.leaves, *(name.height for name in self.blocks)]
        return [self.leaves.get(height) for height in range(max(heights, default=-1) + 1)]

    def describe(self) -> Iterator[IndexedEvent]:
        """After `run`: what the index has to hold of the blocks from `since` on, but for what is damaged."""
        for before, name in pairwise((None, *self.blocks)):
            if name is None or name.height < self.since or (name.height, EVENTS) in self.damaged:
                continue
            if name.height != (0 if before is None else before.height + 1):
                continue
            for event in decode_events(self.store.read_events(name)):
                if not self._is_damaged(name.height, event.id) and not self._is_damaged(name.height - 1, event.id):
                    with suppress(OpfsError):
                        yield describe_event(self.store, event, name, before)

    def _is_damaged(self, height: int, id: ElementId) -> bool:
        return not self.damaged.isdisjoint(((height, STATE + id.path), (height, STATE.rstrip("/"))))

    def check_layer(self) -> list[Finding]:
        """After `run`: whether the layer is what the last block says. Only while nobody writes."""
        said = self.audit.documents
        if said is None:
            return []
        found = {document.id.path: hash_bytes(document.content) for document in self.store.scan_layer()}
        differing = sorted(path for path in said.keys() | found.keys() if said.get(path) != found.get(path))
        return [Finding(None, f"@state/state/{path}", "layer", _differs(path, said, found)) for path in differing]


def _differs(path: str, said: dict[str, bytes], found: dict[str, bytes]) -> str:
    if path not in found:
        return "HEAD has this document, the layer does not"
    return "the layer has this document, HEAD does not" if path not in said else "it is not what HEAD has"


def check_chain(store: SnapshotStore) -> Iterator[Finding]:
    """Every disagreement in the blocks, lowest first, then in the layer; nothing if all is well."""
    verification = Verification(store, StoreReader(store))
    for _, findings in verification.run():
        yield from findings
    yield from verification.check_layer()
