from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stateworld import Process, World, a_world
from viewworld import User, Views

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


@pytest.fixture
def views(world: World) -> Views:
    return Views(world)


@pytest.fixture
def root(views: Views) -> User:
    """Root, looking around in the views of the host."""
    return User(views)


@pytest.fixture
def guest(views: Views) -> User:
    """A user with no special rights, looking around in the views of the host."""
    return User(views, uid=1000)
