"""Fixed-size records, one after another, in a file that only grows and is read through mmap.

A header of 64 bytes names what is in the file, so that records of two kinds never meet. Records are not synced one by
one (on btrfs that makes a fragment each): how many have reached the disk is the owner's to know, and to check the
rest. Knows neither events nor vectors.

Concurrency: one writer at a time; a view, which any thread may ask for, keeps the content it had, whatever is written
behind it later.
"""

from __future__ import annotations

import mmap
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from opfs.errors import IntegrityError
from opfs.index.exact.mapped import MappedRows
from opfs.index.exact.residence import address_of, make_resident
from opfs.index.layout import HEADER_BYTES, record_header

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class PackedFile:
    """An open file of records of one kind; `shape` is that of one record, () for a number."""

    def __init__(self, descriptor: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._descriptor = descriptor
        self._dtype = dtype
        self._shape = shape
        self._record_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        self._mapping = threading.Lock()
        self._mapped: NDArray[Any] = np.empty((0, *shape), dtype)

    @classmethod
    def create(cls, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], what: str) -> PackedFile:
        """Make an empty file in place of whatever is there; views of the old one stay valid."""
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        file = cls(descriptor, dtype, shape)
        try:
            _write(descriptor, record_header(what, file._record_bytes), 0)
        except OSError:
            file.close()
            raise
        return file

    @classmethod
    def open(
        cls, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], what: str, *, writable: bool = True
    ) -> PackedFile:
        """Open an existing file; raises IntegrityError unless it holds what it is to hold."""
        try:
            descriptor = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise IntegrityError(f"{path} cannot be opened: {error.strerror}") from error
        file = cls(descriptor, dtype, shape)
        if os.pread(descriptor, HEADER_BYTES, 0) != record_header(what, file._record_bytes):
            file.close()
            raise IntegrityError(f"{path} does not hold {what}")
        return file

    @property
    def count(self) -> int:
        """Whole records in the file; a torn last one does not count."""
        return max(0, os.fstat(self._descriptor).st_size - HEADER_BYTES) // self._record_bytes

    def write(self, first: int, records: NDArray[Any]) -> None:
        """Write records from `first` on, over anything that is there.

        Raises OSError; then records from `first` on are undefined. Never called for records that are in a view.
        """
        content = np.ascontiguousarray(records, dtype=self._dtype)
        if content.shape[1:] != self._shape:
            raise ValueError(f"records of shape {content.shape[1:]}, not {self._shape}")
        _write(self._descriptor, content.tobytes(), HEADER_BYTES + first * self._record_bytes)

    def view(self, count: int) -> NDArray[Any]:
        """The first `count` records, read-only, mapped and in memory; raises OSError."""
        with self._mapping:
            if count > len(self._mapped):
                self._mapped = self._map()
            if count > len(self._mapped):
                raise IntegrityError(f"a file of the index has {len(self._mapped)} records, not {count}")
            records = self._mapped[:count]
        make_resident(address_of(records), records.nbytes)
        return records

    def _map(self) -> NDArray[Any]:
        count = self.count
        mapped = mmap.mmap(self._descriptor, HEADER_BYTES + count * self._record_bytes, prot=mmap.PROT_READ)
        numbers = count * self._record_bytes // self._dtype.itemsize
        return np.frombuffer(mapped, self._dtype, numbers, HEADER_BYTES).reshape(count, *self._shape)

    def rows(self, count: int, before: MappedRows | None = None) -> MappedRows:
        """The first `count` records as rows, for a file too large to be mapped anew; `before` is an older view."""
        if before is not None:
            return before.grown(self._descriptor, count)
        (width,) = self._shape
        return MappedRows.of(self._descriptor, count=count, width=width, offset_bytes=HEADER_BYTES, dtype=self._dtype)

    @property
    def size_bytes(self) -> int:
        return os.fstat(self._descriptor).st_size

    def truncate(self, count: int) -> None:
        """Cut everything after the first records. Only before any view: a page that goes away kills its reader."""
        os.ftruncate(self._descriptor, HEADER_BYTES + count * self._record_bytes)

    def sync(self) -> None:
        """Make the records written so far survive a power cut."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file; views stay valid. Closing twice does nothing."""
        # Forgotten first: a number closed twice could be another file's by then.
        with self._mapping:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _write(descriptor: int, content: bytes, offset: int) -> None:
    left = memoryview(content)
    while left:
        # A full disk shows as a short write first and as an error on the next call.
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written
