"""What happened before that resembles a refused change: accepted, or failed and then followed by something; pure.

Found by opfs.commit.precedents, and shown with the refusal in /errors and beside the refused document.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from opfs.core.printable import clip, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADING = "  seen before:"
LOOKING = f"{HEADING} still looking"
"""Shown until it is known; a moment."""

_COLUMNS = 100
_SUMMARY_LIMIT = 200
INDENT = " " * 4
_FURTHER = " " * 13


class Kind(StrEnum):
    """Why a past event is shown."""

    ACCEPTED = "accepted"
    FAILED = "failed"
    FOLLOWED = "then"


@dataclass(frozen=True, slots=True)
class Precedent:
    """One past event. `path` is below the mount: the document that it left; empty where it left none."""

    kind: Kind
    element: str
    height: int
    time: str
    op: str
    actor: str
    summary: str
    path: str = ""


def tell_precedents(seen: Sequence[Precedent] | None) -> list[str]:
    """Lines of at most a hundred columns, none where nothing was seen; None means that it is being looked for."""
    if seen is None:
        return [LOOKING]
    return [HEADING, *(line for each in seen for line in _told(each))] if seen else []


def _told(seen: Precedent) -> list[str]:
    when = f"{seen.time[:10]} {seen.time[11:16]}Z"
    by = f" by {printable(seen.actor)}" if seen.actor else ""
    what = f": {clip(printable(seen.summary), _SUMMARY_LIMIT)}" if seen.summary else ""
    text = f"{seen.kind:<8} {printable(seen.element)} in block {seen.height}, {when}, {printable(seen.op)}{by}{what}"
    lines = textwrap.wrap(
        text,
        _COLUMNS,
        initial_indent=INDENT,
        subsequent_indent=_FURTHER,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [*lines, f"{_FURTHER}{printable(seen.path)}"] if seen.path else lines
