"""The exact search where few of the rows count, scattered: their layers are fetched row by row.

The same bounds as in opfs.index.exact.scan, of the rows that count and no others, so that nothing is read or
compared that a filter leaves out. Returns candidates; who asks scores them.

Concurrency: a function of immutable views; the threads of one search write to separate parts of its arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from opfs.index.exact.blocks import not_above
from opfs.index.exact.products import SEEDS, find_floor, multiply

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from opfs.index.exact.derived import Derived
    from opfs.index.exact.mapped import MappedRows
    from opfs.index.exact.workers import Workers

_FETCHED_ROWS = 2048


def sift(
    base: MappedRows,
    derived: Derived,
    query: NDArray[np.float64],
    rows: NDArray[np.int64],
    *,
    limit: int,
    few: int,
    workers: Workers,
) -> NDArray[np.int64]:
    """Of the given rows, ascending, those that may be among the `limit` best for a query of length 1, ascending.

    Stops when `few` are left. Rows that `derived` does not cover stay. Raises OSError.
    """
    rows, uncovered = np.split(rows, [np.searchsorted(rows, derived.count)])
    aim = derived.basis.aim(query)
    bounds = np.zeros(len(rows), dtype=np.float32)
    floor = -np.inf
    for layer, factors, margin in zip(derived.layers, aim.factors, aim.margins, strict=True):
        if len(rows) <= few:
            break
        bounds += _products(layer, rows, factors, workers) + margin
        seeds = rows[_highest(bounds, max(SEEDS, 2 * limit))]
        floor = max(floor, find_floor(base, seeds, query, limit, workers))
        reaching = bounds >= not_above(floor)
        rows, bounds = rows[reaching], bounds[reaching]
    return np.concatenate([rows, uncovered])


def _products(
    layer: MappedRows, rows: NDArray[np.int64], factors: NDArray[np.float32], workers: Workers
) -> NDArray[np.float32]:
    products = np.empty(len(rows), dtype=np.float32)

    def work(first: int) -> None:
        part = slice(first, first + _FETCHED_ROWS)
        multiply(layer.take(rows[part]), factors, products[part])

    workers.run(lambda: work, range(0, len(rows), _FETCHED_ROWS))
    return products


def _highest(bounds: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """The places of the highest, ascending."""
    if len(bounds) <= count:
        return np.arange(len(bounds))
    return np.sort(np.argpartition(bounds, -count)[-count:])
