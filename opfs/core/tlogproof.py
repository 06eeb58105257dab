"""`c2sp.org/tlog-proof@v1` files: that an entry is in a log, checkable without the log; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.merkle import HASH_BYTES, check_inclusion, leaf_hash
from opfs.core.note import MAX_NOTE_BYTES, Checkpoint, OpenedNote, from_base64, open_note, parse_checkpoint, to_base64
from opfs.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Collection

    from opfs.core.notekeys import Verifier

_FIRST_LINE = "c2sp.org/tlog-proof@v1"
_MAX_HASHES = 63


@dataclass(frozen=True, slots=True)
class TlogProof:
    """Leaf `index`, its audit path (the sibling first), the log's checkpoint verbatim; `extra` is not authentic."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        lines = [_FIRST_LINE]
        if self.extra is not None:
            lines.append(f"extra {to_base64(self.extra)}")
        lines += [f"index {self.index}", *map(to_base64, self.hashes)]
        return "\n".join((*lines, "\n")).encode() + self.checkpoint

    def check(self, entry: bytes, origin: str | None, verifiers: Collection[Verifier]) -> VerifiedEntry:
        """Check the signatures of known keys, then that `entry` is where the proof says.

        With `origin` the checkpoint must be that log's. Raises IntegrityError, which says which step failed.
        """
        opened = open_note(self.checkpoint, verifiers)
        checkpoint = parse_checkpoint(opened.text)
        if origin is not None and checkpoint.origin != origin:
            raise IntegrityError(f"the checkpoint is of the log {checkpoint.origin}, not {origin}")
        check_inclusion(leaf_hash(entry), self.index, checkpoint.size, self.hashes, checkpoint.root)
        return VerifiedEntry(checkpoint, opened)


@dataclass(frozen=True, slots=True)
class VerifiedEntry:
    """What a proof that checks shows: the entry is in the log with this checkpoint, signed by `opened.verified`."""

    checkpoint: Checkpoint
    opened: OpenedNote


def parse_tlog_proof(data: bytes) -> TlogProof:
    """Read a proof file; raises IntegrityError for bytes that `TlogProof.encode` would not write."""
    head, separator, checkpoint = data[: 2 * MAX_NOTE_BYTES].partition(b"\n\n")
    if not separator:
        raise IntegrityError("the proof has no empty line before the checkpoint")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"the proof is not ASCII at byte {error.start + 1}") from None
    if first != _FIRST_LINE:
        raise IntegrityError(f"the proof begins with {first[:40]!r}, not {_FIRST_LINE!r}")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = from_base64(lines.pop(0).removeprefix("extra "))
    if not lines or not lines[0].startswith("index "):
        raise IntegrityError("the proof does not say the index of its entry")
    number = lines.pop(0).removeprefix("index ")
    if not number.isdecimal() or len(number) > 19 or str(int(number)) != number:
        raise IntegrityError(f"{number[:40]!r} is not the index of an entry")
    hashes = tuple(map(from_base64, lines))
    if len(hashes) > _MAX_HASHES or any(len(item) != HASH_BYTES for item in hashes):
        raise IntegrityError("the proof holds something that is not a hash")
    return TlogProof(int(number), hashes, checkpoint, extra)
