"""What bounds the scores of one search's rows from above: work on a piece of the file, for several threads.

Stage 0 and those after it are the layers of the derived files, each of which lowers the bounds of rows that still
count; opfs.index.exact.basis has the inequalities. The last stage is the row itself, multiplied in float32. Rows that
the derived files do not have are given that from the start.

Concurrency: each call writes to its own piece of the bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from opfs.index.exact.mapped import PIECE_ROWS
from opfs.index.exact.products import multiply

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from opfs.index.exact.basis import Aim
    from opfs.index.exact.blocks import BlockScores
    from opfs.index.exact.derived import Derived
    from opfs.index.exact.mapped import MappedRows

# Fetching a row by itself costs about as much as reading so many in order.
_FETCH_COST = 8
# So much is fetched at once: larger pieces of memory go back to the kernel each time and come back page by page.
_FETCHED_BYTES = 96 << 10
_U = 2.0**-24


@dataclass(frozen=True, slots=True)
class Bounding:
    """The rows of `base` where `mask` holds, against one query of length 1; `aim` is the query in `derived`'s basis."""

    base: MappedRows
    query: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    derived: Derived | None
    aim: Aim | None
    upper: BlockScores

    @property
    def pieces(self) -> range:
        """The first row of each piece."""
        return range(0, self.base.count, PIECE_ROWS)

    @property
    def stages(self) -> range:
        """The layers, and the last stage."""
        return range(len(self.aim.factors) + 1 if self.aim else 1)

    @property
    def covered(self) -> int:
        """Rows before this one have layers."""
        return min(self.derived.count, self.base.count) if self.derived else 0

    @property
    def plain_margin(self) -> np.float32:
        """What a float32 product with a whole row may be off by, a row being at most a thousandth too long."""
        return np.float32((self.base.width + 16) * _U * 1.001)

    def start(self, first: int, *, plainly: bool = False) -> None:
        """Bound the piece from `first` on, by the first layer; `plainly`: by the rows themselves."""
        end = self._end(first)
        bounds = self.upper.values[first:end]
        mask = None if self.mask is None else self.mask[first:end]
        chosen = end - first if mask is None else int(np.count_nonzero(mask))
        if chosen * _FETCH_COST < end - first:
            bounds.fill(-np.inf)
            if chosen and mask is not None:
                where = np.flatnonzero(mask)
                self._put(0, first, end, where, bounds, plainly=plainly)
        else:
            self._put(0, first, end, None, bounds, plainly=plainly)
            if mask is not None:
                np.copyto(bounds, -np.inf, where=~mask)
        self.upper.close(first, end)

    def lower(self, stage: int, first: int, least: np.float32) -> None:
        """Lower the bounds of the piece from `first` on that reach `least`, by a stage after the first."""
        end = self._end(first)
        if first >= self.covered:
            return  # nothing is closer than what these have had from the start
        bounds = self.upper.values[first:end]
        reaching = bounds >= least
        count = int(np.count_nonzero(reaching))
        if not count:
            return
        if count * _FETCH_COST < end - first:
            self._put(stage, first, end, np.flatnonzero(reaching), bounds)
        else:
            left_out = bounds == -np.inf
            self._put(stage, first, end, None, bounds)
            np.copyto(bounds, -np.inf, where=left_out)
        self.upper.close(first, end)

    def _end(self, first: int) -> int:
        return min(first + PIECE_ROWS, self.base.count)

    def _put(
        self,
        stage: int,
        first: int,
        end: int,
        where: NDArray[np.int64] | None,
        bounds: NDArray[np.float32],
        *,
        plainly: bool = False,
    ) -> None:
        """Replace the bounds by those of the stage; all of the piece, or at the given places in it."""
        if plainly or self.derived is None or self.aim is None or first >= self.covered or stage == self.stages[-1]:
            _multiply(self.base.rows(first, end), self.query, where, bounds, add=False)
            margin = self.plain_margin
        else:
            rows = self.derived.layers[stage].rows(first, end)
            _multiply(rows, self.aim.factors[stage], where, bounds, add=stage > 0)
            margin = self.aim.margins[stage]
        if where is None:
            bounds += margin
        else:
            bounds[where] += margin


def _multiply(
    rows: NDArray[np.float32],
    factors: NDArray[np.float32],
    where: NDArray[np.int64] | None,
    bounds: NDArray[np.float32],
    *,
    add: bool,
) -> None:
    if where is None:
        products = np.empty_like(bounds) if add else bounds
        multiply(rows, factors, products)
        if add:
            bounds += products
        return
    step = _FETCHED_BYTES // (rows.shape[1] * rows.itemsize)
    for start in range(0, len(where), step):
        part = where[start : start + step]
        products = np.vecdot(rows[part], factors)
        bounds[part] = bounds[part] + products if add else products
