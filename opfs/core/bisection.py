"""Finding the first bad one in a row of which the first are good and the rest bad, with few probes; pure.

Of what cannot be probed nothing is known; then several may be left over at the end, and it is said so.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


class Verdict(Enum):
    """What a probe says."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"


class Bisection(Generic[T]):
    """What is known of `row`, whose last is bad; what comes before its first is good."""

    def __init__(self, row: Sequence[T]) -> None:
        """`row` has at least one."""
        self._row = row
        self._good, self._bad = -1, len(row) - 1
        self._skipped: set[int] = set()
        self.probes = 0

    @property
    def suspects(self) -> Sequence[T]:
        """Those of which one is the first bad one, in their order."""
        return self._row[self._good + 1 : self._bad + 1]

    def next(self) -> T | None:
        """The one to probe now: nearest to the middle of those of which nothing is known; None where none is left."""
        place = self._place()
        return None if place is None else self._row[place]

    def learn(self, verdict: Verdict) -> None:
        """Take in what probing `next()` said."""
        place = self._place()
        if place is None:
            raise ValueError("there is nothing left to probe")
        self.probes += 1
        match verdict:
            case Verdict.GOOD:
                self._good = place
            case Verdict.BAD:
                self._bad = place
            case Verdict.SKIP:
                self._skipped.add(place)

    def _place(self) -> int | None:
        middle = (self._good + self._bad) // 2
        unknown = (place for place in range(self._good + 1, self._bad) if place not in self._skipped)
        return min(unknown, key=lambda place: (abs(place - middle), place), default=None)
