"""What costs much of the search index: vectors of its texts, made when their words can be found already.

One task, apart from the one that takes in events, makes them in a worker thread of low priority: as fast as it can once
nobody has written for a moment, and a few at a time beside those who write on and on. A search by meaning waits in
`wait_current`. A model that is missing stops nothing else, and is looked for again now and then. Trio thread.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from opfs.commit.derive import MAX_LAG, RETRY_S, Quiet, low_priority
from opfs.errors import NoSpace, OpfsError, PoolError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from opfs.commit.derive import Deriver
    from opfs.commit.sequencer import Sequencer
    from opfs.ports import IndexedEvent

_Result = TypeVar("_Result")

TEXTS_PER_STEP = 128
"""About half a second's work: so long a new block, a rebuild or the end may have to wait."""
TEXTS_BESIDE_WRITERS = 8
"""One batch of the embedder, so one thread: half of two processors is left to who writes."""
BACKLOG = 256
"""Of so many texts and more some are embedded while others write; fewer are soon done when these pause."""
MAX_WAIT_S = 10.0
"""Who writes without a pause is slowed down from then on."""
MODEL_RETRY_S = 60.0

log = logging.getLogger(__name__)


class Meant(Protocol):
    """The parts of `ports.Index` that are needed; its methods block."""

    @property
    def indexed_count(self) -> int: ...

    @property
    def embedded_count(self) -> int: ...

    def embed(self, limit: int) -> int: ...

    def settle(self) -> bool: ...

    def forget_spares(self) -> None: ...


class Meaning:
    """Makes the vectors of `index`, which `words` keeps up with the chain.

    `run` must be running for the waits to return; its thread works within `placed`.
    """

    def __init__(
        self,
        index: Meant,
        words: Deriver[IndexedEvent],
        sequencer: Sequencer,
        *,
        placed: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._index = index
        self._words = words
        self._placed = placed
        self._changed = trio.Event()
        self._thread = trio.CapacityLimiter(1)
        self._waiting = 0
        self._is_settled = False
        self.failure: str | None = None
        """Why no vectors are made, or None."""
        self._quiet = Quiet(MAX_WAIT_S)
        words.on_change.append(self._wake)
        sequencer.on_block.append(lambda _: self._quiet.wrote())

    @property
    def lag(self) -> int:
        """Events committed that cannot be found by meaning yet."""
        return self._words.wanted_count - self._index.embedded_count

    async def run(self) -> None:
        """Embed what is missing, then what comes, until cancelled; what fails is tried again now and then."""
        while True:
            try:
                await self._follow()
            except (NoSpace, PoolError) as error:
                retry_s = RETRY_S
                self._fail(error)
            except OpfsError as error:
                retry_s = MODEL_RETRY_S
                self._fail(error)
            except Exception as error:
                retry_s = MODEL_RETRY_S
                log.exception("nothing is embedded")
                self.failure = str(error)
            self._announce()
            with trio.move_on_after(retry_s):
                while self.failure is not None:
                    await self._changed.wait()

    def _fail(self, error: OpfsError) -> None:
        if self.failure != str(error):
            log.warning("nothing can be found by meaning from now on: %s", error)
        self.failure = str(error)

    async def _follow(self) -> None:
        while True:
            changed = self._changed
            limit = await self._wait_for_turn()
            if await self._in_thread(self._step, limit):
                self.failure = None
                self._announce()
                continue
            if not self._is_settled and self._words.is_current and not self.lag:
                self._is_settled = True
                self.failure = None
                self._announce()
                changed = self._changed
            await changed.wait()

    async def _wait_for_turn(self) -> int:
        """Leave processor and disk to the writers while they write, unless somebody waits or the lag grows.

        How many texts to embed then.
        """
        if not self.lag:
            self._quiet.caught_up()
        while not self._waiting and self.lag < MAX_LAG and (left_s := self._quiet.left_s):
            if self._index.indexed_count - self._index.embedded_count >= BACKLOG:
                return TEXTS_BESIDE_WRITERS
            with trio.move_on_after(left_s):
                await self._changed.wait()
        return TEXTS_PER_STEP

    def rebuild(self) -> None:
        """Forget the index and make it again from the chain, in the background; what failed is tried again."""
        self._is_settled = False
        self.failure = None
        self._words.rebuild()
        self._announce()

    async def wait_current(self) -> None:
        """Return when every event committed before the call can be found by meaning; raises OpfsError if never."""
        wanted = self._words.wanted_count
        await self._wait_until(lambda: self._index.embedded_count >= wanted)

    async def wait_settled(self) -> None:
        """Return when the index is as the chain, with nothing left of what it was before; raises as `wait_current`."""
        await self._wait_until(lambda: self._is_settled)

    async def forget_spares(self) -> None:
        """Remove what was kept of an index before this one, though it would be of use."""
        await self._in_thread(self._index.forget_spares)

    async def _wait_until(self, is_so: Callable[[], bool]) -> None:
        self._waiting += 1
        self._announce()
        try:
            await self._words.wait_current()
            while not is_so():
                if self.failure is not None:
                    raise OpfsError(f"nothing can be found by meaning: {self.failure}", hint="search for words: text/")
                await self._changed.wait()
        finally:
            self._waiting -= 1

    def _wake(self) -> None:
        if self._words.wanted_count != self._index.embedded_count:
            self._is_settled = False
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _in_thread(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        return await trio.to_thread.run_sync(self._placed_work, function, *arguments, limiter=self._thread)

    # --- in the worker thread --------------------------------------------------------------------------

    def _placed_work(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        with low_priority(), self._placed():
            return function(*arguments)

    def _step(self, limit: int) -> bool:
        """Make some vectors, or tidy up when there is nothing to make; whether more is left to do."""
        return self._index.embed(limit) > 0 or (self._words.is_current and self._index.settle())
