"""A transparency log in memory: what opfs.tlog.log promises, without its files.

It polices its callers: entries are appended by one thread at a time. `refuse` makes the next appends fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.core.merkle import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    nodes_of_hashes,
    root_at,
)
from opfs.core.note import Checkpoint, Note
from opfs.core.notekeys import Kind, Signer, sign_checkpoint
from opfs.core.tiles import ENTRIES, HEIGHT, WIDTH, encode_bundle, tiles_of
from opfs.errors import InvalidRequest, NotFound, OpfsError, PoolError
from opfs.ports import LogFileInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from opfs.core.merkle import Nodes
    from opfs.core.notekeys import Verifier


class MemoryLog:
    """Signs with a fixed Ed25519 key; `promise` plays a checkpoint that was signed in an earlier life."""

    def __init__(self, origin: str = "test.example/opfs") -> None:
        self.origin = origin
        self.refuse: OpfsError | None = None
        self.promise: Checkpoint | None = None
        self._signer = Signer(origin, Kind.ED25519, b"\x01" * 32)
        self._entries: list[bytes] = []
        self._hashes: list[bytes] = []
        self._note: Note | None = None
        self._witnessed: Note | None = None
        self._appending = False

    @property
    def size(self) -> int:
        return len(self._entries)

    @property
    def verifiers(self) -> Sequence[Verifier]:
        return (self._signer.verifier,)

    def checkpoint(self) -> bytes:
        if self._note is None:
            raise NotFound("the log has no checkpoint yet")
        return self._note.encode()

    def foresee(self, header: bytes, time_ns: int) -> None:
        if self._appending:
            raise AssertionError("one thread foresees while another appends")

    def append(self, headers: Iterable[bytes], time_ns: int) -> None:
        if self._appending:
            raise AssertionError("two threads append at once")
        self._appending = True
        try:
            if self.refuse is not None:
                raise self.refuse
            entries = [*self._entries, *headers]
            hashes = [leaf_hash(entry) for entry in entries]
            if self.promise is not None:
                kept = self.promise.size <= len(entries)
                if not kept or root_at(self.promise.size, nodes_of_hashes(hashes)) != self.promise.root:
                    raise PoolError("the log refuses to sign: it signed something else before")
            if len(entries) == self.size and self._note is not None:
                return
            self._entries, self._hashes = entries, hashes
            checkpoint = Checkpoint(self.origin, self.size, self.root_at(self.size))
            self._note = sign_checkpoint(checkpoint, (self._signer,), time_ns // 10**9)
        finally:
            self._appending = False

    def store(self) -> None:
        """There are no files."""

    def add_signatures(self, note: Note) -> bool:
        if self._note is None or note.text != self._note.text:
            return False
        ours = (self._signer.verifier.name, self._signer.verifier.key_id)
        self._note = self._note.with_signatures(line for line in note.signatures if (line.name, line.key_id) != ours)
        return True

    def keep_witnessed(self, note: Note) -> None:
        self._witnessed = note

    def witnessed(self) -> bytes:
        if self._witnessed is None:
            raise NotFound("no checkpoint had a quorum yet")
        return self._witnessed.encode()

    def entry(self, index: int) -> bytes:
        if not 0 <= index < self.size:
            raise InvalidRequest(f"the log has {self.size} entries and no entry {index}")
        return self._entries[index]

    def root_at(self, size: int) -> bytes:
        return root_at(size, self._nodes(size))

    def inclusion_proof(self, index: int, size: int) -> Sequence[bytes]:
        return inclusion_proof(index, size, self._nodes(size))

    def consistency_proof(self, old_size: int, new_size: int) -> Sequence[bytes]:
        return consistency_proof(old_size, new_size, self._nodes(new_size))

    def list_files(self, path: str) -> Mapping[str, LogFileInfo]:
        prefix = f"{path}/" if path else ""
        inside = {name.removeprefix(prefix): data for name, data in self._files().items() if name.startswith(prefix)}
        if not inside:
            raise NotFound(f"the log has no {path}")
        return {
            name.partition("/")[0]: LogFileInfo(None if "/" in name else len(data), 0) for name, data in inside.items()
        }

    def file_info(self, path: str) -> LogFileInfo:
        directory, _, name = path.rpartition("/")
        try:
            return self.list_files(directory)[name]
        except KeyError:
            raise NotFound(f"the log has no {path}") from None

    def read_file(self, path: str) -> bytes:
        try:
            return self._files()[path]
        except KeyError:
            raise NotFound(f"the log has no {path}") from None

    def _files(self) -> dict[str, bytes]:
        files = {"log.vkey": "".join(f"{verifier.vkey}\n" for verifier in self.verifiers).encode()}
        if self._note is not None:
            files["checkpoint"] = self.checkpoint()
        if self._witnessed is not None:
            files["checkpoint.witnessed"] = self.witnessed()
        nodes = self._nodes(self.size)
        for tile in tiles_of(self.size):
            first = tile.index * WIDTH
            numbers = range(first, first + tile.width)
            if tile.level == ENTRIES:
                files[tile.path] = encode_bundle(self._entries[number] for number in numbers)
            else:
                files[tile.path] = b"".join(nodes(HEIGHT * tile.level, number) for number in numbers)
        return files

    def _nodes(self, size: int) -> Nodes:
        if not 0 <= size <= self.size:
            raise InvalidRequest(f"the log has {self.size} entries, not {size}")
        return nodes_of_hashes(self._hashes)
