"""What is derived from blocks after their commit point: the search index, the history. Never fails a commit.

One task for each reads new blocks out of the store and feeds it in order, in a worker thread of low priority; the
search index once nobody has written for a moment. Who reads waits in `wait_current` until every event committed before
it began is there. What events mean comes later (opfs.commit.meaning). Trio thread.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import trio

from opfs.commit.described import BlockReads
from opfs.core.event import Event, decode_events
from opfs.core.header import BlockHeader
from opfs.core.names import BlockName
from opfs.errors import NoSpace, OpfsError, PoolError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from opfs.commit.chain import Proposal
    from opfs.commit.sequencer import Sequencer

_Result = TypeVar("_Result")
_Record = TypeVar("_Record")
_Contra = TypeVar("_Contra", contravariant=True)

Describe = Callable[[BlockReads, Event, BlockName, BlockName | None], _Record]
"""A record of an event, which is of that block; the other is the block before it. Reads the store; blocking."""

log = logging.getLogger(__name__)

NICENESS = 10
_CAP_SYS_NICE = 23  # linux/capability.h
MAX_BLOCKS_PER_STEP = 32
EVENTS_PER_APPEND = 64
# Working beside the writers made one writer a third slower and 64 writers a fifth (docs/design/performance.md).
QUIET_S = 0.25
MAX_WAIT_S = 2.0
MAX_LAG = 10_000
RETRY_S = 5.0


class Quiet:
    """How long to leave processor and disk to writers: until they pause, but for no longer than `max_wait_s`."""

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._last = -math.inf
        self._since: float | None = None

    def wrote(self) -> None:
        """Somebody has written just now."""
        self._last = trio.current_time()
        if self._since is None:
            self._since = self._last

    def caught_up(self) -> None:
        """What was written is dealt with."""
        self._since = None

    @property
    def left_s(self) -> float:
        """Seconds still to wait; 0 where it is time to work."""
        if self._since is None:
            return 0.0
        return max(0.0, min(self._last + QUIET_S, self._since + self._max_wait_s) - trio.current_time())


class Derived(Protocol[_Contra]):
    """What is made of events, one record of each: the parts of `ports.Index` and `ports.History` that are needed."""

    @property
    def indexed_count(self) -> int: ...

    def tip(self) -> tuple[int, str] | None: ...

    def append(self, events: Sequence[_Contra], /) -> None: ...

    def clear(self) -> None: ...


class Deriver(Generic[_Record]):
    """Keeps `index` up with the chain, with a record of each event that `describe` makes.

    `run` must be running for `wait_current` to return. With `yields_to_writers` it waits until nobody has written
    for a moment. `called` is what it is called in messages; its thread works within `placed`.
    """

    def __init__(
        self,
        store: BlockReads,
        index: Derived[_Record],
        sequencer: Sequencer,
        describe: Describe[_Record],
        *,
        called: str,
        yields_to_writers: bool,
        placed: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._store = store
        self._index = index
        self._describe = describe
        self._called = called
        self._yields_to_writers = yields_to_writers
        self._placed = placed
        self._sequencer = sequencer
        self._position = 0
        """Blocks before this position of `sequencer.blocks` are indexed."""
        self._changed = trio.Event()
        self._thread = trio.CapacityLimiter(1)
        self._rebuild_wanted = False
        self._searches_waiting = 0
        self._quiet = Quiet(MAX_WAIT_S)
        self.failure: str | None = None
        """Why the index stands still, or None."""
        self.on_change: list[Callable[[], None]] = []
        """Called when there is more to index, or more was indexed, or that failed."""
        sequencer.on_block.append(self._wake)

    @property
    def wanted_count(self) -> int:
        """Events committed."""
        return self._sequencer.event_count

    @property
    def is_current(self) -> bool:
        """Whether every event committed is indexed."""
        return not self._rebuild_wanted and self._index.indexed_count >= self._sequencer.event_count

    @property
    def lag(self) -> int:
        """Events committed but not yet indexed."""
        return self._sequencer.event_count - self._index.indexed_count

    async def run(self) -> None:
        """Index what is missing, then every new block, until cancelled; after a failure, wait for a rebuild.

        A full or failing disk is tried again now and then, so that room is all it needs to go on.
        """
        find = self._find_position
        while True:
            retry_s = math.inf
            try:
                self._position = await self._in_thread(find)
                self.failure = None
                await self._follow()
            except (NoSpace, PoolError) as error:
                if self.failure is None:
                    log.warning("the %s stands still: %s", self._called, error)
                retry_s = RETRY_S
                self._fail(error)
            except Exception as error:
                log.exception("the %s stands still", self._called)
                self._fail(error)
            with trio.move_on_after(retry_s):
                while not self._rebuild_wanted:
                    await self._changed.wait()
            find = self._start_over if self._rebuild_wanted else self._find_position

    def _fail(self, error: Exception) -> None:
        self.failure = str(error)
        self._announce()

    async def _follow(self) -> None:
        """Take in blocks from `_position` on; returns when a rebuild is wanted."""
        while not self._rebuild_wanted:
            changed = self._changed
            names = self._sequencer.blocks[self._position : self._position + MAX_BLOCKS_PER_STEP]
            if not names:
                self._quiet.caught_up()
                await changed.wait()
                continue
            await self._wait_for_quiet()
            before = self._sequencer.blocks[self._position - 1] if self._position else None
            await self._in_thread(self._take_in, before, list(names))
            self._position += len(names)
            self._announce()

    async def _wait_for_quiet(self) -> None:
        """Leave processor and disk to the writers while they write, unless somebody waits or the lag grows."""
        while (
            self._yields_to_writers
            and not self._searches_waiting
            and not self._rebuild_wanted
            and self.lag < MAX_LAG
            and (left_s := self._quiet.left_s)
        ):
            with trio.move_on_after(left_s):
                await self._changed.wait()

    def rebuild(self) -> None:
        """Forget the index and make it again from the chain, in the background."""
        self._rebuild_wanted = True
        self.failure = None
        self._announce()

    async def wait_current(self) -> None:
        """Return when every event committed before the call is searchable; raises OpfsError if it never will be."""
        wanted = self._sequencer.event_count
        if self.is_current:
            return
        self._searches_waiting += 1
        self._announce()
        try:
            while self._rebuild_wanted or self._index.indexed_count < wanted:
                if self.failure is not None:
                    raise OpfsError(f"the {self._called} stands still: {self.failure}", hint="run opfs index rebuild")
                await self._changed.wait()
        finally:
            self._searches_waiting -= 1

    def _wake(self, _: Proposal) -> None:
        self._quiet.wrote()
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        for tell in self.on_change:
            tell()

    async def _in_thread(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        def work() -> _Result:
            with low_priority(), self._placed():
                return function(*arguments)

        return await trio.to_thread.run_sync(work, limiter=self._thread)

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
        log.warning("the %s is not of this chain: making it again", self._called)
        self._index.clear()
        return 0

    def _take_in(self, before: BlockName | None, names: Sequence[BlockName]) -> None:
        index_blocks(self._store, self._index, self._describe, before, names, between=self._tell_on_the_way)

    def _tell_on_the_way(self) -> None:
        """Others need not wait for the end of a block of thousands of events."""
        trio.from_thread.check_cancelled()
        trio.from_thread.run_sync(self._announce)


def index_blocks(
    store: BlockReads,
    index: Derived[_Record],
    describe: Describe[_Record],
    before: BlockName | None,
    names: Sequence[BlockName],
    *,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Index the events of blocks that are not indexed yet, a few at a time: a block may hold thousands.

    `before` is the block before the first; `between` is called now and then, and may raise. Blocking.
    """
    records: list[_Record] = []
    for name in names:
        for event in decode_events(store.read_events(name)):
            if event.seq < index.indexed_count:
                continue
            records.append(describe(store, event, name, before))
            if len(records) == EVENTS_PER_APPEND:
                index.append(records)
                records.clear()
                between()
        before = name
    if records:
        index.append(records)


@contextmanager
def low_priority() -> Iterator[None]:
    """Run this thread at low priority, so that a commit need not wait for it; trio reuses the thread.

    Where the daemon may not raise it again (no CAP_SYS_NICE) it is not lowered: the next work may be a commit.
    """
    if not _may_raise_priority():
        yield
        return
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, NICENESS)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, thread, 0)


@cache
def _may_raise_priority() -> bool:
    """Whether this process has CAP_SYS_NICE; capabilities(7), proc(5)."""
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_NICE & 1)
    return False
