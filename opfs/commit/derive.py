"""What is derived from blocks after their commit point: the search index. Never fails a commit.

One task reads new blocks out of the store and feeds the index in order, in a worker thread of low priority,
once nobody has written for a moment. A search waits in `wait_current` until every event committed before it
began is in the index. Trio thread.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import trio

from opfs.commit.described import describe_event
from opfs.core.event import decode_events
from opfs.core.header import BlockHeader
from opfs.errors import OpfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opfs.commit.chain import Proposal
    from opfs.commit.described import BlockReads
    from opfs.commit.sequencer import Sequencer
    from opfs.core.names import BlockName
    from opfs.ports import Index, IndexedEvent

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)

NICENESS = 10
MAX_BLOCKS_PER_STEP = 32
EVENTS_PER_APPEND = 64
# Embedding beside the writers made one writer a third slower and 64 writers a fifth (docs/design/performance.md).
QUIET_S = 0.25
MAX_LAG = 10_000


class Deriver:
    """Keeps `index` up with the chain. `run` must be running for `wait_current` to return."""

    def __init__(self, store: BlockReads, index: Index, sequencer: Sequencer) -> None:
        self._store = store
        self._index = index
        self._sequencer = sequencer
        self._position = 0
        """Blocks before this position of `sequencer.blocks` are indexed."""
        self._changed = trio.Event()
        self._thread = trio.CapacityLimiter(1)
        self._rebuild_wanted = False
        self._searches_waiting = 0
        self.failure: str | None = None
        """Why the index stands still, or None."""
        sequencer.on_block.append(self._wake)

    @property
    def lag(self) -> int:
        """Events committed but not yet indexed."""
        return self._sequencer.event_count - self._index.indexed_count

    async def run(self) -> None:
        """Index what is missing, then every new block, until cancelled; after a failure, wait for a rebuild."""
        find = self._find_position
        while True:
            try:
                self._position = await self._in_thread(find)
                await self._follow()
            except Exception as error:
                log.exception("the index stands still")
                self.failure = str(error)
                self._announce()
            while not self._rebuild_wanted:
                await self._changed.wait()
            find = self._start_over

    async def _follow(self) -> None:
        """Take in blocks from `_position` on; returns when a rebuild is wanted."""
        while not self._rebuild_wanted:
            changed = self._changed
            names = self._sequencer.blocks[self._position : self._position + MAX_BLOCKS_PER_STEP]
            if not names:
                await changed.wait()
                continue
            await self._wait_for_quiet()
            before = self._sequencer.blocks[self._position - 1] if self._position else None
            await self._in_thread(self._take_in, before, list(names))
            self._position += len(names)
            self._announce()

    async def _wait_for_quiet(self) -> None:
        """Leave processor and disk to the writers while they write, unless somebody waits or the lag grows."""
        while not self._searches_waiting and not self._rebuild_wanted and self.lag < MAX_LAG:
            with trio.move_on_after(QUIET_S) as quiet:
                await self._changed.wait()
            if quiet.cancelled_caught:
                return

    def rebuild(self) -> None:
        """Forget the index and make it again from the chain, in the background."""
        self._rebuild_wanted = True
        self.failure = None
        self._announce()

    async def wait_current(self) -> None:
        """Return when every event committed before the call is searchable; raises OpfsError if it never will be."""
        wanted = self._sequencer.event_count
        if not self._rebuild_wanted and self._index.indexed_count >= wanted:
            return
        self._searches_waiting += 1
        self._announce()
        try:
            while self._rebuild_wanted or self._index.indexed_count < wanted:
                if self.failure is not None:
                    raise OpfsError(f"the search index stands still: {self.failure}", hint="run opfs index rebuild")
                await self._changed.wait()
        finally:
            self._searches_waiting -= 1

    def _wake(self, _: Proposal) -> None:
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _in_thread(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        return await trio.to_thread.run_sync(low_priority()(function), *arguments, limiter=self._thread)

    # --- in the worker thread --------------------------------------------------------------------------

    def _start_over(self) -> int:
        self._index.clear()
        self._rebuild_wanted = False
        return 0

    def _find_position(self) -> int:
        """The position of the block of the newest event indexed; clears an index of another chain."""
        tip = self._index.tip()
        if tip is None:
            self._index.clear()
            return 0
        seq, event_hash = tip
        blocks = list(self._sequencer.blocks)
        for position in range(len(blocks) - 1, -1, -1):
            header = BlockHeader.decode(self._store.read_header(blocks[position]))
            if header.events_first + header.events_count <= seq:
                break  # the index is ahead of the chain
            if header.events_first <= seq:
                events = decode_events(self._store.read_events(blocks[position]))
                if events[seq - header.events_first].hash == event_hash:
                    return position
                break
        log.warning("the search index is not of this chain: making it again")
        self._index.clear()
        return 0

    def _take_in(self, before: BlockName | None, names: Sequence[BlockName]) -> None:
        index_blocks(self._store, self._index, before, names, between=trio.from_thread.check_cancelled)


def index_blocks(
    store: BlockReads,
    index: Index,
    before: BlockName | None,
    names: Sequence[BlockName],
    *,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Index the events of blocks that are not indexed yet, a few at a time: a block may hold thousands.

    `before` is the block before the first; `between` is called now and then, and may raise. Blocking.
    """
    records: list[IndexedEvent] = []
    for name in names:
        for event in decode_events(store.read_events(name)):
            if event.seq < index.indexed_count:
                continue
            records.append(describe_event(store, event, name, before))
            if len(records) == EVENTS_PER_APPEND:
                index.append(records)
                records.clear()
                between()
        before = name
    if records:
        index.append(records)


@contextmanager
def low_priority() -> Iterator[None]:
    """Run this thread at low priority, so that a commit need not wait for it; trio reuses the thread."""
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, NICENESS)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, thread, 0)
