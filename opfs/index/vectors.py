"""vectors.f32: unit vectors, one after another, in a file that only grows and is read through mmap.

A header of 64 bytes, then rows of float32, little-endian. A header names the model by hash, so vectors of
two models never meet. Rows are not synced one by one (on btrfs that makes a fragment each): what lies
beyond the last `sync` is checked by CRC when the index is opened, which is the owner's part (opfs.index.store).

Concurrency: one writer at a time; a view stays valid, with the content it had, whatever is appended later.
"""

from __future__ import annotations

import mmap
import os
import zlib
from typing import TYPE_CHECKING

import numpy as np

from opfs.errors import IntegrityError
from opfs.index.layout import HEADER_BYTES, vector_header

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_FLOAT = np.dtype("<f4")


class VectorFile:
    """An open vectors.f32."""

    def __init__(self, descriptor: int, dimensions: int) -> None:
        self._descriptor = descriptor
        self._dimensions = dimensions
        self._row_bytes = dimensions * _FLOAT.itemsize

    @classmethod
    def create(cls, path: Path, model_id: str, dimensions: int) -> VectorFile:
        """Make an empty file in place of whatever is there; views of the old one stay valid."""
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        _write(descriptor, vector_header(model_id, dimensions), 0)
        return cls(descriptor, dimensions)

    @classmethod
    def open(cls, path: Path, model_id: str, dimensions: int) -> VectorFile:
        """Open an existing file; raises IntegrityError unless it holds this model's vectors."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise IntegrityError(f"{path} cannot be opened: {error.strerror}") from error
        if os.pread(descriptor, HEADER_BYTES, 0) != vector_header(model_id, dimensions):
            os.close(descriptor)
            raise IntegrityError(f"{path} does not hold vectors of {model_id}")
        return cls(descriptor, dimensions)

    @property
    def row_count(self) -> int:
        """Whole rows in the file; a torn last one does not count."""
        return max(0, os.fstat(self._descriptor).st_size - HEADER_BYTES) // self._row_bytes

    def write(self, first_row: int, vectors: NDArray[np.float32]) -> list[int]:
        """Write rows from `first_row` on, over anything that is there; the CRC-32 of each.

        Raises OSError; then rows from `first_row` on are undefined. Never called for rows that are in a view.
        """
        content = np.ascontiguousarray(vectors, dtype=_FLOAT)
        _write(self._descriptor, content.tobytes(), HEADER_BYTES + first_row * self._row_bytes)
        return [zlib.crc32(row.tobytes()) for row in content]

    def checksums(self, first_row: int, end_row: int) -> list[int]:
        """The CRC-32 of each row as it is on disk."""
        return [zlib.crc32(row.tobytes()) for row in self.view(end_row)[first_row:]]

    def view(self, row_count: int) -> NDArray[np.float32]:
        """The first `row_count` rows, read-only, shape (row_count, dimensions), mapped and not copied."""
        size = HEADER_BYTES + row_count * self._row_bytes
        mapped = mmap.mmap(self._descriptor, size, prot=mmap.PROT_READ)
        flat = np.frombuffer(mapped, dtype=_FLOAT, offset=HEADER_BYTES, count=row_count * self._dimensions)
        return flat.reshape(row_count, self._dimensions)

    def truncate(self, row_count: int) -> None:
        """Cut everything after the first rows. Only before any view: a mapped page that goes away kills its reader."""
        os.ftruncate(self._descriptor, HEADER_BYTES + row_count * self._row_bytes)

    def sync(self) -> None:
        """Make the rows written so far survive a power cut."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file; views stay valid. Closing twice does nothing."""
        # Forgotten first: a number closed twice could be another file's by then.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _write(descriptor: int, content: bytes, offset: int) -> None:
    left = memoryview(content)
    while left:
        # A full disk shows as a short write first and as an error on the next call.
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written
