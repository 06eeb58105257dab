"""Compare the index with what the chain says it has to hold: every event's row, its columns, words and vectors.

Opens the files for reading only, beside a daemon that may be using them. A vector is held against the checksum and the
digest of the text that were stored with it, not against the model. An index that has not got to the end of the chain,
or that was made with other sentences or by another version and so will be made again, is not wrong.
"""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from opfs.core.audit import Finding
from opfs.core.narrative import VERSION as WORDS_VERSION
from opfs.errors import OpfsError
from opfs.index import schema
from opfs.index.columns import EVENT_COLUMNS, TEXT_COLUMNS, open_column, read_events, read_texts
from opfs.index.exact.search import ExactSearch
from opfs.index.generation import directory_of
from opfs.index.layout import COLUMNS_NAME, DATABASE_NAME, ROWS_NAME
from opfs.index.looking import look_at, vectors_in
from opfs.index.rows import load_events, storable, text_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from opfs.index.packed import PackedFile
    from opfs.ports import IndexedEvent

PLACE = f"@index/{DATABASE_NAME}"
_BATCH = 256
_VECTORS_AT_ONCE = 1024
_FIELDS = ("height", "id", "op", "time", "actor", "summary", "text", "uid", "gid", "mode", "event_hash")


class IndexAudit:
    """The index below `directory`; one that is not there has nothing wrong with it."""

    def __init__(self, directory: Path, *, words_version: int = WORDS_VERSION) -> None:
        self._directory = directory
        self._words_version = words_version

    def check(
        self, events: Iterable[IndexedEvent], event_count: int, *, may_be_ahead: bool = False
    ) -> Iterator[Finding]:
        """Everything that is wrong; `events` are those of the chain that are to be compared, in order.

        The chain had `event_count` events when it was read; with a daemon at work the index may have got ahead.
        """
        if not (self._directory / DATABASE_NAME).exists():
            return
        try:
            with look_at(self._directory) as connection:
                if not self._is_current(connection):
                    return
                yield from _check_events(connection, events, None if may_be_ahead else event_count)
                yield from self._check_columns(connection)
                yield from _check_words(connection)
                yield from self._check_vectors(connection)
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            yield Finding(None, PLACE, "index", f"it cannot be read: {error}")

    def check_words(self) -> Iterator[Finding]:
        """Whether every word of every text is found; in a copy, because FTS5 checks only what it may write."""
        if not (self._directory / DATABASE_NAME).exists():
            return
        copy = self._directory / f"{DATABASE_NAME}.check"
        try:
            with look_at(self._directory) as connection, closing(sqlite3.connect(copy)) as writable:
                copy.chmod(0o600)
                connection.backup(writable)
                if self._is_current(writable):
                    # source: sqlite.org/fts5.html, section 6.5
                    writable.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
        except (sqlite3.Error, ValueError) as error:
            yield Finding(None, PLACE, "index", f"its words are not those of its texts: {error}")
        finally:
            for suffix in ("", "-journal", "-wal", "-shm"):
                copy.with_name(copy.name + suffix).unlink(missing_ok=True)

    def check_search(self) -> Iterator[Finding]:
        """Whether what makes searches fast is what was made of the vectors; only while no daemon is at work on it."""
        if not (self._directory / DATABASE_NAME).exists():
            return
        models: list[tuple[str, int, int]] = []
        # What cannot be read is told by `check`.
        with suppress(sqlite3.Error, ValueError), look_at(self._directory) as connection:
            if self._is_current(connection):
                models = connection.execute("SELECT model_id, dimensions, synced_rows FROM generations").fetchall()
        for model_id, dimensions, synced in models:
            directory = directory_of(self._directory, model_id)
            try:
                with vectors_in(self._directory, model_id, dimensions) as (rows, _):
                    base = rows.rows(min(rows.count, synced))
                    with closing(ExactSearch(directory, base)) as search:
                        search.check(base)
            except (OpfsError, OSError) as error:
                yield Finding(None, f"@index/{directory.name}", "index", str(error))

    def _is_current(self, connection: sqlite3.Connection) -> bool:
        if schema.version_of(connection) != schema.VERSION:
            return False
        row = connection.execute("SELECT words_version FROM meta").fetchone()
        return row is not None and row[0] == self._words_version

    def _check_columns(self, connection: sqlite3.Connection) -> Iterator[Finding]:
        synced = connection.execute("SELECT synced_events, synced_texts FROM meta").fetchone()
        for columns, read, end in ((EVENT_COLUMNS, read_events, synced[0]), (TEXT_COLUMNS, read_texts, synced[1])):
            for name in columns:
                place = f"@index/{COLUMNS_NAME}/{name}"
                try:
                    with closing(open_column(self._directory / COLUMNS_NAME, name, writable=False)) as file:
                        values = file.view(end)
                        for first, rows in read(connection, 0, end):
                            true = rows[name]
                            wrong = np.flatnonzero(values[first : first + len(true)] != true)
                            if len(wrong):
                                problem = f"record {first + int(wrong[0])} is not what the table says"
                                yield Finding(None, place, "index", problem)
                                break
                except (OpfsError, OSError) as error:
                    yield Finding(None, place, "index", str(error))

    def _check_vectors(self, connection: sqlite3.Connection) -> Iterator[Finding]:
        for model_id, dimensions, _, synced in connection.execute("SELECT * FROM generations").fetchall():
            directory = directory_of(self._directory, model_id)
            place = f"@index/{directory.name}/{ROWS_NAME}"
            try:
                with vectors_in(self._directory, model_id, dimensions) as (rows, labels):
                    yield from _check_rows(connection, place, rows, labels, synced)
            except (OpfsError, OSError) as error:
                yield Finding(None, place, "index", str(error))


