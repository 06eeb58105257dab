"""Read-only connections to events.db, lent to whichever thread searches.

A connection serves one thread at a time and is kept for the next; there are never more than searches ran at
once. Does not write and does not know the tables.

Concurrency: safe from any thread.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class ReadersClosed(Exception):
    """The database was closed or replaced; it stays inside opfs.index."""


class Readers:
    """The pool of one database file; `close` it before the file goes away."""

    def __init__(self, path: Path) -> None:
        self._uri = f"{path.absolute().as_uri()}?mode=ro"
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._is_closed = False

    @contextlib.contextmanager
    def borrow(self) -> Iterator[sqlite3.Connection]:
        """A connection for the length of the block; raises ReadersClosed."""
        connection = self._take()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._is_closed:
                raise ReadersClosed
            # Lent to one thread at a time, but not always the same one.
            return self._idle.pop() if self._idle else sqlite3.connect(self._uri, uri=True, check_same_thread=False)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle now and what is lent when it comes back."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
