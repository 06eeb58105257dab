"""The pure parts of the claims: what is judged how, the plots, the page; and one small run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as xml
from itertools import pairwise
from pathlib import Path

import pytest

from opfs.claims import embedding, growth, lookup, memory, pagecache, rollback, sending, vectors
from opfs.claims.claim import Bars, Finding, Lines, Series, Table, Verdict
from opfs.claims.page import plots_of, render
from opfs.claims.plot import HEIGHT, WIDTH, draw
from opfs.claims.residency import resident_share
from opfs.claims.samples import Sample, in_bytes, in_ms
from opfs.claims.suite import CLAIMS


def sample(*seconds: float) -> Sample:
    made = Sample()
    made.seconds = list(seconds)
    return made


# --- figures


def test_quantiles_are_of_the_nearest_rank():
    hundred = sample(*(number / 1000 for number in range(100, 0, -1)))
    assert (hundred.p50_s, hundred.p99_s, hundred.quantile_s(1.0)) == (0.050, 0.099, 0.100)
    assert sample(3.0).p99_s == sample(3.0).p50_s == 3.0
    assert (in_ms(0.0000123), in_ms(0.012345), in_ms(1.27)) == ("12.3 µs", "12.3 ms", "1.27 s")
    assert (in_bytes(600), in_bytes(222 << 10), in_bytes(3 << 30)) == ("600 B", "222 KiB", "3 GiB")


# --- verdicts


def test_the_cache_has_to_be_a_hundred_times_as_fast():
    assert embedding.judge(sample(0.004), sample(0.000004)).verdict == Verdict.TRUE
    assert embedding.judge(sample(0.004), sample(0.0001)).verdict == Verdict.FALSE


def kept(once: tuple[float, float, float], thrice: tuple[float, float, float]) -> pagecache.Kept:
    rows = dict(zip(pagecache.READS, (once, thrice), strict=True))
    return {(read, where): rows[read][n] for read in rows for n, where in enumerate(pagecache.WRITES)}


@pytest.mark.parametrize(
    ("once", "thrice", "verdict"),
    [
        ((1, 0.0, 0.05), (1, 1.0, 1.0), Verdict.PLACEBO),
        ((1, 0.0, 0.95), (1, 1.0, 1.0), Verdict.TRUE),
        ((1, 0.97, 0.99), (1, 1.0, 1.0), Verdict.UNKNOWN),
    ],
)
def test_another_subvolume_has_to_save_pages(once, thrice, verdict):
    assert pagecache.judge(kept(once, thrice), 0.0).verdict == verdict


def test_zstd_has_to_save_what_was_claimed_and_files_no_room():
    def verdict(saving: float, file_bytes: float) -> Verdict:
        return vectors.judge([saving] * 4, Table((), ()), Table((), ()), 1600.0, file_bytes, "vectors").verdict

    assert (verdict(0.07, 4000), verdict(0.65, 4000), verdict(0.65, 1600)) == (
        Verdict.PLACEBO,
        Verdict.PLACEBO,
        Verdict.TRUE,
    )


def stages(*milliseconds: tuple[int, float, float, float]) -> list[growth.Stage]:
    """(snapshots, of a commit, of a snapshot, KiB of a block)."""
    return [
        growth.Stage(count, sample(commit / 1000), sample(shot / 1000), kib * 1024)
        for count, commit, shot, kib in milliseconds
    ]


def test_snapshots_in_a_millisecond():
    fast, slow = (1, 0.1, 0.5, 0), (1000, 9, 5, 0)
    assert growth.judge_snapshots(stages(fast, fast), sample(0.02)).verdict == Verdict.TRUE
    assert growth.judge_snapshots(stages(fast, fast), sample(0.002)).verdict == Verdict.PARTLY
    assert growth.judge_snapshots(stages(fast, slow), sample(0.02)).verdict == Verdict.PARTLY
    assert growth.judge_snapshots(stages(slow, slow), sample(0.02)).verdict == Verdict.FALSE


def test_many_snapshots_cost():
    assert growth.judge_cost(stages((1, 3, 1, 0), (100, 3, 1, 200), (1000, 9, 1, 210))).verdict == Verdict.FALSE
    flat = growth.judge_cost(stages((1, 3, 1, 0), (100, 3, 1, 200), (1000, 3.1, 1, 210)))
    assert flat.verdict == Verdict.PARTLY
    assert [type(plot) for plot in flat.plots] == [Lines, Lines]


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([(10, 1000, 50), (100, 10000, 500)], Verdict.TRUE),
        ([(10, 1000, 900), (100, 10000, 500)], Verdict.PARTLY),
        ([(10, 1000, 2000)], Verdict.FALSE),
    ],
)
def test_copy_on_write_has_to_save_nine_tenths(found, verdict):
    assert growth.judge_saving(found).verdict == verdict


def test_lookups_deltas_and_rollbacks():
    assert lookup.judge([(10, sample(0.00001)), (20, sample(0.00002))]).verdict == Verdict.TRUE
    assert lookup.judge([(10, sample(*[0.00001] * 50, 0.001))]).verdict == Verdict.PARTLY
    assert lookup.judge([(10, sample(0.001))]).verdict == Verdict.FALSE
    assert sending.judge(1000, [(1, 10), (100, 100), (1000, 1100)]).verdict == Verdict.TRUE
    assert sending.judge(1000, [(1, 10), (100, 500), (1000, 1100)]).verdict == Verdict.PARTLY
    assert sending.judge(1000, [(1, 500)]).verdict == Verdict.FALSE
    assert rollback.judge([(1, 0.01), (1000, 0.9)]).verdict == Verdict.TRUE
    assert rollback.judge([(1, 0.01), (1000, 1.9)]).verdict == Verdict.PARTLY
    assert rollback.judge([(1, 2.0)]).verdict == Verdict.FALSE


def test_pinning_and_remote_memory():
    same, twice = (sample(0.01), sample(0.01)), (sample(0.02), sample(0.01))
    assert memory.judge(1, None, *same, 1).verdict == Verdict.PLACEBO
    assert memory.judge(1, None, *twice, 1).verdict == Verdict.UNKNOWN
    assert memory.judge(2, (10.0, 15.0), *same, 4).verdict == Verdict.FALSE
    assert memory.judge(2, (10.0, 100.0), *twice, 4).verdict == Verdict.TRUE


def test_residency_is_what_mincore_says(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(64 << 10))
    path.read_bytes()
    assert resident_share(path) == 1.0


# --- plots


PLOTS = [
    Lines("A <title> & more", "x", "y", (Series("one", ((1, 0.5), (1000, 30))), Series("two", ((1, 0.6), (1000, 31))))),
    Lines("One value", "x", "y", (Series("one", ((1, 1.0),)),)),
    Bars("Bars", "%", (("a", 100.0), ("b", 0.0))),
    Bars("Bars", "µs", (("a", 30_000.0), ("b", 4.5)), is_logarithmic=True),
]


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.title)
def test_a_plot_is_well_formed_and_everything_is_inside(plot):
    text = draw(plot)
    root = xml.fromstring(text)
    assert root.find("{*}title").text == plot.title
    height = int(root.get("viewBox").split()[3])
    assert height <= HEIGHT
    for shape in root.iter():
        for name, limit in (("cx", WIDTH), ("cy", height), ("x", WIDTH), ("y", height)):
            if shape.get(name) is not None:
                assert 0 <= float(shape.get(name)) <= limit, xml.tostring(shape)
    if isinstance(plot, Lines):
        ends = [float(each.get("y")) for each in root.iter("{*}text") if each.text in ("one", "two")]
        assert all(abs(a - b) >= 15 for a, b in pairwise(ends))  # labels do not lie on each other


# --- the page


def test_the_page_has_every_claim_its_figures_and_its_plots():
    found = Finding(Verdict.PLACEBO, "It brings nothing.", (Table(("a", "b"), (("x|y", "1"),)),), (PLOTS[2],))
    results = [(claim, found) for claim in CLAIMS]
    page = render(results, ["a machine", "load 0.1"], "sudo opfs bench claims", "claims")
    for claim in CLAIMS:
        assert f"[{claim.title}](#{claim.id})" in page
        assert f'<a id="{claim.id}"></a>' in page
        assert f"(claims/{claim.id}-1.svg)" in page
        assert claim.protocol in page
    assert page.count("**Placebo.** It brings nothing.") == len(CLAIMS)
    assert "x\\|y" in page
    assert sorted(plots_of(results)) == sorted(f"{claim.id}-1.svg" for claim in CLAIMS)


def test_there_is_a_claim_for_each_row_of_the_proposals_table():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS) == 10


def test_the_page_of_the_documentation_is_of_these_claims():
    docs = Path(__file__).parents[2] / "docs"
    page = (docs / "claims.md").read_text()
    assert [claim.title for claim in CLAIMS] == re.findall(r"^## (.*)$", page, re.MULTILINE)
    linked = set(re.findall(r"\]\((claims/[^)]*\.svg)\)", page))
    assert linked == {f"claims/{path.name}" for path in (docs / "claims").iterdir()}


@pytest.mark.needs("root", "btrfs", "loop")
def test_a_small_run_writes_page_and_plots_and_leaves_nothing(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    page = tmp_path / "claims.md"
    words = ["--quick", "--only", "sqlite-lookup", "--only", "send-deltas", "--scratch", scratch, "--output", page]
    done = subprocess.run(
        [sys.executable, "-m", "opfs", "bench", "claims", *words, "--json"], capture_output=True, text=True, check=True
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["claim"] for each in told] == ["sqlite-lookup", "send-deltas"]
    assert all(each["verdict"] in set(Verdict) for each in told)
    linked = re.findall(r"\]\((claims/[^)]*\.svg)\)", page.read_text())
    assert linked
    for name in linked:
        xml.parse(tmp_path / name)
    assert list(scratch.iterdir()) == []
    assert str(scratch) not in Path("/proc/self/mountinfo").read_text()


def test_a_claim_that_does_not_exist_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "opfs", "bench", "claims", "--only", "magic"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "embedding-cache" in done.stderr
