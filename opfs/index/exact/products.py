"""Scalar products of many rows with one vector, in float32 for bounds and in float64 for scores.

Thread-safe; a call uses one thread and the workers that it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from opfs.index.exact.blocks import kth_highest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from opfs.index.exact.mapped import MappedRows
    from opfs.index.exact.workers import Workers

# A matrix of this many numbers stays in the nearest cache, and OpenBLAS starts no threads of its own for it.
_BLOCK_NUMBERS = 8192
_SCORED_ROWS = 512
# float64 dot products of unit vectors are off by far less.
_FLOAT64_MARGIN = 1e-12
SEEDS = 32
"""So many rows with the highest bounds are scored for a floor, or twice as many as are asked for."""


def multiply(rows: NDArray[np.float32], factors: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """The product of every row with the factors, for bounds: what float32 is off by depends on where a row is."""
    # As many small matrix-vector products: half as much again of the speed of a product for each short row.
    block = max(1, _BLOCK_NUMBERS // rows.shape[1])
    whole = len(rows) // block * block
    np.matmul(rows[:whole].reshape(-1, block, rows.shape[1]), factors, out=out[:whole].reshape(-1, block))
    np.vecdot(rows[whole:], factors, out=out[whole:])


def score(
    base: MappedRows, rows: NDArray[np.int64], query: NDArray[np.float64], workers: Workers
) -> NDArray[np.float64]:
    """Dot products in float64 with the given rows, ascending; equal rows get equal scores, wherever they lie."""
    scores = np.empty(len(rows), dtype=np.float64)

    def work(first: int) -> None:
        part = slice(first, first + _SCORED_ROWS)
        # Row by row, not a matrix product: that adds in an order which depends on the row's place.
        np.vecdot(base.take(rows[part]).astype(np.float64), query, out=scores[part])

    with np.errstate(invalid="ignore"):
        workers.run(lambda: work, range(0, len(rows), _SCORED_ROWS))
    return scores


def find_floor(
    base: MappedRows, rows: NDArray[np.int64], query: NDArray[np.float64], limit: int, workers: Workers
) -> float:
    """What the scores of `limit` rows reach, found among the given ones; minus infinity where these are fewer."""
    scores = score(base, rows, query, workers)
    return kth_highest(scores[np.isfinite(scores)], limit) - _FLOAT64_MARGIN
