"""Who may see which event, and in what order: by meaning, by words, and by both; with numpy; pure.

By meaning: the cosine, in float64, so that rounding does not decide; which vectors are the nearest is found elsewhere
(opfs.index.exact). By words: BM25 of texts that the caller chose. By both: the sum of the two, each as a share of what
it can be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

_ROWS_AT_ONCE = 4096


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


def best_with_ties(
    rows: NDArray[np.int64], scores: NDArray[np.float64], limit: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The `limit` rows with the highest scores, best first, and every further row that ties with the last of them."""
    if 0 < limit < len(rows):
        kept = scores >= np.partition(scores, -limit)[-limit]
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((-rows, -scores))
    return rows[order], scores[order]


BM25_K1 = 0.9
BM25_B = 0.3
"""Source: Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009. Sentences differ in length by
how much was changed, not by how much they are about it, so length counts less than usual; measured, see
docs/design/search-quality.md."""


def bm25(
    counts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    *,
    having: NDArray[np.int64],
    total: int,
    mean_length: float,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """The weight of each text for the phrases, more is better.

    `counts` is how often each text has each phrase, shape (texts, phrases), `lengths` its number of words. Of `total`
    texts, `having` have each phrase; `mean_length` is how long these texts are on the average. `weights`, at most 1,
    say how much each phrase counts.
    """
    rarity = _rarity(having, total) * (1.0 if weights is None else weights)
    room = BM25_K1 * (1 - BM25_B + BM25_B * lengths / max(mean_length, 1.0))
    result: NDArray[np.float64] = (counts * (BM25_K1 + 1) / (counts + room[:, np.newaxis])) @ rarity
    return result


def most_possible(having: NDArray[np.int64], *, total: int, weights: NDArray[np.float64]) -> float:
    """What no text's BM25 can exceed, however often it has the phrases; 0 where there are none."""
    return float((_rarity(having, total) * weights).sum() * (BM25_K1 + 1))


def _rarity(having: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    rarity: NDArray[np.float64] = np.log(1 + (total - having + 0.5) / (having + 0.5))
    return rarity


FUSION_DEPTH = 100
"""How many texts of each list are looked at."""
WORDS_SHARE = 0.8
"""What having every word counts beside a cosine of 1; measured, see docs/design/search-quality.md."""


def fuse(cosines: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Meaning and words as one score of each text, at most 1.

    `shares` are the texts' BM25 as shares of what is possible. Source: Bruch, Gai and Ingber, An Analysis of Fusion
    Functions for Hybrid Retrieval, TOIS 2023: sums of scores by known bounds, where ranks would forget how much better
    one is than the next.
    """
    return (cosines + WORDS_SHARE * shares) / (1 + WORDS_SHARE)


def cosines_of(vectors: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cosine of each vector and the query; all are unit vectors."""
    wide = query.astype(np.float64)
    result = np.empty(len(vectors), dtype=np.float64)
    # In slices: there may be very many.
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        part = vectors[start : start + _ROWS_AT_ONCE].astype(np.float64)
        # Sum along each row rather than a matrix product: equal vectors must get equal scores wherever they lie.
        result[start : start + len(part)] = (part * wide).sum(axis=1)
    return result
