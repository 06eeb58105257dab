"""The page /metrics, read back: values by name and labels, and what happened between two of its readings.

Reads what opfs itself writes (the text format of Prometheus, version 0.0.4, labels without escapes). No I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Key = tuple[str, frozenset[tuple[str, str]]]
_LINE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)\Z")
_LABEL = re.compile(r'([a-z_]+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Page:
    """One reading, at `seconds` of a clock that only goes forward."""

    values: Mapping[Key, float]
    seconds: float

    @classmethod
    def parse(cls, text: str, seconds: float) -> Page:
        """Lines that are none of ours are passed over."""
        values: dict[Key, float] = {}
        for line in text.splitlines():
            if match := _LINE.match(line):
                values[match[1], frozenset(_LABEL.findall(match[2] or ""))] = float(match[3])
        return cls(values, seconds)

    def one(self, name: str, **labels: str) -> float:
        """0 where there is none."""
        return self.values.get((name, frozenset(labels.items())), 0.0)

    def of_each(self, name: str, label: str) -> dict[str, float]:
        """Summed up by one label."""
        found: dict[str, float] = {}
        for (known, labels), value in self.values.items():
            for key, text in labels:
                if (known, key) == (name, label):
                    found[text] = found.get(text, 0.0) + value
        return found


@dataclass(frozen=True, slots=True)
class Between:
    """What happened from one reading to a later one."""

    before: Page
    after: Page

    def rate(self, name: str, **labels: str) -> float:
        """So many a second; 0 where the daemon was restarted in between."""
        passed_s = self.after.seconds - self.before.seconds
        return (
            max(0.0, self.after.one(name, **labels) - self.before.one(name, **labels)) / passed_s if passed_s else 0.0
        )

    def quantile_s(self, operation: str, share: float) -> float | None:
        """The bound below which that share of the operations took, by the histogram; None where there was none."""
        bounds: list[tuple[float, float]] = []
        for (name, labels), value in self.after.values.items():
            found = dict(labels)
            if name == "op_duration_seconds_bucket" and found["operation"] == operation:
                bounds.append((float(found["le"]), value - self.before.values.get((name, labels), 0.0)))
        bounds.sort()
        if not bounds or bounds[-1][1] <= 0:
            return None
        return next(bound for bound, count in bounds if count >= share * bounds[-1][1])
