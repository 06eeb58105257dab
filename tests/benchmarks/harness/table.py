"""Measured times and how they are shown: samples, aligned tables, verdicts. Measures nothing itself.

Percentiles are nearest-rank, so that every figure printed is one that was measured.
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


@dataclass(slots=True)
class Sample:
    """The durations of one operation, repeated; `busy_s` is the wall time they took together."""

    durations_s: list[float] = field(default_factory=list)
    busy_s: float = 0.0

    def __len__(self) -> int:
        return len(self.durations_s)

    def measure(self, operation: Callable[[], None]) -> None:
        """Do `operation` once and take its time in."""
        start = time.perf_counter()
        operation()
        elapsed = time.perf_counter() - start
        self.durations_s.append(elapsed)
        self.busy_s += elapsed

    def add(self, durations_s: Iterable[float], busy_s: float) -> None:
        """Take in operations that ran side by side for `busy_s`."""
        self.durations_s.extend(durations_s)
        self.busy_s += busy_s

    def percentile_s(self, percent: float) -> float:
        """Nearest rank; nan where nothing was measured."""
        if not self.durations_s:
            return math.nan
        ordered = sorted(self.durations_s)
        return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]

    @property
    def p50_ms(self) -> float:
        return self.percentile_s(50) * 1000

    @property
    def p99_ms(self) -> float:
        return self.percentile_s(99) * 1000

    @property
    def per_second(self) -> float:
        """Operations per second of wall time; nan where nothing was measured."""
        return len(self.durations_s) / self.busy_s if self.busy_s else math.nan


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure that must be reached; `measured` is nan where this run did not measure it."""

    what: str
    measured: float
    target: float
    unit: str
    at_most: bool = True

    @property
    def outcome(self) -> str:
        if math.isnan(self.measured):
            return "not measured"
        reached = self.measured <= self.target if self.at_most else self.measured >= self.target
        return "ok" if reached else "missed"

    def cells(self) -> list[str]:
        limit = f"{'≤' if self.at_most else '≥'} {self.target:g}"
        return [self.what, f"{limit} {self.unit}", f"{number(self.measured)} {self.unit}", self.outcome]

    def to_json(self) -> dict[str, object]:
        return {
            "what": self.what,
            "target": self.target,
            "at_most": self.at_most,
            "unit": self.unit,
            "measured": None if math.isnan(self.measured) else self.measured,
            "outcome": self.outcome,
        }


VERDICT_HEADINGS = ("figure", "target", "measured", "")


def number(value: float) -> str:
    """A figure with as many digits as mean something; `-` for nan."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}"


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their cells: words to the left, figures to the right."""
    table = [list(headings), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    is_figure = [
        all(row[column] in ("", "-") or row[column][0].isdigit() for row in rows) and column > 0
        for column in range(len(headings))
    ]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_figure, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


# --- progress ------------------------------------------------------------------------------------------


def progress(message: str) -> None:
    """One line on stderr; on a terminal it takes the place of the line before."""
    if sys.stderr.isatty():
        print(f"\r\033[K{message}", end="", file=sys.stderr, flush=True)
    else:
        print(message, file=sys.stderr, flush=True)


def end_progress() -> None:
    """Clear the line, so that output can follow."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


@contextmanager
def step(message: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    progress(f"{message} …")
    start = time.perf_counter()
    yield
    progress(f"{message}: {time.perf_counter() - start:.1f} s")
