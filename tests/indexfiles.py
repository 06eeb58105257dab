"""Indexes on disk that are opened again, copied as a crash leaves them, and told apart; for tests."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from indexing import event, fill, sentences

from opfs.core.filters import EventFilter, FilterKind
from opfs.core.names import ElementId
from opfs.core.timestamp import format_time
from opfs.index.generation import directory_of
from opfs.index.store import SqliteIndex
from opfs.testing.embedder import WordHashEmbedder

if TYPE_CHECKING:
    from opfs.ports import IndexedEvent


VECTORS = directory_of(Path(), WordHashEmbedder().model_id).name
ROW_BYTES = 4 * 384


def everything_of(index: SqliteIndex) -> list[object]:
    """Answers of every kind, by which two indexes can be told apart."""
    ask = {"limit": 100, "uid": 7, "gids": [7]}
    return [
        index.similar("web memory", **ask),
        index.matching("web", **ask),
        index.fused("memory port", **ask),
        index.changes(**ask, where=EventFilter(since_ns=time_of(3), until_ns=time_of(40))),
        *(index.values(kind, **ask) for kind in FilterKind),
    ]


def varied(count: int) -> list[IndexedEvent]:
    """Events that differ in everything that a column says."""
    texts = sentences(count)
    return [
        replace(
            event(number, texts[number], uid=number % 3 * 7, mode=(0o644, 0o600)[number % 5 == 0]),
            id=ElementId(("lxc", "net")[number % 2], f"e{number % 4}"),
            op=("create", "update", "delete")[number % 3],
            actor=("alice", "bob")[number % 2],
            time=format_time(time_of(number)),
        )
        for number in range(count)
    ]


def time_of(number: int) -> int:
    return 1_700_000_000_000_000_000 + number * 10**9


def crashed(index: SqliteIndex, directory: Path, place: Path) -> Path:
    """A copy of the index's files as a crash leaves them: never closed."""
    shutil.copytree(directory, place)
    index.close()
    return place


def whole_again(place: Path, events: list[IndexedEvent]) -> SqliteIndex:
    """The index at `place`, with what it lacks of the events put in again."""
    index = SqliteIndex(place, WordHashEmbedder())
    fill(index, events[index.indexed_count :])
    return index
