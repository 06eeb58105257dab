"""The index's files for reading only, beside a daemon that may be using them: what `opfs index` and `verify` need.

Changes nothing and makes nothing beside them. One connection, one thread; blocking.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.errors import NotFound, PoolError
from opfs.index import schema
from opfs.index.generation import FLOAT, LABEL, directory_of
from opfs.index.layout import COLUMNS_NAME, DATABASE_NAME, LABELS_NAME, ROWS_NAME, labels_of, vectors_of
from opfs.index.packed import PackedFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@contextlib.contextmanager
def look_at(directory: Path) -> Iterator[sqlite3.Connection]:
    """One state of the database, whatever a daemon adds meanwhile; raises sqlite3.Error."""
    path = directory / DATABASE_NAME
    # Without a log there is nothing that a second process has to share, and nothing is made beside the file.
    mode = "mode=ro" if path.with_name(f"{DATABASE_NAME}-wal").exists() else "immutable=1"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)
    with contextlib.closing(connection):
        connection.execute("BEGIN")
        yield connection


@contextlib.contextmanager
def vectors_in(directory: Path, model_id: str, dimensions: int) -> Iterator[tuple[PackedFile, PackedFile]]:
    """The files with one model's vectors and their labels; raises IntegrityError for what is not that."""
    place = directory_of(directory, model_id)
    with contextlib.ExitStack() as files:
        rows = PackedFile.open(place / ROWS_NAME, FLOAT, (dimensions,), vectors_of(model_id), writable=False)
        files.callback(rows.close)
        labels = PackedFile.open(place / LABELS_NAME, LABEL, (), labels_of(model_id), writable=False)
        files.callback(labels.close)
        yield rows, labels


@dataclass(frozen=True, slots=True)
class ModelStats:
    """The vectors of one model: `is_active` where searches use them."""

    model_id: str
    vectors: int
    is_active: bool


@dataclass(frozen=True, slots=True)
class Stats:
    """How much there is; `size_bytes` by what it is for."""

    events: int
    texts: int
    elements: int
    models: tuple[ModelStats, ...]
    size_bytes: Mapping[str, int]


def stats_of(directory: Path) -> Stats:
    """Raises NotFound where there is no index, PoolError where it cannot be read."""
    try:
        with read_index(directory) as connection:
            (events,) = connection.execute("SELECT count(*) FROM events").fetchone()
            (texts,) = connection.execute("SELECT count(*) FROM texts").fetchone()
            (elements,) = connection.execute("SELECT count(*) FROM elements").fetchone()
            models = []
            for model_id, dimensions, is_active, _ in connection.execute("SELECT * FROM generations").fetchall():
                with vectors_in(directory, model_id, dimensions) as (rows, labels):
                    models.append(ModelStats(model_id, min(rows.count, labels.count), bool(is_active)))
            sizes = {"tables and words": _bytes_of(directory, f"{DATABASE_NAME}*")}
            sizes["columns"] = _bytes_of(directory, f"{COLUMNS_NAME}/*")
            for model in models:
                place = directory_of(directory, model.model_id)
                own = _bytes_of(place, ROWS_NAME) + _bytes_of(place, LABELS_NAME)
                sizes[f"vectors of {model.model_id}"] = own
                sizes[f"search in vectors of {model.model_id}"] = _bytes_of(place, "*") - own
            sizes["kept to be used again"] = _bytes_of(directory, "spare-*/*")
    except (sqlite3.Error, OSError) as error:
        raise PoolError(f"the index in {directory} cannot be read: {error}") from error
    return Stats(events, texts, elements, tuple(models), {name: size for name, size in sizes.items() if size})


@contextlib.contextmanager
def read_index(directory: Path) -> Iterator[sqlite3.Connection]:
    """The database; raises NotFound where there is none of this program's version."""
    if not (directory / DATABASE_NAME).exists():
        raise NotFound(f"there is no index in {directory}", hint="the daemon makes it: sudo opfs mount")
    with look_at(directory) as connection:
        version = schema.version_of(connection)
        if version != schema.VERSION:
            raise NotFound(
                f"the index in {directory} is of version {version}, not {schema.VERSION}",
                hint="the daemon makes it again: sudo opfs mount",
            )
        yield connection


def _bytes_of(directory: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in directory.glob(pattern) if path.is_file())
