"""The record of a generation of derived files: which basis, how many pieces, made of what; pure bytes.

Little-endian: a head, one record for each piece, the CRC-32 of all that is before it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from opfs.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence

_VERSION = 1
_MAGIC = b"opfs-exa"
_HEAD = struct.Struct("<8sIIIIQd32s")
"""Magic, version, dimensions, layers, pieces, rows that the basis was made for, their tails' share, SHA-256 of the
basis."""
_CRC = struct.Struct("<I")


class Piece(NamedTuple):
    """How much of the rows' weight the layers leave, and the CRC-32 of the base rows and of each layer."""

    tail_share: float
    crcs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a generation. The basis was made for `trained_rows` rows."""

    dimensions: int
    layer_count: int
    basis_sha256: bytes
    trained_rows: int
    trained_share: float
    pieces: tuple[Piece, ...] = ()

    def with_pieces(self, pieces: Sequence[Piece]) -> State:
        return replace(self, pieces=tuple(pieces))

    def tail_share_since(self, first: int) -> float:
        """The mean share of the pieces from number `first` on; that of the training where there are none."""
        shares = [piece.tail_share for piece in self.pieces[first:]]
        return sum(shares) / len(shares) if shares else self.trained_share

    def encode(self) -> bytes:
        head = _HEAD.pack(
            _MAGIC,
            _VERSION,
            self.dimensions,
            self.layer_count,
            len(self.pieces),
            self.trained_rows,
            self.trained_share,
            self.basis_sha256,
        )
        content = head + b"".join(_piece(self.layer_count).pack(piece.tail_share, *piece.crcs) for piece in self.pieces)
        return content + _CRC.pack(zlib.crc32(content))


def parse_state(content: bytes) -> State:
    """Raises IntegrityError for anything that `State.encode` of this version did not write."""
    body = content[: -_CRC.size]
    if len(body) < _HEAD.size or content[-_CRC.size :] != _CRC.pack(zlib.crc32(body)):
        raise IntegrityError("the state of the derived vectors is torn")
    magic, version, dimensions, layers, count, rows, share, digest = _HEAD.unpack_from(body)
    if (magic, version, len(body)) != (_MAGIC, _VERSION, _HEAD.size + count * _piece(layers).size):
        raise IntegrityError("the derived vectors are of another version")
    records = _piece(layers).iter_unpack(body[_HEAD.size :])
    pieces = tuple(Piece(share_left, tuple(crcs)) for share_left, *crcs in records)
    return State(dimensions, layers, digest, rows, share, pieces)


def _piece(layers: int) -> struct.Struct:
    return struct.Struct(f"<d{1 + layers}I")
