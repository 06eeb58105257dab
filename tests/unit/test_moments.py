"""Times and blocks as people say them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.moments import AtHash, AtHeight, AtTime, parse_when
from opfs.core.timestamp import NS_PER_S, format_time, parse_moment
from opfs.errors import InvalidRequest

NOW = 1_800_000_000 * NS_PER_S


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("0", AtHeight(0)),
        ("41", AtHeight(41)),
        ("00000042", AtHeight(42)),
        ("00000042-9f86d081884c", AtHeight(42, "9f86d081884c")),
        ("9f86d081884c", AtHash("9f86d081884c")),
        ("9F86", AtHash("9f86")),
        ("2026-11-03", AtTime(parse_moment("2026-11-03"))),
        ("2026-11-03T14:00:12+01:00", AtTime(parse_moment("2026-11-03T14:00:12+01:00"))),
        ("now", AtTime(NOW)),
        ("Yesterday", AtTime(NOW - 86_400 * NS_PER_S)),
        ("2 hours ago", AtTime(NOW - 7200 * NS_PER_S)),
        ("2_hours_ago", AtTime(NOW - 7200 * NS_PER_S)),
        ("an hour ago", AtTime(NOW - 3600 * NS_PER_S)),
        ("a week ago", AtTime(NOW - 604_800 * NS_PER_S)),
        ("one day ago", AtTime(NOW - 86_400 * NS_PER_S)),
        ("90m ago", AtTime(NOW - 5400 * NS_PER_S)),
        ("15min ago", AtTime(NOW - 900 * NS_PER_S)),
        ("1d ago", AtTime(NOW - 86_400 * NS_PER_S)),
        (" 3 months ago ", AtTime(NOW - 3 * 2_592_000 * NS_PER_S)),
    ],
)
def test_what_is_understood(text, when):
    assert parse_when(text, NOW) == when


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "2 hours", "hours ago", "2 moons ago", "abc", "2026-13-01", "-1", "1.5 hours ago", "xyz ago"],
)
def test_what_is_not_is_refused_with_examples(text):
    with pytest.raises(InvalidRequest, match=r"e\.g\."):
        parse_when(text, NOW)


@given(st.text(max_size=60))
def test_nothing_else_can_happen(text):
    with suppress(InvalidRequest):
        parse_when(text, NOW)


@pytest.mark.parametrize("text", ["0001-01-01T00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_times_outside_the_calendar_are_no_times(text):
    with pytest.raises(InvalidRequest, match="is not a time"):
        parse_when(text, NOW)


@pytest.mark.parametrize("text", ["999999999 years ago", "0001-01-01", "9999-12-31T23:59:59.999999999Z"])
def test_the_ends_of_time_can_be_told(text):
    when = parse_when(text, NOW)
    assert len(format_time(when.time_ns)) == len("2026-11-03T14:00:00.123456789Z")
