"""A plot as SVG that reads on a white and on a dark page: lines over logarithmic axes, and bars; pure."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from opfs.claims.claim import Bars, Lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDTH, HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 190, 44, 52
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""The palette of Okabe and Ito, which colour-blind readers can tell apart."""
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-size:15px;font-weight:600}.g{stroke:#8884;fill:none}"
    "@media(prefers-color-scheme:dark){text{fill:#d0d7de}}"
)
_BAR = 26
_FEW_DECADES = 2


def draw(plot: Lines | Bars) -> str:
    """The whole file."""
    height, body = (HEIGHT, _lines(plot)) if isinstance(plot, Lines) else (_bars_height(plot), _bars(plot))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"<title>{escape(plot.title)}</title><style>{_STYLE}</style>\n"
        f"{_text(16, 24, plot.title, kind='t')}\n" + "\n".join(body) + "\n</svg>\n"
    )


class _Scale:
    """A logarithmic axis between two of the numbers 1, 2, 5, 10, 20, …, onto pixels."""

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        low, high = (math.floor(math.log10(extreme(values))) for extreme in (min, max))
        round_numbers = [digit * 10.0**power for power in range(low, high + 2) for digit in (1, 2, 5)]
        start = max(number for number in round_numbers if number <= min(values) * (1 + 1e-9))
        end = min(number for number in round_numbers if number >= max(values) and number > start)
        self._numbers = [number for number in round_numbers if start <= number <= end]
        self._start, self._decades = math.log10(start), math.log10(end) - math.log10(start)
        self._first, self._last = first, last

    def __call__(self, value: float) -> float:
        return self._first + (math.log10(value) - self._start) / self._decades * (self._last - self._first)

    def ticks(self) -> list[float]:
        """Powers of ten where there are enough of them."""
        if self._decades <= _FEW_DECADES:
            return self._numbers
        return [number for number in self._numbers if math.isclose(math.log10(number) % 1, 0, abs_tol=1e-9)]


def _lines(plot: Lines) -> Iterator[str]:
    points = [point for series in plot.series for point in series.points]
    x_of = _Scale([x for x, _ in points], _LEFT, WIDTH - _RIGHT)
    y_of = _Scale([y for _, y in points], HEIGHT - _BOTTOM, _TOP)
    for tick in x_of.ticks():
        yield f'<path class="g" d="M{x_of(tick):.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>'
        yield _text(x_of(tick), HEIGHT - _BOTTOM + 18, _number(tick), "middle")
    for tick in y_of.ticks():
        yield f'<path class="g" d="M{_LEFT} {y_of(tick):.1f}H{WIDTH - _RIGHT}"/>'
        yield _text(_LEFT - 8, y_of(tick) + 4, _number(tick), "end")
    yield _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 12, plot.x_label, "middle")
    yield f'<g transform="rotate(-90 20 {HEIGHT / 2})">{_text(20, HEIGHT / 2, plot.y_label, "middle")}</g>'
    ends = _apart([y_of(series.points[-1][1]) for series in plot.series])
    for position, series in enumerate(plot.series):
        colour = _COLOURS[position % len(_COLOURS)]
        path = "L".join(f"{x_of(x):.1f} {y_of(y):.1f}" for x, y in series.points)
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for x, y in series.points:
            yield f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3.5" fill="{colour}"/>'
        yield _text(WIDTH - _RIGHT + 10, ends[position] + 4, series.label, colour=colour)


def _bars_height(plot: Bars) -> int:
    return _TOP + len(plot.values) * _BAR + 16


def _bars(plot: Bars) -> Iterator[str]:
    left, right = 250, WIDTH - 110
    values = [value for _, value in plot.values]
    scale = _Scale(values, left + 20, right) if plot.is_logarithmic else None
    for position, (label, value) in enumerate(plot.values):
        y = _TOP + position * _BAR
        end = scale(value) if scale else left + (right - left) * value / (max(values) or 1)
        yield _text(left - 10, y + 14, label, "end")
        colour = _COLOURS[position % len(_COLOURS)]
        yield f'<rect x="{left}" y="{y}" width="{max(1.0, end - left):.1f}" height="{_BAR - 8}" fill="{colour}"/>'
        yield _text(max(1.0, end - left) + left + 8, y + 14, f"{_number(value)} {plot.unit}")


def _apart(places: Sequence[float], distance: float = 17.0) -> list[float]:
    """The places of labels, moved down where one would lie on another."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + distance)
    return moved


def _text(x: float, y: float, text: str, anchor: str = "start", *, kind: str = "", colour: str = "") -> str:
    extra = (f' class="{kind}"' if kind else "") + (f' style="fill:{colour}"' if colour else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


def _number(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1e6:.3g} M"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
