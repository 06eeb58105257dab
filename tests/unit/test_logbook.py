"""When the log's files are written: after a pause, within a limit, at the end, and what a failure says."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from opfs.commit.logbook import PAUSE_S, STORE_WITHIN_S, Logbook
from opfs.errors import NoSpace
from opfs.testing.log import MemoryLog
from opfs.testing.store import MemorySnapshotStore


class CountingLog(MemoryLog):
    """Tells when it was stored, on trio's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.stored_at: list[float] = []
        self.is_full = False

    def store(self) -> None:
        self.stored_at.append(trio.current_time())
        if self.is_full:
            raise NoSpace("the pool is full")


@pytest.fixture
def log(monkeypatch):
    """Stored without a thread, for which trio's test clock would not wait."""

    async def call(function):
        await trio.lowlevel.checkpoint()
        function()

    monkeypatch.setattr(trio.to_thread, "run_sync", call)
    return CountingLog()


@asynccontextmanager
async def running(log):
    logbook = Logbook(log, MemorySnapshotStore())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(logbook.run)
        await trio.testing.wait_all_tasks_blocked()
        yield logbook
        nursery.cancel_scope.cancel()


async def test_nothing_new_is_not_stored(log, autojump_clock):
    async with running(log):
        await trio.sleep(10)
    assert log.stored_at == []


async def test_blocks_in_a_row_are_stored_once_after_a_pause(log, autojump_clock):
    async with running(log) as logbook:
        for _ in range(5):
            logbook.wake()
            await trio.sleep(PAUSE_S / 2)
        last = trio.current_time() - PAUSE_S / 2
        await trio.sleep(10)
        assert log.stored_at == [pytest.approx(last + PAUSE_S)]
        logbook.wake()
        await trio.sleep(10)
    assert len(log.stored_at) == 2


async def test_blocks_without_a_pause_are_stored_now_and_then(log, autojump_clock):
    async with running(log) as logbook:
        while trio.current_time() < 4 * STORE_WITHIN_S:
            logbook.wake()
            await trio.sleep(PAUSE_S / 2)
        await trio.sleep(10)
    gaps = [later - earlier for earlier, later in zip([0, *log.stored_at], log.stored_at, strict=False)]
    assert len(gaps) == 4 or len(gaps) == 5
    assert max(gaps) <= STORE_WITHIN_S + PAUSE_S


async def test_a_failure_is_told_and_the_next_block_tries_again(log, autojump_clock, caplog):
    log.is_full = True
    async with running(log) as logbook:
        logbook.wake()
        await trio.sleep(1)
        assert logbook.failure == "the pool is full"
        log.is_full = False
        logbook.wake()
        await trio.sleep(1)
        assert logbook.failure is None
    assert "behind the chain" in caplog.text
