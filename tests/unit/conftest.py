"""Fixtures that several modules of these tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from logplace import Place

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """The log directory and the keys of a new pool."""
    return Place(tmp_path)
