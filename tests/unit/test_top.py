"""What `opfs top` makes of two readings of /metrics."""

from __future__ import annotations

import pytest

from opfs.cli.figures import Between, Page
from opfs.cli.output import aligned, drawn
from opfs.cli.top import lay_out
from opfs.metrics.exposition import Figures, Metrics


@pytest.fixture
def metrics():
    return Metrics(("commit", "search"))


def read(metrics: Metrics, seconds: float, *figures: Figures) -> Page:
    return Page.parse(metrics.render(figures).decode(), seconds)


def test_values_by_name_and_label(metrics):
    elements = Figures("opfs_elements", "Elements.", {("lxc",): 3, ("net",): 4}, ("plugin",))
    page = read(metrics, 0, elements, Figures.one("opfs_head_height", "Head.", 41))
    assert (page.one("opfs_head_height"), page.one("opfs_elements", plugin="net")) == (41, 4)
    assert page.one("opfs_nothing") == 0
    assert page.of_each("opfs_elements", "plugin") == {"lxc": 3, "net": 4}


def test_rates_and_quantiles_are_of_the_time_between(metrics):
    for _ in range(1000):
        metrics.observe("commit", 50.0)
    before = read(metrics, 10.0)
    for duration in [0.002] * 98 + [0.2] * 2:
        metrics.observe("commit", duration)
    between = Between(before, read(metrics, 12.0))
    assert between.rate("op_count_total", quadrant="q0", operation="commit") == 50
    assert (between.quantile_s("commit", 0.5), between.quantile_s("commit", 0.99)) == (0.0025, 0.25)
    assert between.quantile_s("search", 0.5) is None


def test_a_restart_in_between_is_no_negative_rate(metrics):
    metrics.observe("commit", 1)
    before, after = read(metrics, 0), read(Metrics(("commit",)), 1)
    assert Between(before, after).rate("op_count_total", quadrant="q0", operation="commit") == 0
    assert Between(before, after).quantile_s("commit", 0.5) is None


def test_the_page(metrics):
    before = read(metrics, 0)
    metrics.observe("commit", 0.004)
    metrics.observe("search", 100)
    metrics.count_refusal(22)
    pool = Figures("opfs_pool_bytes", "Pool.", {("free",): 2**30, ("total",): 2**32}, ("kind",))
    waiting = Figures(
        "opfs_unsettled_elements",
        "Unsettled.",
        {("net", "waiting"): 1, ("lxc", "waiting"): 2, ("lxc", "drifted"): 0},
        ("plugin", "standing"),
    )
    page = lay_out(Between(before, read(metrics, 1, pool, waiting)), "not ok\x1b[2J")
    lines = [drawn(row) for row in page]
    text = "\n".join(lines)
    assert "\x1b" not in text
    assert "1.00 GiB free of 4.00 GiB" in text
    assert "waiting 3, drifted 0" in text
    assert "refused 1" in text
    (commit,) = (line for line in lines if line.startswith("commit"))
    assert commit.split() == ["commit", "1", "1.0", "5", "ms", "5", "ms"]
    (search,) = (line for line in lines if line.startswith("search"))
    assert "over 60 s" in search


def test_rows_are_aligned_and_cut_by_columns_of_the_terminal():
    rows = aligned([[("\u65e5\u672c", None), ("x", None)], [("abc", "red"), ("\u8a9e" * 3, None)]])
    assert [drawn(row) for row in rows] == ["\u65e5\u672c  x", "abc   \u8a9e\u8a9e\u8a9e"]
    assert [drawn(row, 9) for row in rows] == ["\u65e5\u672c  x", "abc   \u8a9e"], "half a character is none"
    assert [drawn(row, 2) for row in rows] == ["\u65e5", "ab"]
