"""The log of what a disk was asked to do: writes with their bytes, flushes, and marks put between them.

A record is a header (kind, length, offset; little-endian) and, for writes and marks, `length` bytes. The log is
written by one process; it is read when that has synced it or ended.

    cut at position p: everything before the last flush before p is on the disk; of what came after it,
    any part may be (a disk keeps writes in its cache in any order until it is told to flush)
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HEADER = struct.Struct("<BIQ")


class Kind(IntEnum):
    WRITE = 1
    FLUSH = 2
    MARK = 3


@dataclass(frozen=True, slots=True)
class Record:
    """One entry: `data` are the bytes of a write at `offset`, or of a mark."""

    kind: Kind
    offset: int = 0
    data: bytes = b""


class WriteLog:
    """Appends records to a file. Not thread-safe; buffers until `sync` or `close`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=1 << 20)

    def append(self, record: Record) -> None:
        self._file.write(_HEADER.pack(record.kind, len(record.data), record.offset))
        self._file.write(record.data)

    def sync(self) -> None:
        """Let readers see every record so far."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_log(path: Path) -> Iterator[Record]:
    """Every record, in order."""
    with path.open("rb") as file:
        while header := file.read(_HEADER.size):
            kind, length, offset = _HEADER.unpack(header)
            yield Record(Kind(kind), offset, file.read(length))


def apply_record(image: int, record: Record) -> None:
    """Do what a record says to the open image; only writes do anything."""
    if record.kind is Kind.WRITE:
        os.pwrite(image, record.data, record.offset)
