"""How good a ranking is: recall, reciprocal rank, discounted gain, and how sure one may be of a mean. Pure.

`grades` are of the relevant items alone; an item that has none counts 0. Grade 3 is an answer, 2 nearly one. The gain
is 2^grade - 1 and the discount log2(rank + 1), as Burges et al. 2005 have it; ranks begin at 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ANSWER = 3
DEPTH = 10


def recall(ranking: Sequence[int], grades: Mapping[int, int], depth: int = DEPTH) -> float:
    """The share of the answers among the first `depth`, of as many as have room there."""
    answers = {item for item, grade in grades.items() if grade >= ANSWER}
    return len(answers & set(ranking[:depth])) / min(depth, len(answers))


def reciprocal_rank(ranking: Sequence[int], grades: Mapping[int, int], depth: int = DEPTH) -> float:
    """One by the rank of the first answer; 0 where none is among the first `depth`."""
    return next((1 / rank for rank, item in enumerate(ranking[:depth], 1) if grades.get(item, 0) >= ANSWER), 0.0)


def ndcg(ranking: Sequence[int], grades: Mapping[int, int], depth: int = DEPTH) -> float:
    """Discounted gain of the first `depth`, as a share of that of the best order."""
    found = _gain([grades.get(item, 0) for item in ranking[:depth]])
    return found / _gain(sorted(grades.values(), reverse=True)[:depth])


def _gain(grades: Sequence[int]) -> float:
    return sum((2**grade - 1) / math.log2(rank + 1) for rank, grade in enumerate(grades, 1))


def interval(values: Sequence[float], *, samples: int = 2000, seed: int = 1) -> tuple[float, float]:
    """Where the mean lies with 95 %, by the percentile bootstrap over questions (Efron and Tibshirani, chapter 13)."""
    array = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(array), size=(samples, len(array)))
    low, high = np.percentile(array[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
