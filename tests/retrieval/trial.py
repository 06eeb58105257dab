"""The labelled set asked of a real index: which events each way of searching finds, and how good that is.

Everything goes the way of a real host: describe_event, append, embed, search. Deterministic but for the last digit of
vectors. Blocking; an index lives below the directory it is given.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from opfs.core.words import words_of
from opfs.errors import InvalidRequest
from opfs.index.store import SqliteIndex
from retrieval.blocks import LifeBlocks
from retrieval.hard import hard
from retrieval.life import Life
from retrieval.metrics import DEPTH, ndcg, recall, reciprocal_rank
from retrieval.questions import generated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from opfs.ports import Embedder, IndexedEvent
    from retrieval.facts import Change
    from retrieval.questions import Question

SEED, CHANGES = 1, 2400
_EMBEDDED_AT_ONCE = 256


@cache
def changes() -> tuple[Change, ...]:
    """The changes of the set."""
    return tuple(Life(SEED).changes(CHANGES))


@cache
def events() -> tuple[IndexedEvent, ...]:
    """The events of the changes, in opfs' own words."""
    return tuple(LifeBlocks().describe_all(changes()))


@cache
def questions() -> tuple[Question, ...]:
    """The questions of the set with their labels, generated and written by hand."""
    return (*generated(changes()), *hard(changes()))


@dataclass(frozen=True, slots=True)
class Scores:
    """One figure for each question, in their order."""

    recall: tuple[float, ...]
    reciprocal_rank: tuple[float, ...]
    ndcg: tuple[float, ...]

    @classmethod
    def of(cls, rankings: Sequence[Sequence[int]], asked: Sequence[Question]) -> Scores:
        pairs = [(ranking, question.grades) for ranking, question in zip(rankings, asked, strict=True)]
        return cls(*(tuple(metric(*pair) for pair in pairs) for metric in (recall, reciprocal_rank, ndcg)))


class Trial:
    """An index of `described` events, in which each question is asked in every way."""

    def __init__(self, directory: Path, embedder: Embedder, described: Sequence[IndexedEvent]) -> None:
        self.index = SqliteIndex(directory, embedder)
        self.index.append(described)
        while self.index.embed(_EMBEDDED_AT_ONCE):
            pass

    def close(self) -> None:
        self.index.close()

    def similar(self, text: str, limit: int = DEPTH) -> list[int]:
        return [hit.event.seq for hit in self.index.similar(text, limit=limit, uid=0, gids=())]

    def text(self, text: str, limit: int = DEPTH) -> list[int]:
        try:
            return [hit.event.seq for hit in self.index.matching(text, limit=limit, uid=0, gids=())]
        except InvalidRequest:
            return []

    def hybrid(self, text: str, limit: int = DEPTH) -> list[int]:
        return [hit.event.seq for hit in self.index.fused(text, limit=limit, uid=0, gids=())]

    def ask(self, way: Callable[[str], Sequence[int]], asked: Sequence[Question]) -> Scores:
        return Scores.of([way(question.text) for question in asked], asked)


class AnyWords:
    """Full text as SQLite brings it: texts that have any of the words, by its own BM25. What text search is at best."""

    def __init__(self, described: Sequence[IndexedEvent], tokenizer: str = "unicode61 remove_diacritics 2") -> None:
        self._database = sqlite3.connect(":memory:")
        self._database.execute(f"CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = '{tokenizer}')")
        self._database.executemany(
            "INSERT INTO words (rowid, text) VALUES (?, ?)", [(e.seq, e.text) for e in described]
        )

    def __call__(self, text: str, limit: int = DEPTH) -> list[int]:
        expression = " OR ".join(f'"{word}"' for word in words_of(text))
        query = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank, rowid DESC LIMIT ?"
        return [seq for (seq,) in self._database.execute(query, (expression, limit))]

    def close(self) -> None:
        self._database.close()


def by_ranks(lists: Sequence[Sequence[int]], k: int = 60) -> list[int]:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009), ties by newer first; to compare with."""
    scores: dict[int, float] = {}
    for ranked in lists:
        for rank, item in enumerate(ranked, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (k + rank)
    return sorted(scores, key=lambda item: (-scores[item], -item))


# --- other wordings, to compare with ------------------------------------------------------------------------


def reworded(wording: Callable[[Change, IndexedEvent], str]) -> list[IndexedEvent]:
    """The events with other sentences."""
    return [replace(event, text=wording(change, event)) for change, event in zip(changes(), events(), strict=True)]


def proposal(change: Change, event: IndexedEvent) -> str:
    """The embedding text of the original proposal: a line for each key of the document."""
    document = (change.old if change.op == "delete" else change.new) or {}
    lines = [f"plugin: {change.id.plugin}", f"operation: {change.op}", f"element: {change.id.element}"]
    lines += [f"{key}: {value}" for key, value in document.items()]
    return "\n".join([*lines, f"meta.message: {change.message}", f"meta.actor: {event.actor}"])


def summary_line(change: Change, event: IndexedEvent) -> str:
    """What a listing shows: keys and values as the document writes them."""
    return f"{change.op} {change.id} {event.summary} {change.message} {event.actor}"


WORDINGS: dict[str, Callable[[Change, IndexedEvent], str]] = {
    "proposal": proposal,
    "summary": summary_line,
}
