"""`SqliteIndex`: what happened, in words and vectors: `events.db`, a file for each column, and the vectors of a model.

Derived from the chain. What cannot be used when it is opened is made again: columns from the tables; vectors, or the
end of them that did not reach the disk, by `embed`; and the whole index, which is empty then, where the tables are
damaged, of another version, or made with other sentences. The index does not know the chain: its owner compares `tip`.

Concurrency: `append`, `clear` and `close` exclude each other, and `embed` where it writes, by a lock. Searches take no
lock: they work on one immutable `Contents`, and read text through connections of their own (opfs.index.readers).
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import threading
from typing import TYPE_CHECKING, TypeVar

from opfs.core.filters import EVERYTHING
from opfs.core.narrative import VERSION as WORDS_VERSION
from opfs.errors import IntegrityError, NoSpace, OpfsError, PoolError
from opfs.index import searches
from opfs.index.exact.workers import Workers
from opfs.index.layout import COLUMNS_NAME, DATABASE_NAME
from opfs.index.opened import OpenIndex
from opfs.index.readers import ReadersClosed
from opfs.index.rows import load_events
from opfs.index.schema import UnusableDatabase
from opfs.index.spare import keep_spare
from opfs.ports import Hit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from opfs.core.filters import EventFilter, FilterKind
    from opfs.index.contents import Contents, Selection
    from opfs.index.generations import Work
    from opfs.index.searches import Search
    from opfs.ports import Embedder, IndexedEvent

_Answer = TypeVar("_Answer")

if TYPE_CHECKING:
    Ask = Callable[[Contents, Selection, sqlite3.Connection], _Answer]

DAMAGED_SUFFIX = ".damaged"

_APPEND_EVENTS = 256
"""Events per transaction: progress shows, and a crash loses little of a rebuild."""

_REBUILD_HINT = "build it again: opfs index rebuild"

# How damaged bytes come out of sqlite3: as its errors, as text that is none (error messages too), or as values
# that do not fit the column.
_DAMAGE = (sqlite3.Error, ValueError, TypeError, OverflowError, LookupError)

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


def no_other_embedder(model_id: str) -> Embedder | None:
    """Where there is one model only."""
    del model_id
    return None


class SqliteIndex:
    """The index below `directory`, which is made if it is missing and closed to all but its owner.

    `other_embedder` gives the embedder of a model by its id, None where it cannot be had any more: while the vectors of
    `embedder` are being made, searches go on with those of the model before. `words_version` is that of the sentences.
    """

    def __init__(
        self,
        directory: Path,
        embedder: Embedder,
        *,
        other_embedder: Callable[[str], Embedder | None] = no_other_embedder,
        words_version: int = WORDS_VERSION,
    ) -> None:
        self._directory = directory
        self._embedder = embedder
        self._other_embedder = other_embedder
        self._words_version = words_version
        self._lock = threading.Lock()
        self._is_closed = False
        # The two halves of a hybrid search.
        self._halves = Workers(2)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # It holds what documents say, whoever may read those.
            directory.chmod(0o700)
            self._opened = self._open()
        except (OSError, sqlite3.Error) as error:
            raise self._translated(error) from error

    # --- searching: any thread, no lock ------------------------------------------------------------------

    @property
    def indexed_count(self) -> int:
        return self._opened.contents.event_count

    @property
    def embedded_count(self) -> int:
        return self._opened.contents.embedded_count

    @property
    def identity(self) -> str:
        return self._opened.contents.identity

    @property
    def notice(self) -> str | None:
        return self._opened.contents.notice

    def tip(self) -> tuple[int, str] | None:
        contents = self._opened.contents
        return (contents.event_count - 1, contents.tip_hash) if contents.event_count else None

    def similar(
        self, text: str, *, limit: int, uid: int, gids: Collection[int], where: EventFilter = EVERYTHING
    ) -> Sequence[Hit]:
        def search(contents: Contents) -> Search:
            if contents.embedder is None:
                return searches.loosely_matching(text, limit)
            return searches.similar(contents.embedder.embed([text])[0], limit)

        return self._find(search, uid, gids, where)

    def matching(
        self, words: str, *, limit: int, uid: int, gids: Collection[int], where: EventFilter = EVERYTHING
    ) -> Sequence[Hit]:
        search = searches.matching(words, limit)
        return self._find(lambda _: search, uid, gids, where)

    def fused(
        self, text: str, *, limit: int, uid: int, gids: Collection[int], where: EventFilter = EVERYTHING
    ) -> Sequence[Hit]:
        def search(contents: Contents) -> Search:
            embedder = contents.embedder
            if embedder is None:
                return searches.loosely_matching(text, limit)
            return searches.fused(lambda: embedder.embed([text])[0], text, limit, self._halves)

        return self._find(search, uid, gids, where)

    def changes(self, *, limit: int, uid: int, gids: Collection[int], where: EventFilter = EVERYTHING) -> Sequence[Hit]:
        search = searches.changes(limit)
        return self._find(lambda _: search, uid, gids, where)

    def values(self, kind: FilterKind, *, limit: int, uid: int, gids: Collection[int]) -> Sequence[str]:
        return self._ask(
            lambda _: (
                lambda contents, selection, connection: searches.values(contents, selection, connection, kind, limit)
            ),
            uid,
            gids,
            EVERYTHING,
        )

    def _find(
        self, search: Callable[[Contents], Search], uid: int, gids: Collection[int], where: EventFilter
    ) -> Sequence[Hit]:
        def ask_for(contents: Contents) -> Ask[Sequence[Hit]]:
            scored_by = search(contents)

            def ask(contents: Contents, selection: Selection, connection: sqlite3.Connection) -> Sequence[Hit]:
                scored = scored_by(contents, selection, connection)
                found = load_events(connection, [seq for seq, _ in scored])
                return [Hit(score, found[seq]) for seq, score in scored]

            return ask

        return self._ask(ask_for, uid, gids, where)

    def _ask(
        self, ask_for: Callable[[Contents], Ask[_Answer]], uid: int, gids: Collection[int], where: EventFilter
    ) -> _Answer:
        while True:
            contents = self._opened.contents
            ask = ask_for(contents)
            try:
                with contents.readers.borrow() as connection:
                    return ask(contents, contents.select(connection, uid, gids, where), connection)
            except (ReadersClosed, IntegrityError, OSError, *_DAMAGE) as error:
                # The index may have been cleared under this search; the lock is free once that is done.
                with self._lock:
                    if self._opened.contents.readers is not contents.readers:
                        continue
                if isinstance(error, ReadersClosed):
                    raise PoolError("the index is closed") from None
                if isinstance(error, IntegrityError):
                    raise
                raise self._translated(error) from error

    # --- changing: one thread at a time ------------------------------------------------------------------

    def append(self, events: Sequence[IndexedEvent]) -> None:
        with self._lock:
            self._require_open()
            first = self._opened.contents.event_count
            if [event.seq for event in events] != list(range(first, first + len(events))):
                raise ValueError(f"events to append must be numbered from {first} on, without gaps")
            try:
                for start in range(0, len(events), _APPEND_EVENTS):
                    self._opened.append(events[start : start + _APPEND_EVENTS])
            except (OSError, *_DAMAGE) as error:
                raise self._translated(error) from error

    def embed(self, limit: int) -> int:
        while True:
            opened = self._opened
            contents = opened.contents
            try:
                with contents.readers.borrow() as connection:
                    work = opened.generations.next_work(connection, contents.text_count, limit)
            except ReadersClosed:
                with self._lock:
                    self._require_open()
                continue
            except (OSError, *_DAMAGE) as error:
                raise self._translated(error) from error
            if work is None:
                return 0
            if self._finish(opened, work, work.make()):
                return len(work.texts)

    def _finish(self, opened: OpenIndex, work: Work, vectors: NDArray[np.float32]) -> bool:
        """Store what was made; False where the index was begun anew meanwhile."""
        with self._lock:
            self._require_open()
            if self._opened is not opened:
                return False
            try:
                opened.finish(work, vectors)
            except (OSError, sqlite3.Error) as error:
                raise self._translated(error) from error
            return True

    def settle(self) -> bool:
        try:
            if self._opened.generations.extend():
                return True
            with self._lock:
                self._require_open()
                self._opened.generations.settle(self._opened.contents.text_count)
        except OSError as error:
            raise self._translated(error) from error
        return False

    def forget_spares(self) -> None:
        with self._lock:
            self._opened.generations.forget_spares()

    def clear(self) -> None:
        with self._lock:
            self._require_open()
            self._opened.close()
            try:
                self._remove_files()
                self._opened = self._open()
            except (OSError, sqlite3.Error) as error:
                raise self._translated(error) from error

    def close(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            # Derived data: what a failing disk does not sync, the next open finds missing and makes again.
            with contextlib.suppress(OSError, sqlite3.Error):
                self._opened.sync()
                self._opened.generations.sync()
            self._opened.close()
            self._halves.close()

    def _require_open(self) -> None:
        if self._is_closed:
            raise PoolError("the index is closed")

    # --- opening -----------------------------------------------------------------------------------------

    def _open(self) -> OpenIndex:
        try:
            return self._attach()
        except UnusableDatabase as error:
            logger.info("the index in %s is begun anew: %s", self._directory, error)
        except (*_DAMAGE, IntegrityError) as error:
            if _primary_code(error) in _NOT_DAMAGE:
                raise
            logger.warning("the index in %s is damaged and begun anew: %s", self._directory, error)
            self._set_aside()
        self._remove_files()
        return self._attach()

    def _attach(self) -> OpenIndex:
        return OpenIndex(self._directory, self._embedder, self._other_embedder, self._words_version)

    def _set_aside(self) -> None:
        """Keep one damaged database for whoever wants to know why."""
        path = self._directory / DATABASE_NAME
        with contextlib.suppress(FileNotFoundError):
            path.replace(path.with_name(DATABASE_NAME + DAMAGED_SUFFIX))

    def _remove_files(self) -> None:
        """Remove everything but the vectors, which the texts that stay the same will find."""
        keep_spare(self._directory)
        for suffix in ("", "-wal", "-shm"):
            (self._directory / (DATABASE_NAME + suffix)).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._directory / COLUMNS_NAME)

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
