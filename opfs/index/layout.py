"""The names of the index's files and the header of vectors.f32; pure, and without numpy, which is slow to load."""

from __future__ import annotations

import hashlib
import struct
import zlib

DATABASE_NAME = "events.db"
VECTORS_NAME = "vectors.f32"

_HEADER = struct.Struct("<8sII32s12xI")
"""Magic, version, dimensions, SHA-256 of the model id, padding, CRC-32 of all that is before it."""

HEADER_BYTES = _HEADER.size
_MAGIC = b"opfs-vec"
_VERSION = 1


def vector_header(model_id: str, dimensions: int) -> bytes:
    """The header of a file with vectors of that model."""
    head = _HEADER.pack(_MAGIC, _VERSION, dimensions, hashlib.sha256(model_id.encode()).digest(), 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head))


def dimensions_of(header: bytes) -> int:
    """Numbers in a vector, by the header of the file; raises ValueError where that is none."""
    magic, version, dimensions, _, crc = _HEADER.unpack(header)
    if (magic, version, crc) != (_MAGIC, _VERSION, zlib.crc32(header[:-4])) or not dimensions:
        raise ValueError("its header is damaged")
    return int(dimensions)
