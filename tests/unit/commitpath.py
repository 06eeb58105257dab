"""The commit path on a store and a host in memory, and short words for what a writer asks of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio

from opfs.commit.change import Change, Request
from opfs.core.actor import Actor
from opfs.core.names import ElementId
from opfs.testing import commitpath
from opfs.testing.memoryhost import MemoryPlugin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ALICE = Actor(uid=1000, user="alice", pid=42, command="vim")


class CommitPath(commitpath.CommitPath):
    """With the one plugin `memory`."""

    def __init__(self, directory: Path) -> None:
        self.plugin = MemoryPlugin()
        super().__init__(directory, [self.plugin])


def write(name: str, message: str = "", base_event: str | None = None, **settings: Any) -> Request:
    content = json.dumps(settings).encode()
    return Request((Change(ElementId("memory", name), content, base_event=base_event),), ALICE, message)


async def until(condition: Callable[[], object], within_s: float = 120) -> None:
    """Return when `condition` holds; it is what somebody else in this process brings about."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.001)


def delete(name: str) -> Request:
    return Request((Change(ElementId("memory", name), None),), ALICE)
