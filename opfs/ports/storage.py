"""The time of day, the blocks, and the log over them.

Concurrency: plain methods block and belong in worker threads; each says whether it may be called concurrently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from opfs.core.canonical import hash_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from opfs.core.names import BlockName, ElementId
    from opfs.core.note import Note
    from opfs.core.notekeys import Verifier


class Clock(Protocol):
    """The time of day."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC."""
        ...


@dataclass(frozen=True, slots=True)
class FileAttributes:
    """Owner, permission bits (0o0000 to 0o7777, no file type) and modification time of a document."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Erasure:
    """What is left of an erased document: the BLAKE3 of its content, and the block whose event says who erased it."""

    content: bytes
    block: BlockName


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document found on disk; of one that was erased, `content` is empty and `erasure` says what is known."""

    id: ElementId
    content: bytes
    attributes: FileAttributes
    erasure: Erasure | None = None

    @property
    def content_hash(self) -> bytes:
        """BLAKE3 of what the content is, or was before it was erased."""
        return hash_bytes(self.content) if self.erasure is None else self.erasure.content


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
