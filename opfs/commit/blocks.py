"""Outcomes become events that are durable in the journal; events become a block on disk, in the log, and HEAD.

`acknowledge` does the first, `seal` both, with what is pending; which of them is asked for, opfs.commit.sealing says.
Knows no request and no plugin. Trio thread; the store and the log are called in one worker thread at a time, and
nobody else changes the layer.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from opfs.commit.journaled import NewAttributes, batch_of
from opfs.commit.timings import ANCHOR, HASH, SNAPSHOT
from opfs.errors import CommitUnknown, InvalidRequest, NoSpace, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opfs.commit.chain import Chain, Outcome, Proposal
    from opfs.commit.failsafe import FailSafe
    from opfs.commit.journal import Journal
    from opfs.commit.journaled import Acknowledged
    from opfs.commit.logbook import Logbook
    from opfs.commit.pending import Extension
    from opfs.commit.timings import Timings
    from opfs.core.names import ElementId
    from opfs.ports import Clock, FileAttributes, SnapshotStore

log = logging.getLogger(__name__)


class Blocks:
    """Extends the chain, and changes the layer between blocks."""

    def __init__(
        self,
        chain: Chain,
        store: SnapshotStore,
        logbook: Logbook,
        journal: Journal,
        clock: Clock,
        failsafe: FailSafe,
        timings: Timings,
    ) -> None:
        self._chain = chain
        self._store = store
        self._logbook = logbook
        self._journal = journal
        self._clock = clock
        self._failsafe = failsafe
        self._timings = timings
        self._unrestored = chain.unrestored
        self._layer = trio.Lock()
        self._thread = trio.CapacityLimiter(1)

    async def acknowledge(self, outcomes: Sequence[Outcome]) -> Extension:
        """Make the events of `outcomes` durable, and pending.

        Raises NoSpace or InvalidRequest: none of them is there. Raises CommitUnknown, having entered fail-safe mode,
        where they may or may not be.
        """
        async with self._layer:
            with self._stopping("events"):
                self._failsafe.require_writable()
                with self._timings(HASH):
                    extension = self._chain.extend(outcomes, self._clock.now_ns())
                await self._journal.keep(batch_of(extension))
            # After this line: events are durable, in no block, and nobody was told; a crash here leaves them in the
            # journal; repaired by recovery, which makes a block of them.
            self._chain.acknowledge(extension)
        return extension

    async def resume(self, acknowledged: Sequence[Acknowledged]) -> Sequence[Extension]:
        """Make events pending that were so when opfs stopped; raises IntegrityError where they do not fit the chain."""
        async with self._layer:
            extensions = []
            for each in acknowledged:
                extensions.append(self._chain.resume(each))
                self._chain.acknowledge(extensions[-1])
        return extensions

    async def seal(self, outcomes: Sequence[Outcome]) -> Proposal:
        """Make the block of what is pending and of `outcomes`, which is HEAD on return.

        Raises NoSpace or InvalidRequest: no block was made. Raises CommitUnknown, having entered fail-safe mode, where
        one may or may not be there.
        """
        async with self._layer:
            with self._stopping("a block"):
                self._failsafe.require_writable()
                with self._timings(HASH):
                    proposal = self._chain.propose(outcomes, self._clock.now_ns())
                await trio.to_thread.run_sync(self._write, proposal, limiter=self._thread)
            # After this line: the block is durable and nobody was told; a crash here leaves a block more than
            # was acknowledged; repaired by nobody, because that is allowed: the next start makes it HEAD.
            self._chain.adopt(proposal)
            self._journal.sealed()
        return proposal

    async def set_attributes(self, id: ElementId, attributes: FileAttributes) -> None:
        """Change owner, mode or time of a committed document; the next block carries them. Raises NotFound."""
        async with self._layer:
            catalog = self._chain.catalog
            entry = catalog.get(id)
            if entry is None:
                raise NotFound(f"{id} does not exist")
            if entry.attributes == attributes:
                return
            if id in self._chain.pending.contents:
                with self._stopping("attributes"):
                    await self._journal.keep(NewAttributes(id, attributes))
                # After this line: the journal has the attributes of a document that the layer has not; a crash here
                # leaves them; repaired by recovery, which makes a block with them.
            else:
                await trio.to_thread.run_sync(self._store.set_attributes, id, attributes, limiter=self._thread)
                # After this line: the layer's file differs from HEAD's in its attributes only; a crash here leaves
                # them or the old ones; repaired by nobody, because attributes are not part of what a block commits to.
            entry = catalog.get(id) or entry  # with what was seen of it meanwhile
            catalog.update(catalog.head, {id: entry.with_attributes(attributes)})

    @contextmanager
    def _stopping(self, what: str) -> Iterator[None]:
        """Nothing more is written after an error that leaves open whether `what` is durable."""
        try:
            yield
        except (NoSpace, InvalidRequest):
            raise
        except Exception as error:
            log.exception("writing %s", what)
            self._failsafe.enter(f"{what} may or may not be durable: {error}")
            raise CommitUnknown(f"the commit failed: {error}", hint="restart opfs to recover") from error

    # --- in the worker thread ----------------------------------------------------------------------------

    def _write(self, proposal: Proposal) -> None:
        """Write the layer, take the snapshot, log it; or leave the layer as HEAD has it."""
        self._chain.tips.flush()
        self._restore_layer()
        try:
            with self._timings(SNAPSHOT):
                self._store.write_block(
                    proposal.name,
                    proposal.writes,
                    proposal.header_bytes,
                    proposal.events_bytes,
                    lambda: self._logbook.foresee(proposal),
                )
        except NoSpace:
            self._unrestored.update(write.id for write in proposal.writes)
            self._restore_layer()
            raise
        # After this line: a durable block that is not in the log; a crash here leaves the log behind the chain;
        # repaired by `Logbook.start`, which appends what is missing.
        with self._timings(ANCHOR):
            self._logbook.record(self._chain.blocks, proposal)

    def _restore_layer(self) -> None:
        """Make the layer agree with HEAD again after a block that was not made; raises NoSpace.

        On a full pool that may fail as well: then no block is made before it succeeds.
        """
        if self._unrestored:
            self._store.restore_layer(self._chain.catalog.head, self._unrestored)
            self._unrestored.clear()
