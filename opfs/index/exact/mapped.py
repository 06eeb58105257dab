"""`MappedRows`: rows of equal width in a file that grows at its end, mapped in pieces that stay.

A new map of a file has no page tables, so touching a GB of it again costs 0.1 s even if all is in memory. So the
file is mapped in pieces of PIECE_ROWS, and growing maps only the last one anew. Reading asks for the pages first
(opfs.index.exact.residence). Never writes, and does not own the descriptor.

Concurrency: immutable, so any number of threads may read; a view stays valid whatever is appended and after the
descriptor is closed. Nobody may cut the file below a view: a mapped page that goes away kills its reader.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from opfs.index.exact.residence import address_of, make_resident, make_rows_resident

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

PIECE_ROWS = 8192

# Asking for one row costs about as much as asking for so much that is there already.
_BYTES_PER_REQUEST = 200_000


@dataclass(frozen=True, slots=True)
class MappedRows:
    """The first `count` rows, each of `width` numbers of `dtype`, that begin at `offset_bytes` of the file."""

    count: int
    width: int
    dtype: np.dtype[Any]
    offset_bytes: int
    _pieces: tuple[NDArray[Any], ...]
    _addresses: tuple[int, ...]

    @classmethod
    def of(
        cls, descriptor: int, *, count: int, width: int, offset_bytes: int = 0, dtype: DTypeLike = "<f4"
    ) -> MappedRows:
        """Map `count` rows, all of which the file must have; raises OSError, ValueError for a shorter file."""
        return cls(0, width, np.dtype(dtype), offset_bytes, (), ()).grown(descriptor, count)

    def grown(self, descriptor: int, count: int) -> MappedRows:
        """The same rows and those appended since; `count` may also be smaller."""
        kept = min(self.count, count) // PIECE_ROWS
        starts = range(kept * PIECE_ROWS, count, PIECE_ROWS)
        new = tuple(self._map(descriptor, first, min(first + PIECE_ROWS, count)) for first in starts)
        addresses = (*self._addresses[:kept], *map(address_of, new))
        return replace(self, count=count, _pieces=(*self._pieces[:kept], *new), _addresses=addresses)

    def prefix(self, count: int) -> MappedRows:
        """The first `count` of these rows."""
        if not 0 <= count <= self.count:
            raise ValueError(f"a prefix of {count} of {self.count} rows")
        pieces = -(-count // PIECE_ROWS)
        return replace(self, count=count, _pieces=self._pieces[:pieces], _addresses=self._addresses[:pieces])

    def rows(self, first: int, end: int) -> NDArray[Any]:
        """Rows `first` to `end` of one piece, in memory, not copied; raises OSError."""
        number, start = divmod(first, PIECE_ROWS)
        if not first < end <= min((number + 1) * PIECE_ROWS, self.count):
            raise ValueError(f"rows {first} to {end} of {self.count} are not within one piece of {PIECE_ROWS}")
        make_resident(self._addresses[number] + start * self._row_bytes, (end - first) * self._row_bytes)
        return self._pieces[number][start : start + end - first]

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """A copy of the given rows, which are ascending; raises OSError, IndexError."""
        if len(rows) and not 0 <= rows[0] <= rows[-1] < self.count:
            raise IndexError(f"rows {rows[0]} to {rows[-1]} of {self.count}")
        result = np.empty((len(rows), self.width), dtype=self.dtype)
        starts = np.searchsorted(rows, np.arange(len(self._pieces) + 1) * PIECE_ROWS)
        numbers = np.flatnonzero(np.diff(starts)).tolist()
        within, starts = rows % PIECE_ROWS, starts.tolist()
        for number in numbers:
            first, end = starts[number], starts[number + 1]
            piece, inside = self._pieces[number], within[first:end]
            if len(inside) * _BYTES_PER_REQUEST < piece.nbytes:
                make_rows_resident(self._addresses[number], self._row_bytes, inside)
            else:
                make_resident(self._addresses[number], piece.nbytes)
            piece.take(inside, axis=0, out=result[first:end], mode="clip")
        return result

    @property
    def _row_bytes(self) -> int:
        return self.width * self.dtype.itemsize

    def _map(self, descriptor: int, first: int, end: int) -> NDArray[Any]:
        row_bytes = self._row_bytes
        start = self.offset_bytes + first * row_bytes
        # A map begins at a page.
        before = start % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(descriptor, before + (end - first) * row_bytes, prot=mmap.PROT_READ, offset=start - before)
        flat = np.frombuffer(mapped, dtype=self.dtype, offset=before, count=(end - first) * self.width)
        return flat.reshape(end - first, self.width)
