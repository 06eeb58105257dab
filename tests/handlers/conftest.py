from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stateworld import Process, World, a_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as world:
        yield world


@pytest.fixture
def shell(world: World) -> Process:
    """A process of root's."""
    return Process(world)


@pytest.fixture
def alice(world: World) -> Process:
    return Process(world, uid=1000)
