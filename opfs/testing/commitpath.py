"""The whole commit path on a store, a log and a clock in memory, over any plugins: started and stopped like a daemon.

What survives a stop is what survives one in the world: the store, the log, the journal's and the tips' files, and
what the plugins' backends hold. No mount and no threads of its own; one trio task uses it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from opfs.commit.chain import load_chain
from opfs.commit.confirmations import Confirmations
from opfs.commit.drift import Drift
from opfs.commit.failsafe import FailSafe
from opfs.commit.journal import Journal
from opfs.commit.logbook import Logbook
from opfs.commit.recovery import recover
from opfs.commit.sequencer import Sequencer
from opfs.commit.tips import Tips
from opfs.commit.verify import check_chain
from opfs.commit.waiting import Waiting
from opfs.core.cadence import Cadence
from opfs.core.event import Event, decode_events
from opfs.core.redaction import Redactor
from opfs.testing.log import MemoryLog
from opfs.testing.store import MemorySnapshotStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from opfs.commit.reserve import Reserve
    from opfs.core.rules import PluginRules
    from opfs.ports import Plugin


class SteppingClock:
    """A clock that moves on by a millisecond at each look; `now` may be set back to play a wrong clock."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000_000_000

    def now_ns(self) -> int:
        self.now += 1_000_000
        return self.now


class CommitPath:
    """`plugins` may be changed between two starts."""

    def __init__(self, directory: Path, plugins: Sequence[Plugin]) -> None:
        self.directory = directory
        self.plugins = {plugin.name: plugin for plugin in plugins}
        self.store = MemorySnapshotStore()
        self.log = MemoryLog()
        self.logbook = Logbook(self.log, self.store)
        self.clock = SteppingClock()
        self.reply_timeout_s = 30.0
        self.reserve: Reserve | None = None
        self.rules: dict[str, PluginRules] = {}
        self.redactor = Redactor()
        self.cadence = Cadence()
        self.follows_drift = False
        """Whether the host is watched for drift; `drift` is the watcher of the last start."""
        self.drift: Drift

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
                self.plugins,
                confirmations,
                failsafe,
                self.clock,
                rules=self.rules,
                reserve=self.reserve,
                redactor=self.redactor,
                reply_timeout_s=self.reply_timeout_s,
                cadence=self.cadence,
            )
            waiting = Waiting(sequencer)
            self.drift = Drift(sequencer, chain, self.store, waiting, self.clock)
            async with trio.open_nursery() as nursery:
                await nursery.start(sequencer.run)
                await recover(chain, journal, sequencer)
                nursery.start_soon(waiting.run)
                if self.follows_drift:
                    nursery.start_soon(self.drift.run)
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
