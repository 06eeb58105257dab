"""Fixtures that several modules of these tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from commitpath import CommitPath
from logplace import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """The log directory and the keys of a new pool."""
    return Place(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[CommitPath]:
    """A commit path in memory with the one plugin `memory`; fsck finds nothing in what a test leaves of it."""
    commit_path = CommitPath(tmp_path)
    yield commit_path
    assert commit_path.findings() == []
