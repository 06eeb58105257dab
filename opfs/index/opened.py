"""The files of an index that is open, and their one writer: tables, columns and vectors that agree.

Order of an append: columns into their files, then one transaction with texts, words and events. A crash in between
leaves numbers that nothing refers to, which the next append overwrites. Does not decide what is done about a file that
cannot be used, but for vectors, which are made again.

Concurrency: one thread at a time (opfs.index.store has the lock); `contents` may be taken by any thread.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlite_utils import Database

from opfs.errors import IntegrityError
from opfs.index.columns import EVENT_COLUMNS, AccessTable, Columns, length_of
from opfs.index.contents import Contents
from opfs.index.generations import Generations
from opfs.index.layout import COLUMNS_NAME, DATABASE_NAME
from opfs.index.readers import Readers
from opfs.index.rows import Names, access_triple, event_row, find_text, short_digest, storable
from opfs.index.schema import UnusableDatabase, prepare, version_of
from opfs.index.spare import keep_spare_of_version_1

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from opfs.index.generation import Vectors
    from opfs.index.generations import Work
    from opfs.ports import Embedder, IndexedEvent

_SYNC_EVENTS = 4096


class OpenIndex:
    """The index below `directory`, whose files are opened, or made where there are none.

    What did not reach the disk is cut or made again. Raises UnusableDatabase for what was made otherwise (another
    version, other words), IntegrityError, sqlite3.Error and what else damaged bytes come out as, OSError.
    """

    contents: Contents
    """What searches see; another one after each change."""

    def __init__(
        self,
        directory: Path,
        embedder: Embedder,
        other_embedder: Callable[[str], Embedder | None],
        words_version: int,
    ) -> None:
        path = directory / DATABASE_NAME
        with contextlib.ExitStack() as undo:
            connection = sqlite3.connect(path, check_same_thread=False)
            undo.callback(connection.close)
            path.chmod(0o600)
            if version_of(connection) == 1:
                keep_spare_of_version_1(directory)
            # Other people's sqlite-utils plugins have no business in this process.
            self._database = Database(connection, execute_plugins=False)
            self._database.execute("PRAGMA journal_mode = WAL").fetchone()
            # Derived, so a power cut may take the last transactions; WAL keeps the rest whole.
            self._database.execute("PRAGMA synchronous = NORMAL")
            # A log that a burst made long is cut when it was copied, and not kept at that length.
            self._database.execute("PRAGMA journal_size_limit = 16777216").fetchone()
            prepare(connection)
            synced = self._read_meta(words_version)
            events, texts, tip_hash = self._read_counts()
            self._columns = Columns(directory / COLUMNS_NAME)
            undo.callback(self._columns.close)
            self._columns.agree(connection, events, texts, synced)
            self._synced_events = min(synced[0], events)
            self._names = Names(connection)
            self.generations = Generations.open(directory, self._database, embedder, other_embedder, texts)
            undo.callback(self.generations.close)
            self._known_embedded = 0
            self._readers = Readers(path)
            undo.callback(self._readers.close)
            self._publish(events, texts, tip_hash, self._read_access(), None)
            undo.pop_all()

    def _read_meta(self, words_version: int) -> tuple[int, int]:
        """How many events and texts are known to be in the columns; a new index gets its identity."""
        execute = self._database.execute
        meta = execute("SELECT identity, words_version, synced_events, synced_texts FROM meta").fetchone()
        if meta is None:
            self._identity = secrets.token_hex(8)
            with self._database.atomic():
                execute("INSERT INTO meta VALUES (0, ?, ?, 0, 0)", [self._identity, words_version])
            return 0, 0
        self._identity, version, *synced = meta
        if version != words_version:
            raise UnusableDatabase(f"its words are of version {version}, and are now of {words_version}")
        return int(synced[0]), int(synced[1])

    def _read_counts(self) -> tuple[int, int, str]:
        execute = self._database.execute
        (texts,) = execute("SELECT coalesce(max(row) + 1, 0) FROM texts").fetchone()
        newest = execute("SELECT seq, event_hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return (0, texts, "") if newest is None else (newest[0] + 1, texts, newest[1].hex())

    def _read_access(self) -> AccessTable:
        rows = self._database.execute("SELECT id, uid, gid, mode FROM access ORDER BY id").fetchall()
        if [row[0] for row in rows] != list(range(len(rows))):
            raise IntegrityError("its table of permissions has gaps")
        return AccessTable([row[1:] for row in rows])

    def append(self, events: Sequence[IndexedEvent]) -> None:
        """Add events in one transaction; raises OSError, sqlite3.Error, and then none was added."""
        contents = self.contents
        access = contents.access.including([access_triple(event) for event in events])
        try:
            with self._database.atomic():
                new, text_rows = self._number_texts([storable(event.text) for event in events], contents.text_count)
                rows = [
                    event_row(event, self._names, text_row, access.number(access_triple(event)))
                    for event, text_row in zip(events, text_rows, strict=True)
                ]
                self._insert(rows, new, access)
                plugins = [self._names.plugin(event.id.plugin) for event in events]
                self._write_columns(rows, plugins, list(new))
                # After this line: numbers in the columns that no row refers to; a crash here leaves them at the end of
                # the files; repaired by the next start, which makes the files as the tables are.
        except BaseException:
            self._names.forget()
            raise
        end = contents.event_count + len(events)
        self._publish(end, contents.text_count + len(new), events[-1].event_hash, access, text_rows)
        if end - self._synced_events >= _SYNC_EVENTS:
            self.sync()

    def _number_texts(self, texts: Sequence[str], next_row: int) -> tuple[dict[str, int], list[int]]:
        """The texts that are new, with their rows, and the row of every text."""
        new: dict[str, int] = {}
        rows = []
        for text in texts:
            row = new.get(text)
            if row is None:
                row = find_text(self._database.conn, text)
            if row is None:
                row = new[text] = next_row + len(new)
            rows.append(row)
        return new, rows

    def _insert(self, rows: Sequence[tuple[object, ...]], new: dict[str, int], access: AccessTable) -> None:
        insert = self._database.conn.executemany
        known = len(self.contents.access.triples)
        triples = [(known + number, *triple) for number, triple in enumerate(access.triples[known:])]
        insert("INSERT INTO access VALUES (?, ?, ?, ?)", triples)
        insert("INSERT INTO texts VALUES (?, ?, ?)", [(row, short_digest(text), text) for text, row in new.items()])
        insert("INSERT INTO words (rowid, text) VALUES (?, ?)", [(row, text) for text, row in new.items()])
        insert("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _write_columns(self, rows: Sequence[tuple[object, ...]], plugins: Sequence[int], new: Sequence[str]) -> None:
        _, _, elements, ops, actors, times, _, _, texts, access = zip(*rows, strict=True)
        values = {"text": texts, "access": access, "element": elements, "plugin": plugins}
        values |= {"op": ops, "actor": actors, "time_ns": times}
        self._columns.write(self.contents.event_count, {name: values[name] for name in EVENT_COLUMNS})
        self._columns.write(self.contents.text_count, {"length": [length_of(text) for text in new]})

    def finish(self, work: Work, vectors: NDArray[np.float32]) -> None:
        """Store vectors that were made; raises OSError, sqlite3.Error."""
        contents = self.contents
        self.generations.finish(work, vectors, contents.text_count)
        self._publish(contents.event_count, contents.text_count, contents.tip_hash, contents.access, None)

    def sync(self) -> None:
        """Have the columns on the disk, and note how far they are."""
        contents = self.contents
        self._columns.sync()
        with self._database.atomic():
            self._database.execute(
                "UPDATE meta SET synced_events = ?, synced_texts = ?", [contents.event_count, contents.text_count]
            )
        self._synced_events = contents.event_count

    def _publish(
        self, event_count: int, text_count: int, tip_hash: str, access: AccessTable, added: Sequence[int] | None
    ) -> None:
        """`added` are the texts of the events that were just added, None where not only that has changed."""
        active = self.generations.active
        vectors = active.vectors if self.generations.embedder is not None else None
        # One assignment: a search sees the index before or after, never in between.
        self.contents = Contents(
            identity=f"{self._identity}-{active.directory.name}",
            tip_hash=tip_hash,
            event_count=event_count,
            text_count=text_count,
            columns=self._columns,
            access=access,
            readers=self._readers,
            vectors=vectors,
            embedder=self.generations.embedder,
            embedded_count=self._count_embedded(event_count, text_count, vectors, added),
            notice=self.generations.notice(text_count),
        )

    def _count_embedded(
        self, event_count: int, text_count: int, vectors: Vectors | None, added: Sequence[int] | None
    ) -> int:
        """The number of the first event whose text has no vector, by what was known before."""
        if vectors is None or vectors.count >= text_count:
            self._known_embedded = event_count
        elif added is None:
            known = min(self._known_embedded, event_count)
            self._known_embedded = known + _first_from(self._columns.view("text", event_count)[known:], vectors.count)
        elif self._known_embedded == event_count - len(added):
            # The column would have to be mapped anew for each event.
            self._known_embedded += _first_from(np.array(added), vectors.count)
        return self._known_embedded

    def close(self) -> None:
        """Close everything; searches under way are told that it is closed."""
        self._readers.close()
        self._database.close()
        self._columns.close()
        self.generations.close()


def _first_from(texts: NDArray[np.integer[Any]], end: int) -> int:
    """The position of the first text that is not below `end`; how many there are, if all are."""
    found = np.flatnonzero(texts >= end)
    return int(found[0]) if len(found) else len(texts)
