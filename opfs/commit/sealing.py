"""Decides when what is pending becomes a block: with every write, at the end of an interval, when enough has changed.

Makes no block and knows no request: the sequencer asks it before it acknowledges, and `run` asks the sequencer for a
block when an interval ends. Whatever the interval, the journal is not let grow beyond bounds. Trio thread.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

import trio

from opfs.core.timestamp import NS_PER_S, format_time
from opfs.errors import OpfsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opfs.commit.chain import Chain, Outcome
    from opfs.core.cadence import Cadence, Load
    from opfs.core.names import BlockName
    from opfs.ports import Clock

log = logging.getLogger(__name__)

MAX_PENDING_EVENTS = 4_096
MAX_PENDING_BYTES = 4 << 20
"""More than that is never without a block: it is in the journal twice, in memory once, and a start reads it all."""
MEASURED_S = 300.0
"""The load is that of the last minutes."""
LOOK_AGAIN_S = 30.0
"""The clock may be set meanwhile."""
RETRY_S = 60.0
"""After a block that could not be made, as in a full pool."""


class Sealing:
    """`cadence` is what the configuration wants."""

    def __init__(self, cadence: Cadence, clock: Clock) -> None:
        self.cadence = cadence
        self.failure: str | None = None
        """Why the last block that was due could not be made."""
        self._clock = clock
        self._changes: deque[tuple[float, int]] = deque()
        self._waiting_since: float | None = None
        self._changed = trio.Event()

    @property
    def changes_per_minute(self) -> float:
        """Over the last minutes."""
        begin = trio.current_time() - MEASURED_S
        while self._changes and self._changes[0][0] < begin:
            self._changes.popleft()
        return sum(count for _, count in self._changes) * 60 / MEASURED_S

    @property
    def load(self) -> Load | None:
        """What the threshold goes by now; None where only time does."""
        return self.cadence.load(self.changes_per_minute)

    def holds(self, chain: Chain, outcomes: Sequence[Outcome]) -> bool:
        """Whether the outcomes may be acknowledged without a block."""
        if self.cadence.is_per_op:
            return False
        changed = {outcome.id for outcome in outcomes if outcome.changes_document}
        self._changes.append((trio.current_time(), len(changed)))
        pending = chain.pending
        size_bytes = pending.size_bytes + sum(len(outcome.content or b"") for outcome in outcomes)
        if len(pending) + len(outcomes) > MAX_PENDING_EVENTS or size_bytes > MAX_PENDING_BYTES:
            return False
        changed |= pending.contents.keys()
        return not self.cadence.is_reached(len(changed), chain.catalog.count(), self.changes_per_minute)

    def note(self, chain: Chain) -> None:
        """Something became pending, or all of it a block."""
        if not chain.pending:
            self._waiting_since = self.failure = None
        elif self._waiting_since is None:
            self._waiting_since = trio.current_time()
        self._changed.set()
        self._changed = trio.Event()

    def due_ns(self, chain: Chain) -> int | None:
        """When a block is made of what is pending, None where nothing is."""
        since_ns = chain.pending.since_ns
        return None if since_ns is None else self.cadence.end_after(since_ns)

    async def run(self, chain: Chain, seal: Callable[[], Awaitable[BlockName]]) -> None:
        """Make a block whenever an interval ends and something is pending, until cancelled."""
        while True:
            changed = self._changed
            wait_s = self._wait_s(chain)
            if wait_s is not None and wait_s <= 0:
                await self._seal(seal)
                continue
            with trio.move_on_after(LOOK_AGAIN_S if wait_s is None else min(wait_s, LOOK_AGAIN_S)):
                await changed.wait()

    def _wait_s(self, chain: Chain) -> float | None:
        """Seconds until a block is due; of a clock that is set back, no longer than one interval."""
        due_ns = self.due_ns(chain)
        if due_ns is None or self._waiting_since is None:
            return None
        left_s = (due_ns - self._clock.now_ns()) / NS_PER_S
        return min(left_s, self._waiting_since + self.cadence.period_s - trio.current_time())

    async def _seal(self, seal: Callable[[], Awaitable[BlockName]]) -> None:
        try:
            await seal()
        except OpfsError as error:
            if self.failure is None:
                log.warning("what is pending stays in the journal, no block can be made of it: %s", error)
            self.failure = str(error)
            await trio.sleep(RETRY_S)

    def describe(self, chain: Chain) -> Sequence[str]:
        """How much is pending, since when and until when, and by what rule; nothing where every write has its block."""
        pending, due_ns = chain.pending, self.due_ns(chain)
        if self.cadence.is_per_op and not pending:
            return ()
        load = self.load
        rule = self.cadence.interval
        if load is not None:
            rule += f", or when {load.threshold:.0%} of the elements have changed ({load} load)"
        if due_ns is None or pending.since_ns is None:
            return (f"nothing; blocks: {rule}",)
        since, due = format_time(pending.since_ns)[:19], format_time(due_ns)[:19]
        lines = [
            f"events: {len(pending)}, elements: {len(pending.tips)}, since {since}Z, durable in the journal",
            f"next block: {due}Z ({rule}), or at once: opfs commit",
        ]
        return [*lines, f"NO BLOCK could be made: {self.failure}"] if self.failure else lines
