"""Finding the first bad one with few probes."""

from __future__ import annotations

from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.bisection import Bisection, Verdict


def search(row, verdict_of):
    bisection = Bisection(row)
    asked = []
    while (item := bisection.next()) is not None:
        asked.append(item)
        bisection.learn(verdict_of(item))
    assert len(asked) == len(set(asked)) == bisection.probes
    return bisection


@given(st.integers(1, 3000), st.data())
def test_it_is_found_with_as_few_probes_as_halving_takes(length, data):
    first_bad = data.draw(st.integers(0, length - 1))
    found = search(range(length), lambda item: Verdict.GOOD if item < first_bad else Verdict.BAD)
    assert list(found.suspects) == [first_bad]
    assert found.probes <= ceil(log2(length))


@given(st.integers(1, 60), st.data())
def test_what_is_skipped_leaves_no_more_suspects_than_it_must(length, data):
    first_bad = data.draw(st.integers(0, length - 1))
    skipped = data.draw(st.sets(st.integers(0, length - 1)))

    def verdict_of(item):
        if item in skipped:
            return Verdict.SKIP
        return Verdict.GOOD if item < first_bad else Verdict.BAD

    found = search(range(length), verdict_of)
    good = max((item for item in range(first_bad) if item not in skipped), default=-1)
    bad = min(item for item in [*range(first_bad, length - 1), length - 1] if item not in skipped or item == length - 1)
    assert list(found.suspects) == list(range(good + 1, bad + 1))


def test_one_alone_needs_no_probe():
    assert Bisection(["a"]).next() is None
    assert Bisection(["a"]).suspects == ["a"]
    with pytest.raises(ValueError, match="nothing left"):
        Bisection(["a"]).learn(Verdict.BAD)
