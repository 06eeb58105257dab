"""Compare the index with what the chain says it has to hold: every event's row, its text, its vector's checksum.

Opens the files for reading only, beside a daemon that may be using them. A vector is held against the checksum
that was made with it, not against the model. An index that has not got to the end of the chain is not wrong.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import zlib
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from opfs.core.audit import Finding
from opfs.index.layout import DATABASE_NAME, HEADER_BYTES, VECTORS_NAME, dimensions_of
from opfs.index.rows import load_events, storable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from opfs.ports import IndexedEvent

PLACE = f"@index/{DATABASE_NAME}"
VECTORS_PLACE = f"@index/{VECTORS_NAME}"
_BATCH = 256
_FIELDS = ("height", "id", "op", "time", "actor", "summary", "text", "uid", "gid", "mode", "event_hash")


class IndexAudit:
    """The index below `directory`; one that is not there has nothing wrong with it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def check(
        self, events: Iterable[IndexedEvent], event_count: int, *, may_be_ahead: bool = False
    ) -> Iterator[Finding]:
        """Everything that is wrong; `events` are those of the chain that are to be compared, in order.

        The chain had `event_count` events when it was read; with a daemon at work the index may have got ahead.
        """
        path = self._directory / DATABASE_NAME
        if not path.exists():
            return
        # Without a log there is nothing that a second process has to share, and nothing is made beside the file.
        mode = "mode=ro" if path.with_name(f"{DATABASE_NAME}-wal").exists() else "immutable=1"
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as connection:
                connection.execute("BEGIN")  # one state of it, whatever a daemon adds meanwhile
                yield from _check_events(connection, events, None if may_be_ahead else event_count)
                yield from self._check_vectors(connection)
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            yield Finding(None, PLACE, "index", f"it cannot be read: {error}")

    def _check_vectors(self, connection: sqlite3.Connection) -> Iterator[Finding]:
        rows = connection.execute("SELECT row, crc32 FROM texts ORDER BY row")
        fd = os.open(self._directory / VECTORS_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            if size < HEADER_BYTES:
                yield Finding(None, VECTORS_PLACE, "index", "it has no header")
                return
            with mmap.mmap(fd, size, prot=mmap.PROT_READ) as vectors:
                row_bytes = 4 * dimensions_of(vectors[:HEADER_BYTES])
                for row, crc in rows:
                    start = HEADER_BYTES + row * row_bytes
                    if zlib.crc32(vectors[start : start + row_bytes]) != crc:
                        yield Finding(None, VECTORS_PLACE, "index", f"vector {row} is not the one that was made")
        finally:
            os.close(fd)


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
