"""What `opfs search` tells of an index that is behind and lets them wait."""

from __future__ import annotations

import pytest

from opfs.cli.search import WORTH_SAYING, _what_it_waits_for
from opfs.core.lag import IndexLag, parse_lag


@pytest.mark.parametrize(
    "lag", [IndexLag(0, 0, 0), IndexLag(12, 3, 3), IndexLag(12, 0, 5), IndexLag(10**6, 10**5, 10**6)]
)
def test_the_line_of_the_status_page_is_read_as_it_is_written(lag: IndexLag):
    assert parse_lag(str(lag)) == lag


@pytest.mark.parametrize(
    "line", ["", "the disk is full", "12 events", "12 events, 3 behind; why", "x 12 events, 3 behind"]
)
def test_another_line_says_nothing_of_a_lag(line: str):
    assert parse_lag(line) is None
    assert _what_it_waits_for(line, by_meaning=True) == ""


def test_who_waits_long_is_told_for_how_many_events():
    line = str(IndexLag(5000, WORTH_SAYING, WORTH_SAYING + 1))
    assert f" {WORTH_SAYING} events behind" in _what_it_waits_for(line, by_meaning=False)
    assert f" {WORTH_SAYING + 1} events behind" in _what_it_waits_for(line, by_meaning=True)


def test_a_moment_is_not_worth_a_line():
    assert _what_it_waits_for(str(IndexLag(5000, 0, WORTH_SAYING - 1)), by_meaning=True) == ""
    assert _what_it_waits_for(str(IndexLag(5000, 0, WORTH_SAYING)), by_meaning=False) == ""
