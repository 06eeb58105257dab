"""Who may see which event, and which events are nearest to a query: exact, with numpy; pure.

One pass over all vectors at the speed of memory, in float32; the few that could be among the best are then
scored again in float64, so rounding never decides the order. Chooses no candidates by approximation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

# Enough for the maxima to be few, small enough for the bound they give to be tight.
_BLOCK_SCORES = 256
_RESCORE_ROWS = 4096


def readable_by(
    uid: int, gids: Collection[int], *, uids: NDArray[np.uint32], groups: NDArray[np.uint32], modes: NDArray[np.uint16]
) -> NDArray[np.bool_]:
    """Which files of the given owner, group and mode the user may read.

    As path_resolution(7): root reads everything, and only the first class that fits (owner, group, other) counts.
    """
    if uid == 0:
        return np.ones(len(uids), dtype=np.bool_)
    in_group = np.isin(groups, np.fromiter(gids, dtype=np.uint32, count=len(gids)))
    needed = np.where(uids == uid, 0o400, np.where(in_group, 0o040, 0o004))
    allowed: NDArray[np.bool_] = (modes & needed) != 0
    return allowed


def nearest(
    vectors: NDArray[np.float32],
    query: NDArray[np.float32],
    *,
    rows: NDArray[np.uint32],
    readable: NDArray[np.bool_] | None,
    limit: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Positions and cosines of the `limit` best events, best first, ties by the later position.

    `vectors` holds unit vectors, shape (n, d), and `query` is one; `rows[i]` is the row of event i, so events
    may share a vector. `readable` leaves out events where it is False; None means all may be read.
    """
    if limit < 1 or not len(rows):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64)
    scores = np.vecdot(vectors, query)[rows]
    if readable is not None:
        np.copyto(scores, -np.inf, where=~readable)
    # A float32 dot product of d terms of unit vectors is off by at most d * 2**-24 (Higham, section 3.1), and
    # so is the bound it is compared with. Twice that again, for vectors that are unit to six digits only.
    margin = 4 * vectors.shape[1] * 2.0**-24
    near = np.flatnonzero(scores >= max(_lower_bound(scores, limit) - margin, -2.0))
    if len(near) > limit:
        kth_best = np.partition(scores[near], -limit)[-limit]
        near = near[scores[near] >= kth_best - margin]
    distinct, which = np.unique(rows[near], return_inverse=True)
    exact = _exact_scores(vectors, query, distinct)[which]
    best = np.lexsort((-near, -exact))[:limit]
    return near[best], exact[best]


def _lower_bound(scores: NDArray[np.float32], limit: int) -> float:
    """A number that at least `limit` scores reach; minus infinity where there are fewer."""
    if len(scores) <= limit:
        return -np.inf
    block_count = len(scores) // _BLOCK_SCORES
    if block_count < 2 * limit:
        return float(np.partition(scores, -limit)[-limit])
    # Each of these maxima is a score, so the limit-th of them is reached by as many scores.
    maxima = scores[: block_count * _BLOCK_SCORES].reshape(block_count, _BLOCK_SCORES).max(axis=1)
    return float(np.partition(maxima, -limit)[-limit])


def _exact_scores(
    vectors: NDArray[np.float32], query: NDArray[np.float32], rows: NDArray[np.uint32]
) -> NDArray[np.float64]:
    wide = query.astype(np.float64)
    result = np.empty(len(rows), dtype=np.float64)
    # In slices: when many events say nearly the same, all of them are near.
    for start in range(0, len(rows), _RESCORE_ROWS):
        part = rows[start : start + _RESCORE_ROWS]
        # Sum along each row rather than a matrix product: equal vectors must get equal scores wherever they lie.
        result[start : start + len(part)] = (vectors[part].astype(np.float64) * wide).sum(axis=1)
    return result
