"""When vectors are made: after the words, while nobody writes, and again after a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from opfs.commit.derive import QUIET_S
from opfs.commit.meaning import BACKLOG, MAX_WAIT_S, MODEL_RETRY_S, TEXTS_BESIDE_WRITERS, TEXTS_PER_STEP, Meaning
from opfs.errors import NotFound, OpfsError

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 3


class Chain:
    """A sequencer and the deriver of words behind it: what is committed can be found by words at once."""

    def __init__(self) -> None:
        self.on_block = []
        self.on_change = []
        self.wanted_count = 0
        self.is_current = True
        self.rebuilds = 0

    def commit(self, count: int) -> None:
        self.wanted_count += count
        for tell in self.on_block:
            tell(None)
        for tell in self.on_change:
            tell()

    def rebuild(self) -> None:
        self.rebuilds += 1

    async def wait_current(self) -> None:
        """It is."""


class Vectors:
    """An index: every event has a text of its own; `missing` is why the model cannot be loaded."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.embedded_count = 0
        self.left_to_tidy = STEPS
        self.spares = True
        self.missing = ""
        self.limits: list[int] = []
        """Of every step that made anything."""

    @property
    def indexed_count(self) -> int:
        return self.chain.wanted_count

    def embed(self, limit: int) -> int:
        if self.missing:
            raise NotFound(self.missing)
        made = min(limit, self.chain.wanted_count - self.embedded_count)
        if made:
            self.limits.append(limit)
        self.embedded_count += made
        return made

    def settle(self) -> bool:
        assert self.embedded_count == self.chain.wanted_count, "nothing may be tidied up before all is there"
        self.left_to_tidy -= 1
        self.spares = self.spares and self.left_to_tidy > 0
        return self.left_to_tidy > 0

    def forget_spares(self) -> None:
        self.spares = False


async def until(is_so: Callable[[], bool]) -> None:
    """Return when it is so, while no time passes but that of the worker thread."""
    while not is_so():
        await trio.lowlevel.checkpoint()


@pytest.fixture
def chain():
    return Chain()


@pytest.fixture
def index(chain):
    return Vectors(chain)


@pytest.fixture
async def meaning(chain, index, nursery):
    meaning = Meaning(index, chain, chain)
    nursery.start_soon(meaning.run)
    return meaning


async def test_what_is_there_is_embedded_without_waiting(chain, index, nursery, autojump_clock):
    chain.wanted_count = 5 * TEXTS_PER_STEP + 1
    meaning = Meaning(index, chain, chain)
    nursery.start_soon(meaning.run)
    await meaning.wait_settled()
    assert (meaning.lag, index.embedded_count, index.spares) == (0, chain.wanted_count, False)
    assert trio.current_time() < QUIET_S


async def test_it_waits_until_nobody_writes(meaning, chain, index, autojump_clock):
    await meaning.wait_settled()
    for _ in range(10):
        chain.commit(1)
        await trio.sleep(QUIET_S / 2)
        assert index.embedded_count == 0
    await trio.sleep(QUIET_S)
    await meaning.wait_current()
    assert (meaning.lag, index.embedded_count) == (0, 10)


async def test_who_writes_without_a_pause_does_not_stop_it(meaning, chain, index, autojump_clock):
    await meaning.wait_settled()
    started = trio.current_time()
    while not index.embedded_count:
        chain.commit(1)
        await trio.sleep(QUIET_S / 2)
    assert MAX_WAIT_S <= trio.current_time() - started < 2 * MAX_WAIT_S


async def test_a_long_burst_is_followed_a_few_texts_at_a_time(meaning, chain, index, mock_clock):
    await meaning.wait_settled()
    for _ in range(2 * BACKLOG // 8):
        chain.commit(8)
        mock_clock.jump(QUIET_S / 10)
        await until(lambda: meaning.lag < BACKLOG)
    assert set(index.limits) == {TEXTS_BESIDE_WRITERS}
    mock_clock.jump(QUIET_S)
    await until(lambda: not meaning.lag)
    assert index.limits[-1] == TEXTS_PER_STEP


async def test_a_short_burst_is_left_until_nobody_writes(meaning, chain, index, mock_clock):
    await meaning.wait_settled()
    for _ in range(BACKLOG - 1):
        chain.commit(1)
        mock_clock.jump(QUIET_S / 100)
        await trio.testing.wait_all_tasks_blocked()
    assert not index.limits
    mock_clock.jump(QUIET_S)
    await until(lambda: not meaning.lag)
    assert set(index.limits) == {TEXTS_PER_STEP}


async def test_who_searches_does_not_wait_for_quiet(meaning, chain, index, autojump_clock):
    await meaning.wait_settled()
    chain.commit(7)
    before = trio.current_time()
    await meaning.wait_current()
    assert index.embedded_count == 7
    assert trio.current_time() - before < QUIET_S


async def test_a_missing_model_is_told_and_looked_for_again(meaning, chain, index, autojump_clock, caplog):
    await meaning.wait_settled()
    index.missing = "there is no model; fetch it"
    chain.commit(1)
    with pytest.raises(OpfsError, match=r"there is no model; fetch it.*text"):
        await meaning.wait_current()
    assert meaning.failure == index.missing
    await trio.sleep(3 * MODEL_RETRY_S)
    assert len(caplog.records) == 1
    index.missing = ""
    await trio.sleep(MODEL_RETRY_S)
    await meaning.wait_current()
    assert (meaning.failure, index.embedded_count) == (None, 1)
    caplog.clear()


async def test_a_rebuild_is_settled_when_nothing_of_before_is_left(meaning, chain, index, autojump_clock):
    chain.commit(3)
    await meaning.wait_settled()
    index.embedded_count, index.left_to_tidy, index.spares = 0, STEPS, True
    meaning.rebuild()
    assert chain.rebuilds == 1
    await meaning.wait_settled()
    assert (index.embedded_count, index.spares) == (3, False)


async def test_without_a_model_a_rebuild_leaves_nothing_either(meaning, chain, index, autojump_clock, caplog):
    chain.commit(3)
    await meaning.wait_settled()
    index.embedded_count, index.spares, index.missing = 0, True, "there is no model"
    meaning.rebuild()
    with pytest.raises(OpfsError, match="there is no model"):
        await meaning.wait_settled()
    await meaning.forget_spares()
    assert not index.spares
    caplog.clear()
