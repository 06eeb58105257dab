"""Hits as a file shows them: an aligned table for people, JSON lines for programs; pure.

Everything in a hit was written by somebody: what could move a terminal's cursor is shown as an escape.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from opfs.core.printable import printable, width_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.ports import Hit

UNRANKED = "-"


def format_table(hits: Sequence[Hit], *, is_ranked: bool = True) -> str:
    """One aligned line per hit: score, block, time, element, operation, who, what changed."""
    rows = [_row(hit, is_ranked=is_ranked) for hit in hits]
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    return "".join(_align(row, widths) + "\n" for row in rows)


def format_json_lines(hits: Sequence[Hit], *, is_ranked: bool = True) -> str:
    """One JSON object per hit; it has the columns of the table, unshortened, and the sentence searched."""
    return "".join(json.dumps(_fields(hit, is_ranked=is_ranked), ensure_ascii=False) + "\n" for hit in hits)


def _row(hit: Hit, *, is_ranked: bool) -> tuple[str, ...]:
    event = hit.event
    seconds, _, _ = event.time.partition(".")
    return (
        f"{hit.score:.3f}" if is_ranked else UNRANKED,
        f"{event.height:08d}",
        seconds if seconds.endswith("Z") else seconds + "Z",
        printable(str(event.id)),
        printable(event.op),
        printable(event.actor),
        printable(event.summary),
    )


def _align(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (cell + " " * (width - width_of(cell)) for cell, width in zip(row, widths, strict=True))
    return "  ".join(cells).rstrip()


def _fields(hit: Hit, *, is_ranked: bool) -> dict[str, object]:
    event = hit.event
    return {
        "score": round(hit.score, 6) if is_ranked else None,
        "block": event.height,
        "seq": event.seq,
        "time": event.time,
        "plugin": event.id.plugin,
        "element": event.id.element,
        "op": event.op,
        "actor": event.actor,
        "summary": event.summary,
        "text": event.text,
    }
