"""When an interval ends, and from which share of changed elements on a block is made before that."""

import pytest

from opfs.core.cadence import Cadence, Load, load_of
from opfs.core.timestamp import format_time, parse_time
from opfs.errors import InvalidRequest

ENDS = {
    ("every-15-minutes", "2026-11-20T15:04:50.5Z"): "2026-11-20T15:15:00Z",
    ("every-15-minutes", "2026-11-20T15:15:00Z"): "2026-11-20T15:30:00Z",
    ("every-7-minutes", "1970-01-01T00:06:59Z"): "1970-01-01T00:07:00Z",
    ("hourly", "2026-11-20T15:59:59.999999999Z"): "2026-11-20T16:00:00Z",
    ("daily", "2026-12-31T12:00:00Z"): "2027-01-01T00:00:00Z",
    ("weekly", "2026-11-20T15:00:00Z"): "2026-11-23T00:00:00Z",
    ("weekly", "2026-11-23T00:00:00Z"): "2026-11-30T00:00:00Z",
}


def moment(text):
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    return parse_time(f"{seconds}.{fraction:0<9}Z")


@pytest.mark.parametrize(("interval", "begin"), ENDS, ids=" from ".join)
def test_an_interval_ends_when_the_clock_says_so(interval, begin):
    assert format_time(Cadence(interval).end_after(moment(begin))) == format_time(moment(ENDS[interval, begin]))


def test_per_op_has_no_interval():
    assert Cadence().is_per_op
    assert Cadence().end_after(17) == 17


@pytest.mark.parametrize(
    ("interval", "threshold"),
    [("every-0-minutes", "off"), ("every-5-minute", "off"), ("monthly", "off"), ("", "off"), ("hourly", "much")],
)
def test_what_is_no_cadence(interval, threshold):
    with pytest.raises(InvalidRequest):
        Cadence(interval, threshold)


def test_the_load_decides_which_share_is_enough():
    assert [load_of(rate) for rate in (0, 9.9, 10, 99.9, 100)] == [
        Load.LIGHT,
        Load.LIGHT,
        Load.NORMAL,
        Load.NORMAL,
        Load.HEAVY,
    ]
    measured = Cadence("hourly", "auto")
    for rate, enough in ((1, 10), (50, 15), (500, 25)):
        assert not measured.is_reached(enough - 1, 100, rate)
        assert measured.is_reached(enough, 100, rate)
    assert Cadence("hourly", "heavy").is_reached(25, 100, 0)
    assert not Cadence("hourly", "heavy").is_reached(24, 100, 0)


def test_without_a_threshold_only_time_counts():
    assert Cadence("hourly").load(1000) is None
    assert not Cadence("hourly").is_reached(100, 100, 1000)


def test_an_event_that_changes_no_document_reaches_nothing():
    assert not Cadence("hourly", "light").is_reached(0, 0, 0)
