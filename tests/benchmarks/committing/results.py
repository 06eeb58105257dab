"""What commits took, beside what the same costs elsewhere: tables, verdicts, figures."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass, field

from harness.table import VERDICT_HEADINGS, Sample, Verdict, end_progress, format_table, number

WRITERS = 64
MAX_GROWTH = 1.5
"""opfs' own share must not grow with the tree; this much is the noise of a difference of two medians."""

TITLES = {
    "fsync": "fsync of a file",
    "bare": "bare write + snapshot",
    "noop": "opfs, one writer, no-op plugin",
    "held": "the same, blocks once a week",
    "file": "opfs, one writer, plugin file",
    "many": f"opfs, {WRITERS} writers, no-op plugin",
    "git": "git add + commit",
    "etckeeper": "etckeeper commit",
}


@dataclass(frozen=True, slots=True)
class Tree:
    """What is measured on: so many documents and, to begin with, so many live blocks."""

    elements: int
    blocks: int
    with_peers: bool

    def __str__(self) -> str:
        return f"{self.elements:,} elements, {self.blocks:,} blocks"


@dataclass(slots=True)
class Measured:
    """All samples of one tree, by the keys of TITLES."""

    tree: Tree
    samples: dict[str, Sample] = field(default_factory=lambda: {kind: Sample() for kind in TITLES})
    blocks_after: int = 0
    lag_s: float = 0.0
    """How long the search index took to catch up after the writers of the last burst had stopped."""

    def p50_ms(self, kind: str) -> float:
        return self.samples[kind].p50_ms

    @property
    def own_share_ms(self) -> float:
        return self.p50_ms("noop") - self.p50_ms("bare")


@dataclass(slots=True)
class Started:
    """The daemon as a process: how fast it is there, and how large it gets."""

    elements: int
    blocks: int
    first_s: float = math.nan
    again: Sample = field(default_factory=Sample)
    indexed_s: float = math.nan
    rss_mb: float = math.nan
    anonymous_mb: float = math.nan
    help: Sample = field(default_factory=Sample)

    @property
    def worst_start_s(self) -> float:
        return max(self.first_s, *self.again.durations_s)


# --- what is printed -------------------------------------------------------------------------------------

HEADINGS = ("", "elements", "blocks", "n", "p50 ms", "p99 ms", "per second", "x bare", "own ms", "etckeeper x")


def rows_of(measured: Measured) -> list[list[str]]:
    rows = []
    bare_ms, etckeeper_ms = measured.p50_ms("bare"), measured.p50_ms("etckeeper")
    for kind, title in TITLES.items():
        sample = measured.samples[kind]
        if not len(sample):
            continue
        rows.append(
            [
                title,
                f"{measured.tree.elements:,}",
                f"{measured.tree.blocks:,}-{measured.blocks_after:,}",
                f"{len(sample):,}",
                number(sample.p50_ms),
                number(sample.p99_ms),
                number(sample.per_second),
                number(sample.p50_ms / bare_ms),
                number(measured.own_share_ms) if kind == "noop" else "-",
                number(etckeeper_ms / sample.p50_ms),
            ]
        )
    return rows


def verdicts_of(trees: list[Measured], started: Started | None) -> list[Verdict]:
    verdicts = []
    for measured in trees:
        verdicts.append(
            Verdict(f"one writer / bare, {measured.tree}", measured.p50_ms("noop") / measured.p50_ms("bare"), 2.5, "x")
        )
    first = trees[0]
    for measured in trees[1:]:
        growth = measured.own_share_ms / first.own_share_ms
        verdicts.append(Verdict(f"own share / that at the first tree, {measured.tree}", growth, MAX_GROWTH, "x"))
    etckeeper = first.p50_ms("etckeeper") / first.p50_ms("noop")
    verdicts.append(
        Verdict(f"faster than etckeeper, {first.tree.elements:,} elements", etckeeper, 30, "x", at_most=False)
    )
    for measured in trees:
        many, one = measured.samples["many"], measured.samples["noop"]
        verdicts += [
            Verdict(
                f"{WRITERS} writers / one, documents per second, {measured.tree}",
                many.per_second / one.per_second,
                5,
                "x",
                at_most=False,
            ),
            Verdict(
                f"{WRITERS} writers, p99 / bare p50, {measured.tree}", many.p99_ms / measured.p50_ms("bare"), 40, "x"
            ),
        ]
    if started is not None:
        verdicts += [
            Verdict(
                f"mount ready, {started.elements:,} elements and {started.blocks:,} blocks, slowest start",
                started.worst_start_s,
                2,
                "s",
            ),
            Verdict("opfs --help", started.help.p50_ms, 200, "ms"),
            Verdict("memory of the daemon after a search (VmRSS)", started.rss_mb, 400, "MB"),
        ]
    return verdicts


def print_results(trees: list[Measured], started: Started | None, verdicts: list[Verdict]) -> None:
    end_progress()
    print(f"{machine()}\n")
    print(format_table(HEADINGS, [row for measured in trees for row in rows_of(measured)]))
    print()
    for measured in trees:
        if len(measured.samples["many"]):
            print(
                f"{measured.tree}: after the last burst of {WRITERS} writers the search index was level again in "
                f"{measured.lag_s:.1f} s (nothing was measured meanwhile)"
            )
    if started is not None:
        print(
            f"\nmount ready, {started.elements:,} elements and {started.blocks:,} blocks: {started.first_s:.2f} s "
            f"on a pool without search index (made in {started.indexed_s:.0f} s more, in the background), "
            f"then {number(started.again.percentile_s(50))} s at the median of {len(started.again)}\n"
            f"memory after a search: VmRSS {started.rss_mb:.0f} MB, of it RssAnon {started.anonymous_mb:.0f} MB\n"
            f"opfs --help: {started.help.p50_ms:.0f} ms at the median of {len(started.help)}"
        )
    print()
    print(format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts]))


def machine() -> str:
    with open("/proc/meminfo") as meminfo:
        kib = int(next(line for line in meminfo if line.startswith("MemTotal")).split()[1])
    kernel, python = ".".join(platform.release().split(".")[:2]), platform.python_version()
    return f"{os.cpu_count()} CPUs, {kib >> 20} GiB of memory, Linux {kernel}, Python {python}"


def to_json(trees: list[Measured], started: Started | None, verdicts: list[Verdict]) -> dict[str, object]:
    rows = [
        {
            "row": kind,
            "elements": measured.tree.elements,
            "blocks": measured.tree.blocks,
            "blocks_after": measured.blocks_after,
            "n": len(sample),
            "p50_ms": sample.p50_ms,
            "p99_ms": sample.p99_ms,
            "per_second": sample.per_second,
        }
        for measured in trees
        for kind, sample in measured.samples.items()
        if len(sample)
    ]
    result: dict[str, object] = {"machine": machine(), "rows": rows, "verdicts": [v.to_json() for v in verdicts]}
    if started is not None:
        result["start"] = {
            "elements": started.elements,
            "blocks": started.blocks,
            "first_s": started.first_s,
            "again_s": started.again.durations_s,
            "indexed_s": started.indexed_s,
            "rss_mb": started.rss_mb,
            "rss_anon_mb": started.anonymous_mb,
            "help_ms": started.help.p50_ms,
        }
    return result
