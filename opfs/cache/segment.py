"""One segment of a packed file: records one after the other, and beside them an index of where each is.

`NNNNNNNN.pack` holds records (crc32, length, cost, key, payload); `NNNNNNNN.index` an entry for each (key, offset,
length). Both only grow, and neither is ever synced: a record is believed only if its own checksum and key agree, so
what a crash tore, a disk garbled or somebody overwrote is a miss, and never a wrong answer. Entries of an index need no
checksum: each begins where the one before ends, and a wrong key leads to a record of another.

Read with pread, not through a mapping: a page that the device cannot deliver is an error of one call here, and
would be a SIGBUS that ends the whole process there.

Concurrency: one writer at a time (opfs.cache.packed holds the lock); readers at any time, also while the segment is
dropped: the files stay open until the last reader let go of the object.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

KEY_BYTES = 32
MAGIC = b"opfs cache 1\n\0\0\0"
"""Begins every index; a file with another beginning is of another format, and so is no segment."""

_RECORD = struct.Struct("<III32s")
HEADER_BYTES = _RECORD.size
_ENTRY = struct.Struct("<32sQI")
ENTRY_BYTES = _ENTRY.size
_COLUMNS = np.dtype([("key", f"V{KEY_BYTES}"), ("offset", "<u8"), ("length", "<u4")])
_LENGTH_BITS = 32
_LENGTH_MASK = (1 << _LENGTH_BITS) - 1
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Record(NamedTuple):
    """What was put under a key, and how many microseconds it had taken to work out."""

    payload: memoryview
    cost_us: int


class Segment:
    """The files of one number; `places` says for each key where its record is: offset and length in one number."""

    __slots__ = ("__weakref__", "_index_fd", "_index_size", "_pack_fd", "_paths", "number", "places", "size", "used")

    def __init__(self, directory: Path, number: int, *, create: bool) -> None:
        """Open or create; raises OSError."""
        self.number = number
        self.places: dict[bytes, int] = {}
        self.used: set[bytes] = set()
        """Keys that were asked for since they came here."""
        self._paths = (directory / f"{number:08d}.pack", directory / f"{number:08d}.index")
        self._pack_fd = self._index_fd = -1
        flags = _CREATE if create else _OPEN
        self._pack_fd = os.open(self._paths[0], flags, 0o600)
        self._index_fd = os.open(self._paths[1], flags, 0o600)
        if not create:
            self._load()
            return
        try:
            _write(self._index_fd, MAGIC, 0)
        except OSError:
            self.unlink()  # or the number would be taken until the next start
            raise
        self._index_size = len(MAGIC)
        self.size = 0

    def __del__(self) -> None:
        # not at the drop: a reader may be in the middle of a pread, and a closed number may be another file's soon
        for descriptor in (self._pack_fd, self._index_fd):
            if descriptor >= 0:
                with suppress(OSError):
                    os.close(descriptor)

    @property
    def disk_bytes(self) -> int:
        return self.size + self._index_size

    @property
    def is_linked(self) -> bool:
        """Whether both files still have their names."""
        return all(os.fstat(descriptor).st_nlink for descriptor in (self._pack_fd, self._index_fd))

    def read(self, key: bytes, place: int) -> Record | None:
        """The record at `place`, None where it is not the one that was put there; raises OSError."""
        length = place & _LENGTH_MASK
        data = os.pread(self._pack_fd, HEADER_BYTES + length, place >> _LENGTH_BITS)
        if len(data) != HEADER_BYTES + length:
            return None
        found, stored_length, cost_us, stored_key = _RECORD.unpack_from(data)
        view = memoryview(data)
        if stored_key != key or stored_length != length or crc32(view[4:]) != found:
            return None
        return Record(view[HEADER_BYTES:], cost_us)

    def append(self, key: bytes, payload: bytes | memoryview, cost_us: int) -> None:
        """Put one record; raises OSError, and then nothing was put."""
        body = b"".join((_RECORD.pack(0, len(payload), cost_us, key)[4:], payload))
        # Whatever a crash leaves of the two writes is cut off at the next opening, or found wrong when it is read.
        _write(self._pack_fd, crc32(body).to_bytes(4, "little") + body, self.size)
        _write(self._index_fd, _ENTRY.pack(key, self.size, len(payload)), self._index_size)
        self.places[key] = self.size << _LENGTH_BITS | len(payload)
        self.size += 4 + len(body)
        self._index_size += ENTRY_BYTES

    def unlink(self) -> None:
        """Take the names away; who reads goes on reading."""
        for path in self._paths:
            with suppress(OSError):
                path.unlink()

    def _load(self) -> None:
        """Believe the index up to the first entry that does not follow, or speaks of bytes that are not there."""
        pack_size = os.fstat(self._pack_fd).st_size
        index = os.pread(self._index_fd, os.fstat(self._index_fd).st_size, 0)
        if index[: len(MAGIC)] != MAGIC:
            raise OSError(f"{self._paths[1]} is no index of this format")
        count = (len(index) - len(MAGIC)) // ENTRY_BYTES
        entries = np.frombuffer(index, _COLUMNS, count, len(MAGIC))
        offsets, lengths = (entries[name].astype(np.int64) for name in ("offset", "length"))
        stops = offsets + (HEADER_BYTES + lengths)
        follows = (offsets == np.concatenate(([0], stops[:-1]))) & (stops <= pack_size)
        count = count if follows.all() else int(follows.argmin())
        position = len(MAGIC) + count * ENTRY_BYTES
        keys = (index[start : start + KEY_BYTES] for start in range(len(MAGIC), position, ENTRY_BYTES))
        self.places = dict(zip(keys, (offsets << _LENGTH_BITS | lengths).tolist(), strict=False))
        end = int(stops[count - 1]) if count else 0
        self.size, self._index_size = end, position
        # what comes after the last good entry would otherwise be taken for one when the index has grown up to it
        os.ftruncate(self._index_fd, position)
        os.ftruncate(self._pack_fd, end)


def _write(descriptor: int, data: bytes, offset: int) -> None:
    """All of it or an error: a full btrfs answers with a short write."""
    if os.pwrite(descriptor, data, offset) != len(data):
        raise OSError("the file system took only a part of it")