def _check_rows(
    connection: sqlite3.Connection, place: str, rows: PackedFile, labels: PackedFile, count: int
) -> Iterator[Finding]:
    """The first `count` vectors; what was not synced yet is checked, and cut if need be, by the next start."""
    if min(rows.count, labels.count) < count:
        yield Finding(None, place, "index", f"it has {min(rows.count, labels.count)} vectors, and had {count}")
        return
    found, vectors = labels.view(count), rows.rows(count)
    texts = connection.execute("SELECT row, text FROM texts WHERE row < ? ORDER BY row", (count,))
    for first in range(0, count, _VECTORS_AT_ONCE):
        part = vectors.take(np.arange(first, min(first + _VECTORS_AT_ONCE, count)))
        for number, vector in enumerate(part, first):
            row, text = texts.fetchone() or (None, "")
            if zlib.crc32(vector.tobytes()) != found[number]["crc32"]:
                yield Finding(None, place, "index", f"vector {number} is not the one that was made")
            elif row != number or found[number]["digest"].tobytes() != text_digest(text):
                yield Finding(None, place, "index", f"vector {number} is not that of its text")


def _check_words(connection: sqlite3.Connection) -> Iterator[Finding]:
    texts, last = connection.execute("SELECT count(*), coalesce(max(row), -1) FROM texts").fetchone()
    (entered,) = connection.execute("SELECT count(*) FROM words_docsize").fetchone()
    if not texts == last + 1 == entered:
        problem = f"of {last + 1} texts {texts} are there, and {entered} can be found by words"
        yield Finding(None, PLACE, "index", problem)


def _check_events(
    connection: sqlite3.Connection, events: Iterable[IndexedEvent], count: int | None
) -> Iterator[Finding]:
    rows, last = connection.execute("SELECT count(*), coalesce(max(seq), -1) FROM events").fetchone()
    if rows != last + 1:
        yield Finding(None, PLACE, "index", f"of the first {last + 1} events {last + 1 - rows} are missing")
    if count is not None and last >= count:
        yield Finding(None, PLACE, "index", f"it has {last + 1} events, the chain has {count}")
    batch: list[IndexedEvent] = []
    for event in events:
        if event.seq > last:
            break
        batch.append(event)
        if len(batch) == _BATCH:
            yield from _compare(connection, batch)
            batch.clear()
    yield from _compare(connection, batch)


def _compare(connection: sqlite3.Connection, batch: list[IndexedEvent]) -> Iterator[Finding]:
    found = load_events(connection, [event.seq for event in batch])
    for event in batch:
        true = replace(event, actor=storable(event.actor), summary=storable(event.summary), text=storable(event.text))
        row = found.get(event.seq)
        if row == true:
            continue
        if row is None:
            problem = "is not there"
        else:
            names = [name for name in _FIELDS if getattr(row, name) != getattr(true, name)]
            problem = f"has another {' and '.join(names)} than the event of {event.id} in block {event.height}"
        yield Finding(None, PLACE, "index", f"row {event.seq} {problem}")
