"""`SqliteHistory`: every event by its element, in `history.db`; /history and roll-backs are read by it.

Derived from the chain, as the search index is, and apart from it: it needs no language model, so it is up to date
within milliseconds of a block. What cannot be used when it is opened (damage, another version) is deleted and
made again by its owner, who compares `tip` with the chain.

Concurrency: `append`, `clear` and `close` exclude each other by a lock; reads borrow connections of their own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from sqlite_utils import Database

from opfs.core.names import ElementId
from opfs.errors import IntegrityError, NoSpace, OpfsError, PoolError
from opfs.index.readers import Readers, ReadersClosed
from opfs.index.rows import storable
from opfs.ports import EventLine, EventStretch, FileAttributes, RecordedEvent

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

HISTORY_NAME = "history.db"
VERSION = 2

_SCHEMA = """
CREATE TABLE elements (
  id      INTEGER PRIMARY KEY,
  plugin  TEXT NOT NULL,
  element TEXT NOT NULL,
  UNIQUE (plugin, element)
) STRICT;

CREATE TABLE events (
  seq        INTEGER PRIMARY KEY,                       -- global number of the event, without gaps
  element_id INTEGER NOT NULL REFERENCES elements (id),
  is_version INTEGER NOT NULL,                          -- 1 where the document is another than before
  height     INTEGER NOT NULL,                          -- the block that holds it
  op         TEXT NOT NULL,
  content    BLOB,                                      -- BLAKE3 of the document after the event
  time_ns    INTEGER NOT NULL,
  uid        INTEGER NOT NULL,                          -- the actor's
  user       TEXT NOT NULL,
  message    TEXT NOT NULL,
  mode       INTEGER NOT NULL,                          -- of the document
  owner      INTEGER NOT NULL,
  owner_group INTEGER NOT NULL,
  mtime_ns   INTEGER NOT NULL,
  event_hash BLOB NOT NULL,
  size       INTEGER NOT NULL,                          -- of the document in bytes; 0 where the event did not set it
  line_size  INTEGER NOT NULL                           -- of the event's line in the stream of events, in bytes
) STRICT;

CREATE INDEX versions ON events (element_id, seq) WHERE is_version = 1;
CREATE INDEX by_element ON events (element_id, seq);
"""

_COLUMNS = """
  v.seq, v.height, e.plugin, e.element, v.op, v.content, v.time_ns, v.uid, v.user, v.message,
  v.mode, v.owner, v.owner_group, v.mtime_ns, v.event_hash, v.size, v.line_size
"""
_VERSIONS = f"""
SELECT {_COLUMNS} FROM events AS v JOIN elements AS e ON e.id = v.element_id
WHERE e.plugin = ? AND e.element = ? AND v.is_version = 1
"""
_DOCUMENTS_AT = f"""
SELECT {_COLUMNS} FROM elements AS e JOIN events AS v ON v.seq =
  (SELECT max(seq) FROM events WHERE element_id = e.id AND is_version = 1 AND seq < ?)
WHERE v.content IS NOT NULL AND (? IS NULL OR e.plugin = ?)
ORDER BY e.plugin, e.element
"""
_ELEMENTS = """
SELECT element FROM elements AS e
WHERE plugin = ? AND (? OR EXISTS (SELECT 1 FROM events WHERE element_id = e.id AND is_version = 1))
ORDER BY element
"""
_EVENTS = f"""
SELECT {_COLUMNS} FROM events AS v JOIN elements AS e ON e.id = v.element_id
WHERE v.seq >= ? ORDER BY v.seq LIMIT ?
"""
_EVENTS_OF_ELEMENT = f"""
SELECT {_COLUMNS} FROM events AS v JOIN elements AS e ON e.id = v.element_id
WHERE e.plugin = ? AND e.element = ? AND v.seq >= ? ORDER BY v.seq LIMIT ?
"""

_READABLE = """
FROM events WHERE seq >= ? AND seq < ? AND (? = 0 OR 0 != CASE
  WHEN owner = ? THEN mode & 256
  WHEN owner_group IN (SELECT value FROM json_each(?)) THEN mode & 32
  ELSE mode & 4 END)
