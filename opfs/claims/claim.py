"""What a claim is, and what measuring one gives; pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What this machine shows of a claim."""

    TRUE = "true"
    FALSE = "false"
    PLACEBO = "placebo"
    """It can be done, and brings nothing."""
    PARTLY = "partly true"
    UNKNOWN = "not measurable here"


@dataclass(frozen=True, slots=True)
class Series:
    """Points (x, y) of one line, both above 0; the label names it."""

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Lines:
    """A plot with logarithmic axes."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Bars:
    """A plot of labelled values from 0; on a logarithmic scale where `is_logarithmic`, and then all are above 0."""

    title: str
    unit: str
    values: tuple[tuple[str, float], ...]
    is_logarithmic: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Texts; the first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen: the verdict, why in a few sentences, the figures."""

    verdict: Verdict
    said: str
    tables: tuple[Table, ...] = ()
    plots: tuple[Lines | Bars, ...] = ()


def unknown(why: str) -> Finding:
    return Finding(Verdict.UNKNOWN, why)
