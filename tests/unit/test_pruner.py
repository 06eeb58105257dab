"""Pruning for room: as much as is needed, never in vain for ever. The room is told here, the rest is real."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from opfs.commit import pruning
from opfs.commit.failsafe import FailSafe
from opfs.commit.pruning import Pruner
from opfs.core.actor import Actor
from opfs.core.names import BlockName
from opfs.core.retention import MinFree, Retention
from opfs.core.timestamp import NS_PER_S
from opfs.errors import NoSpace

ROOT = Actor(uid=0, user="root")
EACH = 100_000


@dataclass
class Pool:
    """Blocks an hour apart; each snapshot holds `gives` bytes once it is freed."""

    live_blocks: list[BlockName]
    gives: int = EACH
    free_bytes: int = 0
    total_bytes: int = 10**9
    freeing: int = 0
    groups: list[int] = field(default_factory=list)

    @property
    def live_count(self) -> int:
        return len(self.live_blocks)

    def archive_blocks(self, names) -> None:
        self.groups.append(len(names))

    def delete_snapshots(self, names) -> None:
        self.live_blocks = [block for block in self.live_blocks if block not in names]
        self.freeing += len(names) * self.gives

    def space(self):
        return self

    def used_by_snapshots(self) -> int:
        return EACH * len(self.live_blocks)

    def wait_freed(self) -> bool:
        self.free_bytes, self.freeing = self.free_bytes + self.freeing, 0
        return True


class Sequencer:
    """Records what is pruned; here no block is made of that."""

    def __init__(self) -> None:
        self.failsafe = FailSafe()
        self.on_block: list = []
        self.recorded: list[str] = []

    async def record(self, request, applied) -> None:
        self.recorded.append(applied.outcomes[0].plan[0]["summary"])


async def labels():
    return {"kept": BlockName(5, "5" * 12)}


NONE = MinFree()


def make(pool, min_free=NONE, max_live=0):
    sequencer = Sequencer()
    timeline = SimpleNamespace(time_ns=lambda block: block.height * 3600 * NS_PER_S)
    retention = Retention(newest=10, hourly=1000, daily=0, weekly=0, quarterly=0, min_free=min_free)
    pruner = Pruner(
        pool, sequencer, timeline, SimpleNamespace(current=labels), SimpleNamespace(), pool, retention, max_live
    )
    return pruner, sequencer


@pytest.fixture
def pool():
    return Pool([BlockName(height, f"{height:012x}") for height in range(200)])


@pytest.fixture(autouse=True)
def labelled(pool):
    pool.live_blocks[5] = BlockName(5, "5" * 12)


async def test_without_a_wish_for_room_nothing_more_goes(pool):
    pruner, _ = make(pool)
    assert await pruner.prune(ROOT) == 0


async def test_as_many_as_are_needed_go_oldest_first(pool):
    pruner, sequencer = make(pool, MinFree(35 * EACH))
    plan = await pruner.plan()
    assert [block.height for block in plan.pruned] == [*range(5), *range(6, 36)]
    assert plan.for_room == set(plan.pruned)
    assert await pruner.prune(ROOT) == 35
    assert pool.free_bytes == 35 * EACH
    assert pool.live_blocks[0].height == 5
    assert sequencer.recorded == ["blocks 0-4, 6-35"]
    assert await pruner.prune(ROOT) == 0


async def test_what_gives_less_than_was_thought_is_made_up_for(pool):
    pool.gives = EACH // 3
    pruner, _ = make(pool, MinFree(35 * EACH))
    assert 105 <= await pruner.prune(ROOT) <= 115
    assert pool.free_bytes >= 35 * EACH
    assert max(pool.groups) <= pruning.ROOM_AT_ONCE


async def test_the_newest_and_the_labelled_stay_whatever_is_wanted(pool):
    pruner, _ = make(pool, MinFree(percent=99))
    with pytest.raises(NoSpace, match="something else fills the pool"):
        await pruner.prune(ROOT)
    assert [block.height for block in pool.live_blocks] == [5, *range(190, 200)]


async def test_it_ends_where_pruning_frees_nothing(pool):
    pool.gives = 0
    pruner, _ = make(pool, MinFree(35 * EACH))
    with pytest.raises(NoSpace, match="frees nothing"):
        await pruner.prune(ROOT)
    assert pool.groups == [35]


async def until(condition) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 what is waited for is no event
            await trio.sleep(0.005)


async def test_by_itself_it_tries_again_only_when_much_is_new(pool, caplog, monkeypatch):
    monkeypatch.setattr(pruning, "ROOM_LOOK_S", 0.001)
    pool.gives, looks = 0, []
    pruner, sequencer = make(pool, MinFree(10**8))
    looked = pruner.is_due

    def is_due() -> bool:
        looks.append(looked())
        return looks[-1]

    monkeypatch.setattr(pruner, "is_due", is_due)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pruner.run)
        await until(lambda: looks.count(False) > 3)
        assert "frees nothing" in (pruner.failure or "")
        assert len(pool.groups) == 1
        pool.live_blocks += [BlockName(height, f"{height:012x}") for height in range(200, 240)]
        await until(lambda: looks.count(False) > 9)
        assert len(pool.groups) == 1
        pool.gives = 10**8
        pool.live_blocks += [BlockName(height, f"{height:012x}") for height in range(240, 300)]
        for tell in sequencer.on_block:
            tell(None)
        await until(lambda: len(pool.groups) == 2 and pruner.failure is None)
        nursery.cancel_scope.cancel()
    caplog.clear()


async def test_low_space_is_seen_without_a_commit(pool, monkeypatch):
    monkeypatch.setattr(pruning, "ROOM_LOOK_S", 0.001)
    pool.free_bytes = 35 * EACH
    pruner, _ = make(pool, MinFree(35 * EACH))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pruner.run)
        await trio.testing.wait_all_tasks_blocked()
        assert pool.groups == []
        pool.free_bytes -= EACH
        await until(lambda: pool.free_bytes >= 35 * EACH)
        nursery.cancel_scope.cancel()
