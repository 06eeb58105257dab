"""What lies outside the commit path, as Protocols: one page, implemented by adapters and by fakes.

Concurrency: `async` methods run on the trio thread and may block only by awaiting. Plain methods of
`SnapshotStore`, `Index` and `Embedder` do blocking I/O and are called in worker threads; each says whether
it may be called concurrently. Adapters raise only `opfs.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from opfs.core.action import Action, ApplyResult, Checkpoint, Difference, Document, StateDiff
    from opfs.core.names import BlockName, ElementId
    from opfs.core.note import Note
    from opfs.core.notekeys import Verifier


class Clock(Protocol):
    """The time of day."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC."""
        ...


# --- storage -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileAttributes:
    """Owner, permission bits (0o0000 to 0o7777, no file type) and modification time of a document."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document found on disk."""

    id: ElementId
    content: bytes
    attributes: FileAttributes


@dataclass(frozen=True, slots=True)
class DocumentWrite:
    """One change of the layer: `content` None removes the document."""

    id: ElementId
    content: bytes | None
    attributes: FileAttributes | None = None


class SnapshotStore(Protocol):
    """The layer (a writable tree) and the blocks (read-only snapshots of it).

    One writer at a time: `write_block`, `restore_layer` and `set_attributes` are never called concurrently
    with each other; reads may run at any time. Adapter: opfs.btrfs.store; fake: opfs.testing.store.
    """

    def list_blocks(self) -> Sequence[BlockName]:
        """All blocks, lowest first. Directories that are no blocks are not listed."""
        ...

    def read_header(self, name: BlockName) -> bytes: ...

    def read_events(self, name: BlockName) -> bytes:
        """The bytes of `events.jsonl`: one canonical event and a newline, for each event."""
        ...

    def read_document(self, name: BlockName, id: ElementId) -> bytes:
        """Raises NotFound."""
        ...

    def document_attributes(self, name: BlockName, id: ElementId) -> FileAttributes:
        """Raises NotFound."""
        ...

    def scan_layer(self) -> Iterator[StoredDocument]:
        """Every document of the layer, in any order."""
        ...

    def scan_block(self, name: BlockName) -> Iterator[StoredDocument]:
        """Every document of a block, in any order."""
        ...

    def write_block(
        self,
        name: BlockName,
        writes: Sequence[DocumentWrite],
        header: bytes,
        events: bytes,
        before_snapshot: Callable[[], None] = lambda: None,
    ) -> None:
        """Write the layer, then take the snapshot under its final name; durable on return.

        `before_snapshot` is called between the two, to start what can go on while the disk works: it neither
        waits nor raises. Raises NoSpace (outcome known: no snapshot was made, the layer may hold part of `writes`) or
        CommitUnknown (the snapshot may or may not exist).
        """
        ...

    def restore_layer(self, name: BlockName | None, ids: Collection[ElementId]) -> None:
        """Make the given documents of the layer what they are in the block (absent where it has none)."""
        ...

    def set_attributes(self, id: ElementId, attributes: FileAttributes) -> None:
        """Change owner, mode and mtime of a document in the layer; it makes no block. Raises NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class LogFileInfo:
    """A file of the log; `size` in bytes, None for a directory."""

    size: int | None
    time_ns: int


class TransparencyLog(Protocol):
    """The log over the headers of all blocks (format.md, "Log"): entry n is the header of block n.

    One thread at a time appends or foresees; the rest only reads and may run at any time, in any thread. What is
    read is as good as its comparison with a checkpoint. Adapter: opfs.tlog.log; fake: opfs.testing.log.
    """

    @property
    def origin(self) -> str: ...

    @property
    def size(self) -> int:
        """The number of entries."""
        ...

    @property
    def verifiers(self) -> Sequence[Verifier]:
        """Of the keys that sign, then of retired ones."""
        ...

    def checkpoint(self) -> bytes:
        """The newest signed checkpoint, a note; raises NotFound before the first."""
        ...

    def foresee(self, header: bytes, time_ns: int) -> None:
        """Compute what appending just this header will need; shows nothing, changes nothing, and may be in vain."""
        ...

    def append(self, headers: Iterable[bytes], time_ns: int) -> None:
        """Add entries and sign the tree of all of them, with that time.

        Raises PoolError, having signed nothing, where that would contradict what was signed before; PoolError
        or NoSpace where it cannot be stored: the log has its old size then.
        """
        ...

    def store(self) -> None:
        """Bring the log's files up to its newest checkpoint, which appending does not wait for.

        Called from any thread. Raises PoolError or NoSpace, and may then be called again.
        """
        ...

    def add_signatures(self, note: Note) -> bool:
        """Join verified lines of others to the newest checkpoint; False where `note` is not that one."""
        ...

    def keep_witnessed(self, note: Note) -> None:
        """Keep a checkpoint with enough cosignatures; the newest stays, whatever is appended."""
        ...

    def witnessed(self) -> bytes:
        """The checkpoint that was kept last; raises NotFound, or IntegrityError where it is not this log's."""
        ...

    def entry(self, index: int) -> bytes:
        """Raises InvalidRequest where the log is not that large, NotFound or IntegrityError where it is damaged."""
        ...

    def root_at(self, size: int) -> bytes:
        """The root of the first `size` entries; raises as `entry` does."""
        ...

    def inclusion_proof(self, index: int, size: int) -> Sequence[bytes]:
        """The audit path of an entry in the tree of the first `size`; raises as `entry` does."""
        ...

    def consistency_proof(self, old_size: int, new_size: int) -> Sequence[bytes]:
        """That one tree is a beginning of the other; raises as `entry` does."""
        ...

    def list_files(self, path: str) -> Mapping[str, LogFileInfo]:
        """What is in a directory of the log as C2SP tlog-tiles lays it out ("" is the top); raises NotFound."""
        ...

    def file_info(self, path: str) -> LogFileInfo:
        """One file or directory of that layout; raises NotFound."""
        ...

    def read_file(self, path: str) -> bytes:
        """A file of that layout, checked against the tree; raises NotFound or IntegrityError."""
        ...


