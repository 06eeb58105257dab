"""The commit path on a store and a host in memory, started and stopped like the daemon does it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from opfs.commit.chain import load_chain
from opfs.commit.change import Change, Request
from opfs.commit.confirmations import Confirmations
from opfs.commit.failsafe import FailSafe
from opfs.commit.journal import Journal
from opfs.commit.logbook import Logbook
from opfs.commit.recovery import recover
from opfs.commit.sequencer import Sequencer
from opfs.commit.tips import Tips
from opfs.commit.verify import check_chain
from opfs.core.actor import Actor
from opfs.core.event import Event, decode_events
from opfs.core.names import ElementId
from opfs.testing.log import MemoryLog
from opfs.testing.memoryhost import MemoryPlugin
from opfs.testing.store import MemorySnapshotStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ALICE = Actor(uid=1000, user="alice", pid=42, command="vim")


class SteppingClock:
    """A clock that moves on by a millisecond at each look; `now` may be set back to play a wrong clock."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000_000_000

    def now_ns(self) -> int:
        self.now += 1_000_000
        return self.now


class CommitPath:
    """Store, log, host, journal and tips survive a stop, as disk and host do; the sequencer does not."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = MemorySnapshotStore()
        self.log = MemoryLog()
        self.logbook = Logbook(self.log, self.store)
        self.plugin = MemoryPlugin()
        self.clock = SteppingClock()
        self.reply_timeout_s = 30.0

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Sequencer]:
        tips = Tips(self.directory / "tips")
        journal = Journal(self.directory / "journal")
        confirmations = Confirmations(self.clock)
        try:
            chain = load_chain(self.store, tips, "test.example/opfs", self.clock.now_ns())
            failsafe = FailSafe()
            self.logbook = Logbook(self.log, self.store)
            self.logbook.start(chain.blocks, failsafe)
            sequencer = Sequencer(
                chain,
                self.store,
                self.logbook,
                journal,
                {"memory": self.plugin},
                confirmations,
                failsafe,
                self.clock,
                reply_timeout_s=self.reply_timeout_s,
            )
            async with trio.open_nursery() as nursery:
                await nursery.start(sequencer.run)
                await recover(chain, journal, sequencer)
                yield sequencer
                nursery.cancel_scope.cancel()
        finally:
            self.logbook.close()
            journal.close()
            tips.close()

    def events(self) -> list[Event]:
        return [event for name in self.store.list_blocks() for event in decode_events(self.store.read_events(name))]

    def findings(self) -> list[str]:
        return [str(finding) for finding in check_chain(self.store)]


def write(name: str, message: str = "", base_event: str | None = None, **settings: Any) -> Request:
    content = json.dumps(settings).encode()
    return Request((Change(ElementId("memory", name), content, base_event=base_event),), ALICE, message)


def delete(name: str) -> Request:
    return Request((Change(ElementId("memory", name), None),), ALICE)
