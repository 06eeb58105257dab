"""Check a chain against its own hashes: what `opfs verify`, the scrub and the tests' oracle all run.

Reads only. The rules are opfs.core.audit's; this module feeds it, one block after the other, and knows how to begin
in the middle. Blocking; any number of passes may run at the same time, each in one thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from opfs.core.audit import BlockBytes, ChainAudit, Finding
from opfs.core.canonical import hash_bytes
from opfs.errors import IntegrityError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from opfs.core.names import BlockName
    from opfs.ports import SnapshotStore


class BlockReader(Protocol):
    """Reads and hashes whole blocks."""

    def read(self, requests: Iterable[tuple[BlockName, int | None]]) -> Iterator[BlockBytes]:
        """Each block asked for, in order, with all documents hashed or only so many of them, chosen at random."""
        ...


@dataclass(frozen=True, slots=True)
class StoreReader:
    """The reader of any store; it has no samples."""

    store: SnapshotStore

    def read(self, requests: Iterable[tuple[BlockName, int | None]]) -> Iterator[BlockBytes]:
        for name, _ in requests:
            contents = {document.id.path: hash_bytes(document.content) for document in self.store.scan_block(name)}
            header, events = self.store.read_header(name), self.store.read_events(name)
            yield BlockBytes(name, header, events, frozenset(contents), contents)


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

    def __post_init__(self) -> None:
        self.audit = ChainAudit(self.true_header)
        self.blocks = self.store.list_blocks()

    def run(self) -> Iterator[tuple[BlockName, list[Finding]]]:
        """Each block and what is wrong with it, lowest first."""
        wanted = [name for name in self.blocks if name.height >= self.since]
        self._skip([name for name in self.blocks if name.height < self.since])
        # what stands before the first block is known of genesis only: the first has to be read in full
        samples = [self.sample if name.height == 0 or position else None for position, name in enumerate(wanted)]
        for block in self.reader.read(zip(wanted, samples, strict=True)):
            self.documents_read += len(block.contents)
            yield block.name, list(self.audit.check(block))

    def _skip(self, names: Sequence[BlockName]) -> None:
        """Learn from the blocks before the first what the last event of each element is; they are not checked."""
        for name in names:
            try:
                self.audit.skip(name, self.store.read_header(name), self.store.read_events(name))
            except (IntegrityError, NotFound):
                self.audit.skip_unreadable(name)

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
