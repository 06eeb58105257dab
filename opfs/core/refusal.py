"""A refused request as a block of text: who, what, where, the line with a caret under the spot, what would do; pure.

The text is for terminals and made of strangers' bytes: everything that could move the cursor, colour or
reorder is shown as an escape. Blocks look alike whether they stand in /errors or beside a refused document.
"""

from __future__ import annotations

import errno as errno_module
import re
import textwrap
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from opfs.core.position import line_start
from opfs.core.precedent import HEADING, INDENT, tell_precedents
from opfs.core.printable import ELLIPSIS, clip, printable, printable_character, width_of
from opfs.errors import Location

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.core.precedent import Precedent

WINDOW_COLUMNS = 88
"""Terminal columns of a source line that are shown; with the line number they fit a hundred."""

TEXT_LIMIT = 4000
"""Characters kept of a reason or a hint: a backend's own words can be long."""

_TAB = "    "
_BEFORE = WINDOW_COLUMNS // 2
TEXT_COLUMNS = 92
"""Of reasons and hints, indentation included."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\w.+-]+|.')


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Part of a document's line, safe to show: `caret` is the terminal column, from 0, of the fault in
    `text`, and `width` how many columns from there are at fault."""

    text: str
    caret: int
    width: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refused request. `path` is below the mount point; `errno` is a number; `location` and `excerpt`
    are there where the fault lies in a document. `seen` is what resembles it in the past; None while that is looked
    for."""

    number: int
    time_ns: int
    uid: int
    gid: int
    user: str
    path: str
    errno: int
    reason: str
    hint: str = ""
    location: Location | None = None
    excerpt: Excerpt | None = None
    seen: tuple[Precedent, ...] | None = ()

    def to_json(self) -> dict[str, Any]:
        """For a file. Without `seen`, which has words of other documents: those may have to be erased some day."""
        return {name: value for name, value in asdict(replace(self, seen=())).items() if name != "seen"}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Refusal:
        """The inverse of `to_json`; raises TypeError or KeyError for anything else."""
        location, excerpt = fields["location"], fields["excerpt"]
        return cls(
            **{
                **fields,
                "location": None if location is None else Location(**location),
                "excerpt": None if excerpt is None else Excerpt(**excerpt),
            }
        )


def excerpt_of(content: bytes, location: Location) -> Excerpt:
    """The part of `content` around `location` that a refusal shows; of long lines a window around the spot."""
    start = line_start(content, location.line)
    end = content.find(b"\n", start)
    raw = content[start : end if end >= 0 else len(content)]
    line = raw.decode("utf-8", "backslashreplace").rstrip("\r")
    spot = min(location.column - 1, len(line))
    # only what lies around the spot is measured: the line may be a mebibyte
    before = _take(line[max(0, spot - WINDOW_COLUMNS) : spot], _BEFORE, from_end=True)
    after = _take(line[spot : spot + WINDOW_COLUMNS], WINDOW_COLUMNS - width_of(before.text), from_end=False)
    cut_before = before.count < spot
    cut_after = spot + after.count < len(line)
    text = f"{ELLIPSIS if cut_before else ''}{before.text}{after.text}{ELLIPSIS if cut_after else ''}"
    caret = cut_before + width_of(before.text)
    token = _TOKEN.match(line, spot, spot + after.count)
    width = width_of("".join(map(_visible, token[0]))) if token else 1
    return Excerpt(text, caret, max(1, width))


def render(refusal: Refusal) -> str:
    """The refusal as a block of lines that ends with a line feed."""
    time = datetime.fromtimestamp(refusal.time_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    who = f"{printable(refusal.user)} (uid {refusal.uid})" if refusal.user else f"uid {refusal.uid}"
    name = errno_module.errorcode.get(refusal.errno, f"errno {refusal.errno}")
    # what resembles it comes first, as the reason is read with tail(1)
    lines = [f"#{refusal.number}  {time}  {who}  {name}", *tell_precedents(refusal.seen)]
    location = refusal.location
    path = clip(printable(refusal.path), 300)
    at = f", line {location.line}, column {location.column}" if location else ""
    pointer = f"  ({clip(printable(location.pointer), 100)})" if location and location.pointer else ""
    lines.append(f"  {path}{at}{pointer}")
    if location and refusal.excerpt:
        number = str(location.line)
        margin = " " * len(number)
        squiggle = "^" + "~" * (refusal.excerpt.width - 1)
        lines.append(f"  {number} | {refusal.excerpt.text}")
        lines.append(f"  {margin} | {' ' * refusal.excerpt.caret}{squiggle}")
    lines += _wrapped(refusal.reason)
    lines += _wrapped(refusal.hint)
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    count: int
    """How many characters of the line it shows."""


def _take(part: str, columns: int, *, from_end: bool) -> _Piece:
    """As much of one end of `part` as fits in `columns`, made visible."""
    shown: list[str] = []
    used = 0
    for character in reversed(part) if from_end else part:
        visible = _visible(character)
        used += width_of(visible)
        if used > columns:
            break
        shown.append(visible)
    return _Piece("".join(reversed(shown) if from_end else shown), len(shown))


def _visible(character: str) -> str:
    return _TAB if character == "\t" else printable_character(character)


def split_seen(lines: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The lines of a rendered refusal without what it says of the past, and what it says of that."""
    start = next((number for number, line in enumerate(lines) if line.startswith(HEADING)), len(lines))
    end = start + 1
    while end < len(lines) and lines[end].startswith(INDENT):
        end += 1
    return [*lines[:start], *lines[end:]], lines[start:end]


def unwrapped(lines: Sequence[str]) -> str:
    """Reason and hint as `render` wraps them, on one line with a semicolon between texts.

    A line that the next word would have fitted into is the last of its text; where it would not, nobody can tell.
    """
    told = ""
    for index, line in enumerate(lines):
        told += line.strip()
        if index + 1 < len(lines):
            word = lines[index + 1].strip().partition(" ")[0]
            told += "; " if len(line) + 1 + len(word) <= TEXT_COLUMNS else " "
    return told


def _wrapped(text: str) -> list[str]:
    """A text's own lines, made printable, wrapped and indented."""
    lines: list[str] = []
    for line in clip(text, TEXT_LIMIT).splitlines():
        visible = printable(line.expandtabs(4))
        lines += textwrap.wrap(
            visible, TEXT_COLUMNS, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
    return lines
