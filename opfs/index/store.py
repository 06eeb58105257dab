"""`SqliteIndex`: what happened, in words and vectors, in `events.db` and `vectors.f32`.

Derived from the chain. Whatever cannot be used when it is opened (damage, another model, a newer version) is
set aside and the index is empty, so that its owner builds it again; a torn end is cut. The index does not know the
chain: its owner compares `tip` with it.

Order of an append: vectors into the file, then one transaction with the rows that refer to them.
A crash in between leaves vectors that nothing refers to, which the next append overwrites. After a power cut
the file may lack vectors that the table has; then the events from the first such one on are forgotten.

Concurrency: `append`, `clear` and `close` exclude each other by a lock; the writer's connection is used under
that lock only. Searches take no lock: they work on one immutable `_Contents`, and read text through
connections of their own (opfs.index.readers).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sqlite_utils import Database

from opfs.core.ranking import nearest
from opfs.errors import IntegrityError, NoSpace, OpfsError, PoolError
from opfs.index.columns import AccessTable, GrowingColumn
from opfs.index.layout import DATABASE_NAME, VECTORS_NAME
from opfs.index.readers import Readers, ReadersClosed
from opfs.index.rows import access_triple, event_row, load_events, storable, text_digest
from opfs.index.schema import UnusableDatabase, migrate
from opfs.index.vectors import VectorFile
from opfs.ports import Hit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from opfs.ports import Embedder, IndexedEvent

DAMAGED_SUFFIX = ".damaged"

_APPEND_EVENTS = 256
"""Events per transaction: progress shows, and a crash loses little of a rebuild."""

_SYNC_ROWS = 4096
_REBUILD_HINT = "build it again: opfs index rebuild"

# How damaged bytes come out of sqlite3: as its errors, as text that is none (error messages too), or as values
# that do not fit the column.
_DAMAGE = (sqlite3.Error, ValueError, TypeError, OverflowError)

# What the machine lacks at the moment, as opposed to what is wrong with the file.
_NOT_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Contents:
    """One state of the index, for searches: event i has seq i. Never changed once published."""

    tip_hash: str
    vectors: NDArray[np.float32]
    rows: NDArray[np.uint32]
    access_numbers: NDArray[np.uint32]
    access: AccessTable
    readers: Readers

    @property
    def count(self) -> int:
        return len(self.rows)


class SqliteIndex:
    """The index below `directory`, which is made if it is missing and closed to all but its owner."""

    def __init__(self, directory: Path, embedder: Embedder) -> None:
        self._directory = directory
        self._embedder = embedder
        self._lock = threading.Lock()
        self._is_closed = False
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # It holds what documents say, whoever may read those.
            directory.chmod(0o700)
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise self._translated(error) from error

    # --- searching: any thread, no lock ------------------------------------------------------------------

    @property
    def indexed_count(self) -> int:
        return self._contents.count

    def tip(self) -> tuple[int, str] | None:
        contents = self._contents
        return (contents.count - 1, contents.tip_hash) if contents.count else None

    def similar(self, text: str, *, limit: int, uid: int, gids: Collection[int]) -> Sequence[Hit]:
        (query,) = self._embedder.embed([text])
        while True:
            contents = self._contents
            readable = contents.access.readable(contents.access_numbers, uid, gids)
            seqs, scores = nearest(contents.vectors, query, rows=contents.rows, readable=readable, limit=limit)
            try:
                events = self._load_events(contents.readers, seqs.tolist())
            except (ReadersClosed, IntegrityError, *_DAMAGE) as error:
                # The index may have been cleared under this search; the lock is free once that is done.
                with self._lock:
                    if self._contents.readers is not contents.readers:
                        continue
                if isinstance(error, ReadersClosed):
                    raise PoolError("the index is closed") from None
                if isinstance(error, IntegrityError):
                    raise
                raise self._translated(error) from error
            return [Hit(score, event) for score, event in zip(scores.tolist(), events, strict=True)]

    def _load_events(self, readers: Readers, seqs: Sequence[int]) -> list[IndexedEvent]:
        with readers.borrow() as connection:
            found = load_events(connection, seqs)
        missing = [seq for seq in seqs if seq not in found]
        if missing:
            raise IntegrityError(f"the index in {self._directory} has lost event {missing[0]}", hint=_REBUILD_HINT)
        return [found[seq] for seq in seqs]

    # --- changing: one thread at a time ------------------------------------------------------------------

    def append(self, events: Sequence[IndexedEvent]) -> None:
        with self._lock:
            self._require_open()
            for start in range(0, len(events), _APPEND_EVENTS):
                self._append(events[start : start + _APPEND_EVENTS])

    def clear(self) -> None:
        with self._lock:
            self._require_open()
            self._detach()
            try:
                self._remove_files()
                self._open()
            except (OSError, sqlite3.Error) as error:
                raise self._translated(error) from error

    def close(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            # Derived data: what a failing disk does not sync, the next open finds missing and cuts.
            with contextlib.suppress(OSError, sqlite3.Error):
                self._sync()
            self._detach()

    def _require_open(self) -> None:
        if self._is_closed:
            raise PoolError("the index is closed")

    def _append(self, events: Sequence[IndexedEvent]) -> None:
        first = self._contents.count
        if [event.seq for event in events] != list(range(first, first + len(events))):
            raise ValueError(f"events to append must be numbered from {first} on, without gaps")
        texts = {text_digest(event.text): event.text for event in events}
        try:
            text_rows = self._known_rows(texts)
            new = {digest: text for digest, text in texts.items() if digest not in text_rows}
            checksums = self._write_vectors(list(new.values()))
            text_rows |= {digest: self._row_count + number for number, digest in enumerate(new)}
            # After this line: vectors that no row refers to; a crash here leaves them; overwritten by the next append.
            access = self._contents.access.including([access_triple(event) for event in events])
            with self._database.atomic():
                self._insert(events, new, checksums, text_rows, access)
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
            raise self._translated(error) from error
        self._row_count += len(new)
        self._text_rows.extend([text_rows[text_digest(event.text)] for event in events])
        self._access_numbers.extend([access.number(access_triple(event)) for event in events])
        self._publish(events[-1].event_hash, access)
        if self._row_count - self._synced_rows >= _SYNC_ROWS:
            self._sync()

    def _known_rows(self, digests: Iterable[bytes]) -> dict[bytes, int]:
        # Row by row on the unique index: SQLite has no way to pass a list of blobs.
        select = "SELECT row FROM texts WHERE sha256 = ?"
        found = ((digest, self._database.execute(select, [digest]).fetchone()) for digest in digests)
        return {digest: row[0] for digest, row in found if row is not None}

    def _write_vectors(self, texts: Sequence[str]) -> list[int]:
        vectors = np.asarray(self._embedder.embed(texts), dtype=np.float32)
        if vectors.shape != (len(texts), self._embedder.dimensions) or not np.isfinite(vectors).all():
            raise IntegrityError(f"{self._embedder.model_id} did not give one finite vector for each text")
        return self._vectors.write(self._row_count, vectors)

    def _insert(
        self,
        events: Sequence[IndexedEvent],
        new_texts: dict[bytes, str],
        checksums: Sequence[int],
        text_rows: dict[bytes, int],
        access: AccessTable,
    ) -> None:
        known = len(self._contents.access.triples)
        self._database.table("access").insert_all(
            {"id": known + number, "uid": uid, "gid": gid, "mode": mode}
            for number, (uid, gid, mode) in enumerate(access.triples[known:])
        )
        self._database.table("texts").insert_all(
            {"row": text_rows[digest], "sha256": digest, "crc32": crc, "text": storable(text)}
            for (digest, text), crc in zip(new_texts.items(), checksums, strict=True)
        )
        self._database.table("events").insert_all(
            event_row(event, text_rows[text_digest(event.text)], access.number(access_triple(event)))
            for event in events
        )

    def _sync(self) -> None:
        self._vectors.sync()
        with self._database.atomic():
            self._database.execute("UPDATE meta SET synced_rows = ?", [self._row_count])
        self._synced_rows = self._row_count

    def _publish(self, tip_hash: str, access: AccessTable) -> None:
        # One assignment: a search sees the index before or after, never in between.
        self._contents = _Contents(
            tip_hash=tip_hash,
            vectors=self._vectors.view(self._row_count),
            rows=self._text_rows.view(),
            access_numbers=self._access_numbers.view(),
            access=access,
            readers=self._readers,
        )

    # --- opening -----------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._attach()
            return
        except UnusableDatabase as error:
            logger.info("the index in %s is begun anew: %s", self._directory, error)
        except (*_DAMAGE, IntegrityError) as error:
            if _primary_code(error) in _NOT_DAMAGE:
                raise
            logger.warning("the index in %s is damaged and begun anew: %s", self._directory, error)
            self._set_aside()
        self._remove_files()
        self._attach()

    def _attach(self) -> None:
        """Open or make the database and the vectors, and agree on what both have."""
        path = self._directory / DATABASE_NAME
        with contextlib.ExitStack() as undo:
            connection = sqlite3.connect(path, check_same_thread=False)
            undo.callback(connection.close)
            path.chmod(0o600)
            # Other people's sqlite-utils plugins have no business in this process.
            self._database = Database(connection, execute_plugins=False)
            self._database.execute("PRAGMA journal_mode = WAL").fetchone()
            # Derived, so a power cut may take the last transactions; WAL keeps the rest whole.
            self._database.execute("PRAGMA synchronous = NORMAL")
            migrate(self._database)
            self._vectors = self._attach_vectors()
            undo.callback(self._vectors.close)
            self._agree()
            self._load_columns()
            undo.pop_all()

    def _attach_vectors(self) -> VectorFile:
        path = self._directory / VECTORS_NAME
        embedder = self._embedder
        meta = self._database.execute("SELECT model_id, synced_rows FROM meta").fetchone()
        if meta is None:
            self._synced_rows = 0
            vectors = VectorFile.create(path, embedder.model_id, embedder.dimensions)
            with self._database.atomic():
                self._database.execute("INSERT INTO meta VALUES (0, ?, 0)", [embedder.model_id])
            return vectors
        model_id, self._synced_rows = meta
        if model_id != embedder.model_id:
            raise UnusableDatabase(f"it was made with the model {model_id}, and the model is now {embedder.model_id}")
        return VectorFile.open(path, model_id, embedder.dimensions)

    def _agree(self) -> None:
        """Cut the file and the tables to the longest beginning that both have whole."""
        table_rows = self._database.execute("SELECT coalesce(max(row) + 1, 0) FROM texts").fetchone()[0]
        whole = self._whole_rows(min(self._vectors.row_count, table_rows))
        if whole < table_rows:
            logger.warning("the index in %s ended torn: %d vectors of %d are whole", self._directory, whole, table_rows)
            with self._database.atomic():
                first_lost = "(SELECT min(seq) FROM events WHERE text_row >= ?)"
                self._database.execute(f"DELETE FROM events WHERE seq >= {first_lost}", [whole])
                self._database.execute("DELETE FROM texts WHERE row >= ?", [whole])
                self._database.execute("UPDATE meta SET synced_rows = min(synced_rows, ?)", [whole])
        # Cutting what the table does not have also cuts a torn row.
        self._vectors.truncate(whole)
        self._row_count = whole
        self._synced_rows = min(self._synced_rows, whole)

    def _whole_rows(self, count: int) -> int:
        """How many of the first `count` rows are as they were written; those synced are taken to be.

        What rots on a disk that kept it once is for the file system's checksums to find.
        """
        start = min(self._synced_rows, count)
        select = "SELECT crc32 FROM texts WHERE row >= ? AND row < ? ORDER BY row"
        expected = [crc for (crc,) in self._database.execute(select, [start, count])]
        actual = self._vectors.checksums(start, count)
        if len(expected) != len(actual):
            raise IntegrityError("rows of the table of texts are missing")
        return next((start + i for i, (a, b) in enumerate(zip(expected, actual, strict=True)) if a != b), count)

    def _load_columns(self) -> None:
        access = self._database.execute("SELECT id, uid, gid, mode FROM access ORDER BY id").fetchall()
        events = self._database.execute("SELECT text_row, access_id FROM events ORDER BY seq").fetchall()
        newest = self._database.execute("SELECT seq, event_hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        columns = np.array(events, dtype=np.int64).reshape(-1, 2)
        # A gap would give every later event another's permissions.
        gapless = [row[0] for row in access] == list(range(len(access))) and (
            newest is None or newest[0] == len(events) - 1
        )
        if not gapless or (columns >= [self._row_count, len(access)]).any() or (columns < 0).any():
            raise IntegrityError("its tables contradict each other")
        self._text_rows, self._access_numbers = GrowingColumn(), GrowingColumn()
        self._text_rows.extend(columns[:, 0].astype(np.uint32))
        self._access_numbers.extend(columns[:, 1].astype(np.uint32))
        self._readers = Readers(self._directory / DATABASE_NAME)
        self._publish(newest[1] if newest else "", AccessTable([row[1:] for row in access]))

    def _detach(self) -> None:
        self._readers.close()
        self._database.close()
        self._vectors.close()

    def _set_aside(self) -> None:
        """Keep one damaged database for whoever wants to know why."""
        path = self._directory / DATABASE_NAME
        with contextlib.suppress(FileNotFoundError):
            path.replace(path.with_name(DATABASE_NAME + DAMAGED_SUFFIX))

    def _remove_files(self) -> None:
        for name in (DATABASE_NAME, f"{DATABASE_NAME}-wal", f"{DATABASE_NAME}-shm", VECTORS_NAME):
            (self._directory / name).unlink(missing_ok=True)

    def _translated(self, error: Exception) -> OpfsError:
        if isinstance(error, OSError):
            kind = NoSpace if error.errno == NoSpace.errno else PoolError
            return kind(f"the index in {self._directory} cannot be used: {error.strerror}")
        code = _primary_code(error)
        if code in _NOT_DAMAGE:
            kind = NoSpace if code == sqlite3.SQLITE_FULL else PoolError
            return kind(f"the index in {self._directory} cannot be used: {error}")
        return IntegrityError(f"the index in {self._directory} is damaged: {error}", hint=_REBUILD_HINT)


def _primary_code(error: Exception) -> int:
    """SQLite's result code without its extension; 0 for an error that is not SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