# --- plugins -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a plugin's backend can do (names of the original proposal)."""

    supports_rollback: bool = False
    supports_checkpoints: bool = False
    supports_verification: bool = True
    atomic_operations: bool = False
    watch: bool = False


class Plugin(Protocol):
    """Desired state made real: see plugins.md. `plan` and `compare` are pure; the rest may block.

    The daemon calls, for every plugin alike: observe, plan, policy, checkpoint, apply each action, verify.
    Calls for different elements run concurrently; calls for one element never do.
    """

    @property
    def name(self) -> str: ...

    @property
    def schema(self) -> Mapping[str, object]:
        """JSON Schema 2020-12 of one element, with descriptions and examples.

        `x-volatile: true` on a property exempts it from verification.
        """
        ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def version_hash(self) -> str:
        """BLAKE3, hex, of the plugin's package: `plugin_hash` of its events."""
        ...

    def why_unavailable(self) -> str | None:
        """None where the plugin can work here; else the reason and how to get what is missing."""
        ...

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        """What is there now, by element, in the schema's shape; absent elements are left out.

        `None` means every element the backend has. `desired` gives the documents about to be planned, where
        there are any: a backend that finds an element only through its document (a file by its path) looks
        there too. Read-only.
        """
        ...

    def check(self, element: str, desired: Document) -> None:
        """Raise InvalidRequest (with the JSON pointer) for what the schema cannot say. Pure."""
        ...

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        """The actions from `current` (observed, None: absent) to `desired` (None: delete). Pure."""
        ...

    async def apply(self, action: Action) -> ApplyResult:
        """Do one action: idempotent, cancellable. Raises ApplyFailed with the backend's own words."""
        ...

    async def checkpoint(self, element: str) -> Checkpoint | None:
        """A restore point where the backend can, else None (then the inverse plan undoes)."""
        ...

    async def rollback(self, checkpoint: Checkpoint) -> None:
        """Return the element to the checkpoint. Raises ApplyFailed."""
        ...

    async def release(self, checkpoint: Checkpoint) -> None:
        """Drop a checkpoint that is no longer needed."""
        ...

    def compare(self, element: str, desired: Document | None, observed: Document | None) -> Sequence[Difference]:
        """In what the observed state is not the desired one; empty means verified. Pure."""
        ...

    def depends_on(self, element: str, desired: Document) -> Sequence[ElementId]:
        """Elements that must be in place before this one. Pure."""
        ...

    def is_protected(self, element: str, current: Document) -> bool:
        """Whether the element refuses to be deleted. Pure; `current` is the committed document."""
        ...

    @property
    def apply_timeout_s(self) -> float:
        """How long all actions of one element together may take."""
        ...


# --- meaning -------------------------------------------------------------------------------------------


class Embedder(Protocol):
    """Text to meaning. Thread-safe; deterministic to 1e-6 whatever the batch."""

    @property
    def model_id(self) -> str:
        """Names the weights and variant; stored beside each vector."""
        ...

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One L2-normalised float32 row per text, shape (len(texts), dimensions)."""
        ...


@dataclass(frozen=True, slots=True)
class IndexedEvent:
    """One event as the index holds it.

    `text` is the readable sentence that is embedded; uid, gid and mode are those of the document after the
    change (before it, for a delete) and decide who may see the event in a search. `event_hash` (hex) is
    the event's own, so that an index can be told from one of another chain.
    """

    seq: int
    height: int
    id: ElementId
    op: str
    time: str
    actor: str
    summary: str
    text: str
    uid: int
    gid: int
    mode: int
    event_hash: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result; `score` is the cosine of query and event, in [-1, 1]."""

    score: float
    event: IndexedEvent


class Index(Protocol):
    """Events, their text and vectors: derived from the chain, rebuildable, never the truth.

    `append` is called from one task at a time and in order of seq; searches run concurrently with it.
    """

    @property
    def indexed_count(self) -> int:
        """The number of events indexed: every event with seq below it is searchable."""
        ...

    def tip(self) -> tuple[int, str] | None:
        """Seq and hash of the newest event indexed, None when empty.

        Where the chain has another event at that seq, or none, the index belongs to another chain: clear it.
        """
        ...

    def append(self, events: Sequence[IndexedEvent]) -> None:
        """Embed and store; `events[0].seq == indexed_count`."""
        ...

    def similar(self, text: str, *, limit: int, uid: int, gids: Collection[int]) -> Sequence[Hit]:
        """The nearest events that (uid, gids) may read, best first; ties by newer first."""
        ...

    def clear(self) -> None:
        """Forget everything, so that it can be rebuilt."""
        ...

    def close(self) -> None: ...
