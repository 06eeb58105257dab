"""`BlockScores`: one number for each row, and the highest of each block, so that looking for high ones skips most.

Concurrency: threads may fill separate pieces at once; reading comes after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK_ROWS = 256
_LOWEST = np.float32(-1e37)


class BlockScores:
    """float32 for `count` rows, to be filled from multiples of 256 on; at minus infinity is what does not count."""

    def __init__(self, count: int) -> None:
        blocks = -(-count // _BLOCK_ROWS)
        self.values = np.full(blocks * _BLOCK_ROWS, -np.inf, dtype=np.float32)
        self._best = np.full(blocks, -np.inf, dtype=np.float32)

    def close(self, first: int, end: int) -> None:
        """Say that the values of these rows are there, `end` being a multiple of 256 or the count."""
        blocks = slice(first // _BLOCK_ROWS, -(-end // _BLOCK_ROWS))
        of_blocks = self.values[first : blocks.stop * _BLOCK_ROWS].reshape(-1, _BLOCK_ROWS)
        # fmax, so that a number that is none does not hide the others of its block.
        np.fmax.reduce(of_blocks, axis=1, out=self._best[blocks])

    def reaching(self, floor: float) -> NDArray[np.int64]:
        """Rows that are not below `floor`, ascending; never one left out."""
        least = not_above(floor)
        blocks = np.flatnonzero(self._best >= least)
        within, place = np.nonzero(self.values.reshape(-1, _BLOCK_ROWS)[blocks] >= least)
        return blocks[within] * _BLOCK_ROWS + place

    def count_reaching(self, floor: float) -> int:
        """How many rows `reaching` would give."""
        return int(np.count_nonzero(self.values >= not_above(floor)))

    def pieces_reaching(self, floor: float, piece_rows: int) -> list[int]:
        """The first rows of the pieces, of so many rows each, in which any row is not below `floor`."""
        blocks = np.flatnonzero(self._best >= not_above(floor))
        return [number * piece_rows for number in np.unique(blocks * _BLOCK_ROWS // piece_rows).tolist()]

    def highest(self, count: int) -> NDArray[np.int64]:
        """`count` rows with the highest values, or all there are, ascending."""
        rows = self.reaching(kth_highest(self._best, count))
        if len(rows) > count:
            rows = np.sort(rows[np.argpartition(self.values[rows], -count)[-count:]])
        return rows

    def kth(self, count: int) -> float:
        """A number that `count` values reach and no higher one; minus infinity where there are fewer."""
        return kth_highest(self.values[self.highest(count)], count)


def kth_highest(values: NDArray[np.floating[Any]], count: int) -> float:
    """The value at place `count` from the top; minus infinity where there are fewer."""
    return float(np.partition(values, -count)[-count]) if len(values) >= count else -np.inf


def not_above(floor: float) -> np.float32:
    """The floor, rounded down, for comparing float32 with; what is at minus infinity never reaches it."""
    below: np.float32 = np.nextafter(np.float32(max(floor, float(_LOWEST))), np.float32(-np.inf))
    return below
