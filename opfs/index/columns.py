"""What a search asks of every event, as columns of numbers in files: what it is about, and who may read it.

28 bytes an event, in the page cache and not in memory of our own. The tables have the same; so the end of a file that
did not reach the disk, and a whole file that is gone, is made again from them. Few distinct owners, groups and modes
occur, so events refer to them by number and the permission check is made once per distinct triple.

Concurrency: one thread opens and writes; views never change, so any number of threads may go on using them.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from opfs.core.ranking import readable_by
from opfs.core.words import count_words
from opfs.errors import IntegrityError
from opfs.index.packed import PackedFile

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

EVENT_COLUMNS: dict[str, np.dtype[Any]] = {
    "text": np.dtype("<u4"),
    "access": np.dtype("<u4"),
    "element": np.dtype("<u4"),
    "plugin": np.dtype("<u2"),
    "op": np.dtype("<u2"),
    "actor": np.dtype("<u4"),
    "time_ns": np.dtype("<i8"),
}
TEXT_COLUMNS: dict[str, np.dtype[Any]] = {"length": np.dtype("<u2")}
"""In words; BM25 needs it."""
_LONGEST = 65_535
_BATCH = 20_000

_EVENTS = """
SELECT e.seq, e.text_row, e.access_id, e.element_id, n.plugin_id, e.op_id, e.actor_id, e.time_ns
FROM events AS e JOIN elements AS n ON n.id = e.element_id WHERE e.seq >= ? AND e.seq < ? ORDER BY e.seq
"""
_TEXTS = "SELECT row, text FROM texts WHERE row >= ? AND row < ? ORDER BY row"

log = logging.getLogger(__name__)


class Columns:
    """The files below `directory`, open."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self._files: dict[str, PackedFile] = {}
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            for name, dtype in (EVENT_COLUMNS | TEXT_COLUMNS).items():
                try:
                    self._files[name] = open_column(directory, name)
                except IntegrityError:
                    self._files[name] = PackedFile.create(_path(directory, name), dtype, (), _what(name))
            undo.pop_all()

    def agree(self, connection: sqlite3.Connection, events: int, texts: int, synced: tuple[int, int]) -> None:
        """Make the files say what the tables say; so many events and texts are known to be in them already."""
        for columns, end, start, read in (
            (EVENT_COLUMNS, events, synced[0], read_events),
            (TEXT_COLUMNS, texts, synced[1], read_texts),
        ):
            start = min(start, end, *(self._files[name].count for name in columns))
            for name in columns:
                self._files[name].truncate(start)
            for first, part in read(connection, start, end):
                self.write(first, part)
                start = first + len(next(iter(part.values())))
            if start != end:
                raise IntegrityError("rows of its tables are missing")
        if events and (int(self.view("text", events).max()) >= texts):
            raise IntegrityError("its tables contradict each other")

    def write(self, first: int, columns: Mapping[str, NDArray[Any] | Sequence[int]]) -> None:
        """Write records of some columns, from number `first` on; raises OSError."""
        for name, values in columns.items():
            self._files[name].write(first, np.asarray(values, dtype=(EVENT_COLUMNS | TEXT_COLUMNS)[name]))

    def view(self, name: str, count: int) -> NDArray[Any]:
        """The first values of a column, in memory; raises OSError where the disk does not give them."""
        return self._files[name].view(count)

    def sync(self) -> None:
        for file in self._files.values():
            file.sync()

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self._files.values())

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def open_column(directory: Path, name: str, *, writable: bool = True) -> PackedFile:
    """The file of one column; raises IntegrityError where there is none that can be used."""
    dtype = (EVENT_COLUMNS | TEXT_COLUMNS)[name]
    return PackedFile.open(_path(directory, name), dtype, (), _what(name), writable=writable)


def _path(directory: Path, name: str) -> Path:
    return directory / f"{name}.{(EVENT_COLUMNS | TEXT_COLUMNS)[name].str[1:]}"


def _what(name: str) -> str:
    return f"the column {name}"


def read_events(connection: sqlite3.Connection, start: int, end: int) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """The columns of events as the tables have them, in batches, each with the number of its first."""
    for first in range(start, end, _BATCH):
        rows = connection.execute(_EVENTS, (first, min(first + _BATCH, end))).fetchall()
        table = np.array(rows, dtype=np.int64).reshape(-1, 1 + len(EVENT_COLUMNS))
        _require_gapless(table[:, 0], first, min(first + _BATCH, end))
        yield first, {name: table[:, 1 + number] for number, name in enumerate(EVENT_COLUMNS)}


def read_texts(connection: sqlite3.Connection, start: int, end: int) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """The columns of texts, likewise."""
    for first in range(start, end, _BATCH):
        rows = connection.execute(_TEXTS, (first, min(first + _BATCH, end))).fetchall()
        _require_gapless(np.array([row for row, _ in rows], dtype=np.int64), first, min(first + _BATCH, end))
        yield first, {"length": np.array([length_of(text) for _, text in rows], dtype=np.int64)}


def _require_gapless(numbers: NDArray[np.int64], first: int, end: int) -> None:
    # A gap would give every later event another's permissions.
    if not np.array_equal(numbers, np.arange(first, end)):
        raise IntegrityError("rows of its tables are missing")


def length_of(text: str) -> int:
    """The value of the column `length` for a text."""
    return min(count_words(text), _LONGEST)


class AccessTable:
    """The distinct (uid, gid, mode) of the index, numbered in order of appearance. Immutable."""

    def __init__(self, triples: Sequence[tuple[int, int, int]] = ()) -> None:
        self.triples = tuple(triples)
        self._numbers = {triple: number for number, triple in enumerate(self.triples)}
        columns = np.array(self.triples, dtype=np.int64).reshape(-1, 3)
        self._uids = columns[:, 0].astype(np.uint32)
        self._gids = columns[:, 1].astype(np.uint32)
        self._modes = columns[:, 2].astype(np.uint16)

    def number(self, triple: tuple[int, int, int]) -> int:
        return self._numbers[triple]

    def including(self, triples: Collection[tuple[int, int, int]]) -> AccessTable:
        """This table, or a longer one with the new triples after the old ones."""
        new = [triple for triple in dict.fromkeys(triples) if triple not in self._numbers]
        return AccessTable((*self.triples, *new)) if new else self

    def readable(self, uid: int, gids: Collection[int]) -> NDArray[np.bool_] | None:
        """Which triples, by number, let the user read; None means all do."""
        if uid == 0:
            return None
        allowed = readable_by(uid, gids, uids=self._uids, groups=self._gids, modes=self._modes)
        return None if allowed.all() else allowed
