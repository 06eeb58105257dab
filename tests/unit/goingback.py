"""A running commit path in memory with what rollback needs besides."""

from __future__ import annotations

from contextlib import asynccontextmanager

import trio
from commitpath import ALICE, write

from opfs.commit.derive import Deriver
from opfs.commit.described import record_event
from opfs.commit.planner import Planner
from opfs.commit.rollback import Rollback
from opfs.commit.timeline import Timeline
from opfs.commit.verified import CheckedReads, VerifiedBlocks
from opfs.core.going_back import Scope
from opfs.testing.history import MemoryHistory

ALL = Scope()


class World:
    """A running commit path with what rollback needs besides."""

    def __init__(self, path, sequencer):
        self.path, self.sequencer = path, sequencer
        self.history = MemoryHistory()
        self.rollback = None

    def block(self, height):
        return self.sequencer.blocks[height]

    async def put(self, name, **settings):
        return await self.sequencer.submit(write(name, **settings))

    async def back_to(self, height, scope=ALL, **extra):
        return await self.rollback.carry_out(self.block(height), scope, ALICE, **extra)

    async def plan(self, height, scope=ALL, **extra):
        return await self.rollback.plan(self.block(height), scope, ALICE, **extra)

    def done(self):
        """The events of HEAD, as (element, op)."""
        return [(event.id.element, event.op) for event in self.path.events() if event.time == self.head_time]

    @property
    def head_time(self):
        return self.path.events()[-1].time


@asynccontextmanager
async def running(path):
    async with path.started() as sequencer:
        world = World(path, sequencer)
        header, tree = sequencer._chain.header, sequencer._chain.tree
        verified = VerifiedBlocks(path.store, lambda: sequencer.blocks, header, tree)
        sequencer.on_block.append(lambda proposal: verified.remember(proposal.header, proposal.tree))
        reads = CheckedReads(path.store, verified)
        historian = Deriver(reads, world.history, sequencer, record_event, called="history", yields_to_writers=False)
        timeline = Timeline(lambda: sequencer.blocks, reads.read_header, path.clock)
        world.rollback = Rollback(
            sequencer, Planner(sequencer), world.history, historian, timeline, reads, path.clock, sequencer.submit
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(historian.run)
            yield world
            nursery.cancel_scope.cancel()
