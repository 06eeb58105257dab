"""The exact search: which rows are nearest to a query, by bounds first and by float64 at the end.

The first layer of all rows (opfs.index.exact.basis) gives an upper bound of every score. The true scores of a few rows
with the highest bounds give a floor, which as many rows as are asked for reach. The next layer lowers the bounds of
the rows that still reach the floor, which raises the floor, and so on; then float32, for those of which many are left.
What remains, a few dozen rows as a rule, is scored in float64.

A row is dropped only when its bound, rounding included, is below what `limit` other rows are known to reach, so the
result is that of scoring everything. Where a sample shows that the layers would rule out little, as for a vector that
is no text's, the base file is read at once.

Concurrency: a search is a function of immutable views; the threads of one write to separate parts of its arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from opfs.index.exact.blocks import BlockScores, not_above
from opfs.index.exact.bounding import Bounding
from opfs.index.exact.mapped import PIECE_ROWS
from opfs.index.exact.products import SEEDS, find_floor, score
from opfs.index.exact.sift import sift

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from opfs.index.exact.derived import Derived
    from opfs.index.exact.mapped import MappedRows
    from opfs.index.exact.workers import Workers

# So few are scored at once: bounding them would cost more.
_FEW_ROWS = 512
_FEW_SELECTED = 16_384
"""As few, where nothing is derived."""
_SCATTERED = 16
"""Where one row of so many counts, fetching their layers row by row costs less than reading all."""
FEWEST_LAYERED = 8 * PIECE_ROWS
"""With fewer rows, a pass over all of them takes less than what the layers save."""
_FEW_SEEDS = 6
_FEW_LOWERED = 60_000
"""Of so few rows each piece has little to do, and two threads wait for the interpreter more than they work."""
_SAMPLED_PIECES = 32
"""One piece of so many is in the sample."""
_MUCH_LEFT = 0.1
"""Where the layers leave a greater share than this, they cost more than they save."""


def nearest(
    base: MappedRows,
    derived: Derived | None,
    query: NDArray[np.float32],
    *,
    mask: NDArray[np.bool_] | None,
    limit: int,
    workers: Workers,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The `limit` best rows where `mask` holds, and every further row that ties with the last; best first.

    Of equal ones the lower row is first. `derived` may cover fewer or more rows than `base`. Rows with a number
    that is not finite are never found.
    """
    wide = query.astype(np.float64)
    if wide.shape != (base.width,) or not np.isfinite(wide).all():
        raise ValueError(f"a query is {base.width} finite numbers")
    if mask is not None and mask.shape != (base.count,):
        raise ValueError(f"a mask of shape {mask.shape} for {base.count} rows")
    selected = base.count if mask is None else int(np.count_nonzero(mask))
    if min(limit, selected) < 1:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64)
    length = float(np.linalg.norm(wide))
    derived = derived if base.count >= FEWEST_LAYERED else None
    few = max(_FEW_ROWS, 2 * limit)
    if length == 0 or selected <= few or (selected <= _FEW_SELECTED and derived is None):
        rows = np.arange(base.count) if mask is None else np.flatnonzero(mask)
    elif derived is not None and mask is not None and selected * _SCATTERED <= base.count:
        rows = sift(base, derived, wide / length, np.flatnonzero(mask), limit=limit, few=few, workers=workers)
    else:
        unit = wide / length
        aim = derived.basis.aim(unit) if derived else None
        bounding = Bounding(base, unit.astype(np.float32), mask, derived, aim, BlockScores(base.count))
        rows = _Search(bounding, unit, limit, workers).candidates()
    scores = score(base, rows, wide, workers)
    return _best(rows, scores, limit)


def _best(
    rows: NDArray[np.int64], scores: NDArray[np.float64], limit: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    usable = np.isfinite(scores)
    rows, scores = rows[usable], scores[usable]
    if len(scores) > limit:
        reaching = scores >= np.partition(scores, -limit)[-limit]
        rows, scores = rows[reaching], scores[reaching]
    order = np.lexsort((rows, -scores))
    return rows[order], scores[order]


@dataclass(frozen=True, slots=True)
class _Search:
    bounding: Bounding
    query: NDArray[np.float64]
    limit: int
    workers: Workers

    def candidates(self) -> NDArray[np.int64]:
        """Rows, ascending, among which all of the best are."""
        bounding = self.bounding
        *layers, plain = bounding.stages
        covered = [first for first in bounding.pieces if first < bounding.covered]
        sample = covered[::_SAMPLED_PIECES] if len(covered) > 1 else []
        floor, sampled_stage, left = self._sample(sample, layers)
        if left > _MUCH_LEFT:
            self.workers.run(lambda: lambda first: bounding.start(first, plainly=True), bounding.pieces)
            return self._closest(floor)
        is_sampled = frozenset(sample)
        rest = [first for first in bounding.pieces if first not in is_sampled]
        self.workers.run(lambda: bounding.start, rest)
        for stage in layers[1:]:
            floor = max(floor, self._floor(max(SEEDS, 2 * self.limit)))
            count = bounding.upper.count_reaching(floor)
            if count <= _FEW_ROWS:
                return bounding.upper.reaching(floor)
            self._lower(stage, floor, count, left_out=is_sampled if stage <= sampled_stage else frozenset())
        if layers:
            floor = max(floor, self._floor(max(SEEDS, 2 * self.limit)))
            count = bounding.upper.count_reaching(floor)
            if count <= _FEW_ROWS:
                return bounding.upper.reaching(floor)
            self._lower(plain, floor, count)
        return self._closest(floor)

    def _sample(self, pieces: Sequence[int], layers: Sequence[int]) -> tuple[float, int, float]:
        """Look at some pieces, layer by layer while much is left of them.

        A floor, the last layer that was looked at, and the share of rows that reach the floor.
        """
        if not pieces:
            return -np.inf, -1, 0.0
        bounding, floor = self.bounding, -np.inf
        self.workers.run(lambda: bounding.start, pieces)
        chosen = count = bounding.upper.count_reaching(-np.inf)
        for stage in layers:
            if stage > 0:
                self._lower(stage, floor, count)
            floor = max(floor, self._floor(self.limit + _FEW_SEEDS))
            count = bounding.upper.count_reaching(floor)
            if count <= _MUCH_LEFT * chosen:
                break
        return floor, stage, count / max(chosen, 1)

    def _lower(self, stage: int, floor: float, count: int, left_out: frozenset[int] = frozenset()) -> None:
        """Lower the bounds of the `count` rows that reach the floor."""
        least = not_above(floor)
        pieces = [first for first in self.bounding.upper.pieces_reaching(floor, PIECE_ROWS) if first not in left_out]
        if count <= _FEW_LOWERED:
            for first in pieces:
                self.bounding.lower(stage, first, least)
            return
        self.workers.run(lambda: lambda first: self.bounding.lower(stage, first, least), pieces)

    def _floor(self, count: int) -> float:
        """What the scores of `limit` rows reach, found among `count` with the highest bounds."""
        highest = self.bounding.upper.highest(count)
        return find_floor(self.bounding.base, highest, self.query, self.limit, self.workers)

    def _closest(self, floor: float) -> NDArray[np.int64]:
        """Rows that may be among the best where those that reach the floor are bounded by their own product."""
        kth = self.bounding.upper.kth(self.limit) - 2 * float(self.bounding.plain_margin)
        return self.bounding.upper.reaching(max(floor, kth))
