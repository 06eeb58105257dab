"""The searches over one state of the index: by meaning, by words, by both, unranked, and what filters can be set to.

Everything is asked of the events that the reader may see and the filter lets pass, and of nothing else: no count, no
weight and no order depends on others. Does not know how the index is written.

Concurrency: functions of immutable contents; any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from opfs.core.filters import FilterKind
from opfs.core.ranking import FUSION_DEPTH, fuse
from opfs.core.words import loose_words, parse_words
from opfs.index.fulltext import FullText
from opfs.index.rows import load_names

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from opfs.index.contents import Contents, Selection
    from opfs.index.exact.workers import Workers
    from opfs.index.fulltext import Loosely

    Scored = list[tuple[int, float]]
    """Numbers of events with their scores, best first."""
    Search = Callable[[Contents, Selection, sqlite3.Connection], Scored]

_COLUMN_OF = {
    FilterKind.PLUGIN: "plugin",
    FilterKind.ELEMENT: "element",
    FilterKind.OP: "op",
    FilterKind.BY: "actor",
}


def similar(query: NDArray[np.float32], limit: int) -> Search:
    """The nearest events to a unit vector."""

    def search(contents: Contents, selection: Selection, connection: sqlite3.Connection) -> Scored:
        del connection
        if contents.vectors is None:
            return []
        texts, scores = contents.vectors.nearest(query, mask=selection.texts(), before=selection.text_end, limit=limit)
        return selection.rank(texts, scores, limit)

    return search


def matching(words: str, limit: int) -> Search:
    """The events whose text has the words; raises InvalidRequest."""
    wanted = parse_words(words)

    def search(contents: Contents, selection: Selection, connection: sqlite3.Connection) -> Scored:
        return selection.rank(*_full_text(contents, selection, connection).all_of(wanted, limit), limit)

    return search


def loosely_matching(text: str, limit: int) -> Search:
    """The events whose text has some of the words, with the share that it has; where there is no model to ask."""
    words = loose_words(text)

    def search(contents: Contents, selection: Selection, connection: sqlite3.Connection) -> Scored:
        loosely = _full_text(contents, selection, connection).any_of(words)
        rows = loosely.best(limit)
        return selection.rank(rows, loosely.shares(rows), limit)

    return search


def fused(embed: Callable[[], NDArray[np.float32]], text: str, limit: int, workers: Workers) -> Search:
    """The events best by both, out of the best of each; words are wanted, none has to be there.

    `embed` gives the unit vector of the text. The nearest and the words are looked for side by side.
    """
    depth = max(limit, FUSION_DEPTH)
    words = loose_words(text)

    def search(contents: Contents, selection: Selection, connection: sqlite3.Connection) -> Scored:
        vectors = contents.vectors

        def find_words() -> tuple[Loosely, NDArray[np.int64]]:
            loosely = _full_text(contents, selection, connection).any_of(words)
            return loosely, loosely.best(depth)

        if vectors is None:
            loosely, rows = find_words()
            return selection.rank(rows, loosely.shares(rows), limit)

        def find_nearest() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            query = embed()
            return query, vectors.nearest(query, mask=selection.texts(), before=selection.text_end, limit=depth)[0]

        (query, near), (loosely, rows) = workers.both(find_nearest, find_words)
        rows = np.union1d(rows, near)
        return selection.rank(rows, fuse(vectors.cosines(query, rows), loosely.shares(rows)), limit)

    return search


def changes(limit: int) -> Search:
    """The newest events."""

    def search(contents: Contents, selection: Selection, connection: sqlite3.Connection) -> Scored:
        del contents, connection
        return [(seq, 0.0) for seq in selection.newest(limit)]

    return search


def values(
    contents: Contents, selection: Selection, connection: sqlite3.Connection, kind: FilterKind, limit: int
) -> Sequence[str]:
    """What a filter of that kind can be set to, most frequent first, then by name."""
    counts = selection.count_by(contents.columns.view(_COLUMN_OF[kind], selection.end))
    numbers = np.flatnonzero(counts)
    if 0 <= limit < len(numbers):
        numbers = numbers[counts[numbers] >= np.partition(counts[numbers], -limit)[-limit]] if limit else numbers[:0]
    names = load_names(connection, _COLUMN_OF[kind], numbers.tolist())
    ranked = sorted(numbers.tolist(), key=lambda number: (-counts[number], names[number]))
    return [names[number] for number in ranked[:limit]]


def _full_text(contents: Contents, selection: Selection, connection: sqlite3.Connection) -> FullText:
    lengths = contents.columns.view("length", selection.text_end)
    return FullText(connection, selection.text_end, selection.texts(), lengths)
