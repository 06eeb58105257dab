"""The names of the index's files and the header of those that hold records; pure, and without numpy, slow to load."""

from __future__ import annotations

import hashlib
import struct
import zlib

DATABASE_NAME = "events.db"
COLUMNS_NAME = "columns"
"""The directory with one file for each column."""
VECTORS_PREFIX = "vectors-"
"""Of a directory with the vectors of one model, which may become the model that searches use."""
SPARE_PREFIX = "spare-"
"""Of a directory with vectors of an index that was begun anew: texts that stay the same take theirs from it."""
ROWS_NAME = "rows.f32"
LABELS_NAME = "labels"

_HEADER = struct.Struct("<8sII32s12xI")
"""Magic, version, bytes in a record, SHA-256 of what the records are, padding, CRC-32 of all that is before it."""

HEADER_BYTES = _HEADER.size
_MAGIC = b"opfs-rec"
_VERSION = 1
_DIGEST_DIGITS = 12


def record_header(what: str, record_bytes: int) -> bytes:
    """The header of a file with records of that kind."""
    head = _HEADER.pack(_MAGIC, _VERSION, record_bytes, hashlib.sha256(what.encode()).digest(), 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head))


def vectors_of(model_id: str) -> str:
    """What the header of a file of vectors says is in it."""
    return f"vectors of {model_id}"


def labels_of(model_id: str) -> str:
    """What the header says of the file that has, of every vector, the text's digest and the vector's checksum."""
    return f"labels of vectors of {model_id}"


def model_digest(model_id: str) -> str:
    """By which directories tell models apart."""
    return hashlib.sha256(model_id.encode()).hexdigest()[:_DIGEST_DIGITS]


# --- version 1 of the index, whose vectors are used again ----------------------------------------------------

VECTORS_1_NAME = "vectors.f32"
_MAGIC_1 = b"opfs-vec"


def vector_header_1(model_id: str, dimensions: int) -> bytes:
    """The header of a file of version 1."""
    head = _HEADER.pack(_MAGIC_1, _VERSION, dimensions, hashlib.sha256(model_id.encode()).digest(), 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head))
