"""One state of the index as searches see it, and which of its events one search may look at.

Concurrency: immutable; any thread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from opfs.index.rows import storable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

    from numpy.typing import NDArray

    from opfs.core.filters import EventFilter
    from opfs.index.columns import AccessTable, Columns
    from opfs.index.generation import Vectors
    from opfs.index.readers import Readers
    from opfs.ports import Embedder

_PLUGINS = "SELECT id FROM plugins WHERE name IN (SELECT value FROM json_each(?))"
_OPS = "SELECT id FROM ops WHERE name IN (SELECT value FROM json_each(?))"
_ACTORS = "SELECT id FROM actors WHERE name IN (SELECT value FROM json_each(?))"
_ELEMENTS = """
SELECT e.id FROM json_each(?) AS wanted JOIN plugins AS p ON p.name = wanted.value ->> 0
JOIN elements AS e ON e.plugin_id = p.id AND e.name = wanted.value ->> 1
"""


@dataclass(frozen=True, slots=True)
class Contents:
    """What there was at one moment: event i has seq i. Never changed once published."""

    identity: str
    tip_hash: str
    event_count: int
    text_count: int
    columns: Columns
    access: AccessTable
    readers: Readers
    vectors: Vectors | None
    """Those that searches use; None where none can be used yet."""
    embedder: Embedder | None
    """Who made them, for queries."""
    embedded_count: int
    notice: str | None

    def select(self, connection: sqlite3.Connection, uid: int, gids: Collection[int], where: EventFilter) -> Selection:
        """The events that may be read and that the filter lets pass; raises OSError, sqlite3.Error."""
        end = self.event_count if where.before_seq is None else max(0, min(where.before_seq, self.event_count))
        masks = []
        readable = self.access.readable(uid, gids)
        if readable is not None:
            masks.append(readable[self.columns.view("access", end)])
        for column, query, values in (
            ("plugin", _PLUGINS, sorted(where.plugins)),
            ("op", _OPS, sorted(where.ops)),
            ("actor", _ACTORS, sorted(map(storable, where.actors))),
            ("element", _ELEMENTS, sorted([id.plugin, id.element] for id in where.elements)),
        ):
            if values:
                numbers = [number for (number,) in connection.execute(query, (json.dumps(values),))]
                masks.append(np.isin(self.columns.view(column, end), numbers))
        if where.since_ns is not None:
            masks.append(self.columns.view("time_ns", end) >= where.since_ns)
        if where.until_ns is not None:
            masks.append(self.columns.view("time_ns", end) < where.until_ns)
        return Selection(self, end, np.logical_and.reduce(masks) if masks else None)


class Selection:
    """Some events of one state of the index: those below `end` for which `events` is True, or all of them."""

    def __init__(self, contents: Contents, end: int, events: NDArray[np.bool_] | None) -> None:
        self.end = end
        self.events = events
        self._text_of = contents.columns.view("text", end)
        self.text_end = contents.text_count if end == contents.event_count else _after(self._text_of)
        """Texts from this number on belong to later events only."""

    def texts(self) -> NDArray[np.bool_] | None:
        """Which texts, of those below `text_end`, belong to one of these events; None means all."""
        if self.events is None:
            return None
        mask = np.zeros(self.text_end, dtype=np.bool_)
        mask[self._text_of[self.events]] = True
        return mask

    def rank(self, texts: NDArray[np.int64], scores: NDArray[np.float64], limit: int) -> list[tuple[int, float]]:
        """The events with these texts and the texts' scores: the `limit` best, ties by newer first."""
        wanted = np.zeros(self.text_end, dtype=np.bool_)
        wanted[texts] = True
        seqs = self._among(wanted[self._text_of])
        score_of = np.empty(self.text_end if len(texts) else 0, dtype=np.float64)
        score_of[texts] = scores
        their_scores = score_of[self._text_of[seqs]]
        best = np.lexsort((-seqs, -their_scores))[:limit]
        return list(zip(seqs[best].tolist(), their_scores[best].tolist(), strict=True))

    def newest(self, limit: int) -> list[int]:
        """The last events, newest first."""
        if self.events is None:
            return list(range(self.end - 1, max(self.end - 1 - limit, -1), -1))
        return [int(seq) for seq in np.flatnonzero(self.events)[::-1][:limit]]

    def count_by(self, column: NDArray[np.uint32]) -> NDArray[np.int64]:
        """How many of these events have each value of a column."""
        return np.bincount(column if self.events is None else column[self.events])

    def _among(self, wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.flatnonzero(wanted if self.events is None else wanted & self.events)


def _after(texts: NDArray[np.uint32]) -> int:
    """The number after the highest; numbers are given in order of first appearance."""
    return int(texts.max()) + 1 if len(texts) else 0
