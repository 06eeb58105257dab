"""How commands print: aligned rows, colours on a terminal only, JSON lines, a bar for what takes long.

Names, messages and documents come from strangers: whatever reaches a terminal goes through `printable`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click

from opfs.core.printable import printable, width_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

T = TypeVar("T")
Cell = tuple[str, str | None]
"""A text and its colour, or None for the terminal's own."""

_OP_COLOURS = {"create": "green", "delete": "red", "apply-failed": "bright_red", "rollback": "magenta"}


def is_coloured() -> bool:
    """Whether to colour: on a terminal, unless NO_COLOR (no-color.org) is set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def op_colour(op: str) -> str:
    return _OP_COLOURS.get(op, "yellow")


def echo(text: str, colour: str | None = None, *, bold: bool = False) -> None:
    """Print one line."""
    click.echo(click.style(text, fg=colour, bold=bold) if is_coloured() else text, color=is_coloured())


def echo_rows(rows: Sequence[Sequence[Cell]]) -> None:
    """Print rows with aligned columns; the last column is left as it is."""
    for row in aligned(rows):
        click.echo(drawn(row), color=is_coloured())


def aligned(rows: Sequence[Sequence[Cell]]) -> list[list[Cell]]:
    """The rows with every cell but the last of a row made as wide as the widest of its column, and two blanks more."""
    cells = [[(printable(text), colour) for text, colour in row] for row in rows]
    widths = [max(width_of(row[column][0]) for row in cells) for column in range(len(cells[0]))] if cells else []
    return [
        [(text + " " * (widths[column] + 2 - width_of(text)), colour) for column, (text, colour) in enumerate(row[:-1])]
        + row[-1:]
        for row in cells
    ]


def drawn(row: Sequence[Cell], columns: int | None = None) -> str:
    """A row as a terminal gets it, in at most so many columns."""
    coloured, parts = is_coloured(), []
    for text, colour in row:
        shown = printable(text) if columns is None else cut(printable(text), columns)
        columns = None if columns is None else columns - width_of(shown)
        parts.append(click.style(shown, fg=colour) if coloured and colour else shown)
    return "".join(parts).rstrip()


def cut(text: str, columns: int) -> str:
    """The beginning of a printable text that has room in so many columns."""
    if width_of(text) <= columns:
        return text
    ends = accumulate(width_of(character) for character in text)
    return text[: sum(end <= columns for end in ends)]


def echo_json(value: Any) -> None:
    """Print one JSON value on one line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def short_time(time_text: str) -> str:
    """`2026-11-03 14:00:12Z` of a time as the format writes it."""
    return f"{time_text[:10]} {time_text[11:19]}Z"


class Bar:
    """How far something is: on a terminal, past two seconds, a line on stderr."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._started = self._shown = time.monotonic()
        self._is_visible = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._started > 2 and now - self._shown > 0.2 and sys.stderr.isatty():
            filled = 30 * done // max(total, 1)
            click.echo(f"\r{self._doing} [{'#' * filled:30}] {done}/{total}", err=True, nl=False)
            self._shown, self._is_visible = now, True

    def clear(self) -> None:
        """Make room for a line of output."""
        if self._is_visible:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._is_visible = False


def with_progress(items: Iterable[T], total: int, doing: str) -> Iterator[T]:
    """The items, with a `Bar` over them."""
    with Bar(doing) as bar:
        for count, item in enumerate(items):
            bar.show(count, total)
            yield item
