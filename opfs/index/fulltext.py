"""Texts that have words, best first, by SQLite's FTS5; which of them come first is opfs.core.ranking's to say.

FTS5 finds; it does not rank: its own ranking goes over every match, 1.1 s for a word in half a million texts, and
weighs words by how often they are in texts that the reader may not see. Exact where no more than CANDIDATES texts
that may be seen match; of more than that, the newest CANDIDATES are ranked. Knows texts, not events.

Concurrency: any thread with a connection of its own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from opfs.core.ranking import best_with_ties, bm25, most_possible
from opfs.core.words import FUNCTION_WORDS, Phrase, count_phrases, spellings
from opfs.index.rows import load_texts

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from opfs.core.words import WordSearch

CANDIDATES = 4096
_FETCHED_AT_ONCE = 8192
SPELT_WORDS = 4
"""So many unknown words of a search are looked for in other spellings: each costs some hundred look-ups."""
SPELT_WEIGHT = 0.8
FUNCTION_WEIGHT = 0.5
"""What a word counts that is only spelt nearly so, and one that every question may have; measured, see
docs/design/search-quality.md."""

FEW_TEXTS = 1000
"""Up to so many texts are asked one by one, 50 us each, rather than looked for among those that match."""

_MATCHES = "SELECT rowid FROM words WHERE words MATCH ? AND rowid >= ? AND rowid < ? ORDER BY rowid DESC"
_MATCHES_AMONG = "SELECT rowid FROM words WHERE words MATCH ? AND rowid IN (SELECT value FROM json_each(?))"
_EXISTS = "SELECT 1 FROM words WHERE words MATCH ? LIMIT 1"

Ranked = tuple["NDArray[np.int64]", "NDArray[np.float64]"]


class FullText:
    """The texts below `end` for which `allowed` is True, or all of them; `lengths` in words."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        end: int,
        allowed: NDArray[np.bool_] | None,
        lengths: NDArray[np.uint16],
    ) -> None:
        self._connection = connection
        self._allowed = allowed
        self._lengths = lengths
        rows = None if allowed is None else np.flatnonzero(allowed)
        self._few = rows.tolist() if rows is not None and len(rows) <= FEW_TEXTS else None
        self._first, self._end = (0, end) if rows is None or not len(rows) else (int(rows[0]), int(rows[-1]) + 1)

    def all_of(self, search: WordSearch, limit: int) -> Ranked:
        """Texts that have everything wanted and nothing unwanted, with BM25, and all that tie with the last."""
        rows = self._matching(search.expression)
        wanted = search.wanted
        having = [len(rows)] if len(wanted) == 1 else [len(self._matching(phrase.expression)) for phrase in wanted]
        return self._rank(wanted, rows, having, limit)

    def any_of(self, words: Sequence[Phrase]) -> Loosely:
        """The texts that have some of the words; one that no text has stands for words spelt nearly so."""
        found: dict[Phrase, tuple[NDArray[np.int64], float]] = {}
        spelt = 0
        for word in words:
            rows = self._matching(word.expression)
            if len(rows):
                found[word] = rows, FUNCTION_WEIGHT if word.words[0] in FUNCTION_WORDS else 1.0
            elif spelt < SPELT_WORDS and word.words[0] not in FUNCTION_WORDS:
                spelt += 1
                for other in self._spelt_nearly(word):
                    rows = self._matching(other.expression)
                    if len(rows):
                        found.setdefault(other, (rows, SPELT_WEIGHT))
        return Loosely(self, found)

    def _spelt_nearly(self, word: Phrase) -> list[Phrase]:
        """The words of the index that are one typing error away."""
        others = (Phrase((other,)) for other in spellings(word.words[0]))
        return [other for other in others if self._connection.execute(_EXISTS, (other.expression,)).fetchone()]

    def _matching(self, expression: str) -> NDArray[np.int64]:
        """The newest texts that match, at most CANDIDATES."""
        parts, count = [], 0
        cursor = self._connection.execute(_MATCHES, (expression, self._first, self._end))
        try:
            at_once = CANDIDATES if self._allowed is None else _FETCHED_AT_ONCE
            while count < CANDIDATES and (fetched := cursor.fetchmany(at_once)):
                if self._few is not None and len(fetched) == at_once:
                    return self._matching_among(expression, self._few)
                part = np.fromiter((row for (row,) in fetched), dtype=np.int64, count=len(fetched))
                parts.append(part if self._allowed is None else part[self._allowed[part]])
                count += len(parts[-1])
        finally:
            cursor.close()
        return np.concatenate(parts)[:CANDIDATES] if parts else np.empty(0, dtype=np.int64)

    def _matching_among(self, expression: str, rows: Sequence[int]) -> NDArray[np.int64]:
        found = self._connection.execute(_MATCHES_AMONG, (expression, json.dumps(rows)))
        return np.sort(np.fromiter((row for (row,) in found), dtype=np.int64))[::-1][:CANDIDATES]

    def _rank(self, phrases: Sequence[Phrase], rows: NDArray[np.int64], having: Sequence[int], limit: int) -> Ranked:
        if not len(rows):
            return rows, np.empty(0, dtype=np.float64)
        scores = self.weigh(phrases, rows, np.array(having, dtype=np.int64), np.ones(len(phrases)))
        return best_with_ties(rows, scores, limit)

    def weigh(
        self,
        phrases: Sequence[Phrase],
        rows: NDArray[np.int64],
        having: NDArray[np.int64],
        weights: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """BM25 of texts."""
        counts = count_phrases(phrases, load_texts(self._connection, rows.tolist()))
        seen = self.seen
        return bm25(
            np.array(counts, dtype=np.int64).reshape(len(rows), len(phrases)),
            self._lengths[rows].astype(np.int64),
            having=having,
            total=len(seen),
            mean_length=float(seen.mean()),
            weights=weights,
        )

    @property
    def seen(self) -> NDArray[np.uint16]:
        """The lengths of the texts that may be seen."""
        return self._lengths if self._allowed is None else self._lengths[self._allowed]


class Loosely:
    """A search for some of the words of a text: which texts have them, and how much of what was asked for each has."""

    def __init__(self, texts: FullText, found: Mapping[Phrase, tuple[NDArray[np.int64], float]]) -> None:
        ordered = sorted(found, key=lambda phrase: len(found[phrase][0]))
        self._texts = texts
        self._phrases = ordered
        self._rows = [found[phrase][0] for phrase in ordered]
        self._having = np.array([len(rows) for rows in self._rows], dtype=np.int64)
        self._weights = np.array([found[phrase][1] for phrase in ordered], dtype=np.float64)

    def best(self, limit: int) -> NDArray[np.int64]:
        """The texts with the highest BM25, and all that tie with the last.

        A word that is in too many texts to rank them all tells little; it counts only in texts that have a rarer one,
        unless there is no rarer one.
        """
        rows = np.empty(0, dtype=np.int64)
        for more in self._rows:
            if len(rows) and len(rows) + len(more) > CANDIDATES:
                break
            rows = np.union1d(rows, more)
        return best_with_ties(rows, self._bm25(rows), limit)[0]

    def shares(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The BM25 of texts as a share of what a text could have at most; in [0, 1]."""
        most = most_possible(self._having, total=len(self._texts.seen), weights=self._weights)
        return self._bm25(rows) / (most or 1.0)

    def _bm25(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        if not len(rows) or not self._phrases:
            return np.zeros(len(rows), dtype=np.float64)
        return self._texts.weigh(self._phrases, rows, self._having, self._weights)