"""
"""Source: path_resolution(7); root may read everything."""

_NO_ROOM = sqlite3.SQLITE_FULL

log = logging.getLogger(__name__)


class SqliteHistory:
    """The history below `directory`, which is made if it is missing and closed to all but its owner."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / HISTORY_NAME
        self._lock = threading.Lock()
        self._tip: tuple[int, str] | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o700)
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise self._translated(error) from error

    @property
    def indexed_count(self) -> int:
        return 0 if self._tip is None else self._tip[0] + 1

    def tip(self) -> tuple[int, str] | None:
        return self._tip

    # --- changing: one thread at a time ------------------------------------------------------------------

    def append(self, events: Sequence[RecordedEvent]) -> None:
        if [event.seq for event in events] != list(range(self.indexed_count, self.indexed_count + len(events))):
            raise ValueError(f"events to append must be numbered from {self.indexed_count} on, without gaps")
        if not events:
            return
        with self._lock:
            try:
                with self._database.atomic():
                    for event in events:
                        self._insert(event)
            except (OSError, sqlite3.Error) as error:
                raise self._translated(error) from error
            self._tip = events[-1].seq, events[-1].event_hash

    def _insert(self, event: RecordedEvent) -> None:
        execute = self._database.execute
        name = [event.id.plugin, event.id.element]
        execute("INSERT OR IGNORE INTO elements (plugin, element) VALUES (?, ?)", name)
        (number,) = execute("SELECT id FROM elements WHERE plugin = ? AND element = ?", name).fetchone()
        select = "SELECT content FROM events WHERE element_id = ? AND is_version = 1 ORDER BY seq DESC LIMIT 1"
        before = execute(select, [number]).fetchone()
        content = None if event.content is None else bytes.fromhex(event.content)
        is_version = content is not None if before is None else content != before[0]
        attributes = event.attributes
        row = (
            event.seq, number, is_version, event.height, event.op, content, event.time_ns, event.uid,
            storable(event.user), storable(event.message), attributes.mode, attributes.uid, attributes.gid,
            attributes.mtime_ns, bytes.fromhex(event.event_hash), event.size, event.line_size,
        )  # fmt: skip
        execute(f"INSERT INTO events VALUES ({', '.join('?' * len(row))})", row)

    def clear(self) -> None:
        with self._lock:
            self._detach()
            try:
                self._remove_files()
                self._open()
            except (OSError, sqlite3.Error) as error:
                raise self._translated(error) from error

    def close(self) -> None:
        with self._lock:
            self._detach()

    # --- reading: any thread -----------------------------------------------------------------------------

    def plugins(self) -> Sequence[str]:
        return [name for (name,) in self._ask("SELECT DISTINCT plugin FROM elements ORDER BY plugin", ())]

    def elements(self, plugin: str, *, with_versions: bool = False) -> Sequence[str]:
        return [name for (name,) in self._ask(_ELEMENTS, (plugin, not with_versions))]

    def versions(self, id: ElementId) -> Sequence[RecordedEvent]:
        return self._events(f"{_VERSIONS} ORDER BY v.seq", (id.plugin, id.element))

    def version_at(self, id: ElementId, before_seq: int) -> RecordedEvent | None:
        found = self._events(
            f"{_VERSIONS} AND v.seq < ? ORDER BY v.seq DESC LIMIT 1", (id.plugin, id.element, before_seq)
        )
        return found[0] if found else None

    def documents_at(self, before_seq: int, plugin: str | None = None) -> Sequence[RecordedEvent]:
        return self._events(_DOCUMENTS_AT, (before_seq, plugin, plugin))

    def events(self, id: ElementId | None = None, *, first_seq: int = 0, limit: int = 1000) -> Sequence[RecordedEvent]:
        if id is None:
            return self._events(_EVENTS, (first_seq, limit))
        return self._events(_EVENTS_OF_ELEMENT, (id.plugin, id.element, first_seq, limit))

    def lines(self, first_seq: int, before_seq: int, uid: int, gids: Collection[int]) -> Sequence[EventLine]:
        query = f"SELECT seq, height, line_size {_READABLE} ORDER BY seq"
        return [EventLine(*row) for row in self._ask(query, _readable_to(first_seq, before_seq, uid, gids))]

    def stretches(
        self, first_seq: int, before_seq: int, uid: int, gids: Collection[int], *, length: int
    ) -> Sequence[EventStretch]:
        query = f"SELECT seq / ? AS number, sum(line_size), max(time_ns) {_READABLE} GROUP BY number ORDER BY number"
        rows = self._ask(query, (length, *_readable_to(first_seq, before_seq, uid, gids)))
        return [EventStretch(*row) for row in rows]

    def _events(self, query: str, arguments: tuple[object, ...]) -> list[RecordedEvent]:
        return [_event(*row) for row in self._ask(query, arguments)]

    def _ask(self, query: str, arguments: tuple[object, ...]) -> list[Any]:
        while True:
            readers = self._readers
            try:
                with readers.borrow() as connection:
                    return connection.execute(query, arguments).fetchall()
            except (ReadersClosed, sqlite3.Error, ValueError) as error:
                # It may have been cleared under this question; the lock is free once that is done.
                with self._lock:
                    if self._readers is not readers:
                        continue
                if isinstance(error, ReadersClosed):
                    raise PoolError("the history is closed") from None
                raise self._translated(error) from error

    # --- opening -----------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._attach()
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            log.warning("the history in %s is made anew: %s", self._directory, error)
            self._remove_files()
            self._attach()

    def _attach(self) -> None:
        with contextlib.ExitStack() as undo:
            connection = sqlite3.connect(self._path, check_same_thread=False)
            undo.callback(connection.close)
            self._path.chmod(0o600)
            database = Database(connection, execute_plugins=False)
            database.execute("PRAGMA journal_mode = WAL").fetchone()
            # Derived, so a power cut may take the last transactions; WAL keeps the rest whole.
            database.execute("PRAGMA synchronous = NORMAL")
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
            elif version != VERSION:
                raise ValueError(f"it is of version {version}, this program makes version {VERSION}")
            newest = database.execute("SELECT seq, event_hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
            (count,) = database.execute("SELECT count(*) FROM events").fetchone()
            if newest is not None and newest[0] != count - 1:
                raise ValueError("events are missing in it")
            self._tip = None if newest is None else (newest[0], newest[1].hex())
            self._database = database
            self._readers = Readers(self._path)
            undo.pop_all()

    def _detach(self) -> None:
        self._readers.close()
        self._database.close()

    def _remove_files(self) -> None:
        for name in (HISTORY_NAME, f"{HISTORY_NAME}-wal", f"{HISTORY_NAME}-shm"):
            (self._directory / name).unlink(missing_ok=True)

    def _translated(self, error: Exception) -> OpfsError:
        if isinstance(error, OSError):
            kind = NoSpace if error.errno == NoSpace.errno else PoolError
            return kind(f"the history in {self._directory} cannot be used: {error.strerror}")
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == _NO_ROOM:
            return NoSpace(f"the history in {self._directory} has no room")
        return IntegrityError(
            f"the history in {self._directory} cannot be used: {error}", hint="make it again: opfs index rebuild"
        )


def _readable_to(first_seq: int, before_seq: int, uid: int, gids: Collection[int]) -> tuple[object, ...]:
    return first_seq, before_seq, uid, uid, json.dumps(sorted(gids))


def _event(
    seq: int, height: int, plugin: str, element: str, op: str, content: bytes | None, time_ns: int, uid: int,
    user: str, message: str, mode: int, owner: int, owner_group: int, mtime_ns: int, event_hash: bytes, size: int,
    line_size: int,
) -> RecordedEvent:  # fmt: skip
    id, attributes = ElementId(plugin, element), FileAttributes(mode, owner, owner_group, mtime_ns)
    text = None if content is None else content.hex()
    return RecordedEvent(
        seq, height, id, op, text, time_ns, uid, user, message, attributes, event_hash.hex(), size, line_size
    )
