"""Fixtures that several modules of these tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opfs.index.store import SqliteIndex
from opfs.testing.embedder import WordHashEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opfs.ports import Embedder


@pytest.fixture
def open_index(tmp_path: Path) -> Iterator[Callable[..., SqliteIndex]]:
    """Opens the index of the test anew, with the fake; the one opened before is closed."""
    opened: list[SqliteIndex] = []

    def open_it(embedder: Embedder | None = None) -> SqliteIndex:
        if opened:
            opened[-1].close()
        opened.append(SqliteIndex(tmp_path / "index", embedder or WordHashEmbedder()))
        return opened[-1]

    yield open_it
    for index in opened:
        index.close()
