"""Queries go before bulk work, and what nobody uses is given back: the parts of the embedder that need no model."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest

from opfs.embedding.cached import CachedEmbedder
from opfs.embedding.idle import IdleTimer
from opfs.embedding.lanes import Lanes
from opfs.testing.embedder import WordHashEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE_S = 30.0
FOREVER_S = 3600.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)


class Runner:
    """Enters a lane in a thread of its own, and leaves when told to."""

    def __init__(self, lane) -> None:
        self.entered = threading.Event()
        self._leave = threading.Event()
        self._lane = lane
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._lane():
            self.entered.set()
            assert self._leave.wait(DEADLINE_S)

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()


@pytest.fixture
def start():
    with ExitStack() as runners:

        def begin(lane) -> Runner:
            runner = Runner(lane)
            runners.callback(runner.leave)
            return runner

        yield begin


def waits(runner: Runner) -> bool:
    return not runner.entered.wait(0.05)


# --- lanes


def test_a_query_does_not_wait_for_bulk_work(start):
    lanes = Lanes(1, patience_s=FOREVER_S)
    assert start(lanes.bulk).entered.wait(DEADLINE_S)
    assert start(lanes.query).entered.wait(DEADLINE_S)


def test_bulk_work_waits_until_no_query_is_left(start):
    lanes = Lanes(2, patience_s=FOREVER_S)
    queries = [start(lanes.query), start(lanes.query)]
    assert all(query.entered.wait(DEADLINE_S) for query in queries)
    bulk = start(lanes.bulk)
    assert waits(bulk)
    queries[0].leave()
    assert waits(bulk)
    queries[1].leave()
    assert bulk.entered.wait(DEADLINE_S)


def test_a_query_that_waits_for_its_place_holds_bulk_work_back_too(start):
    lanes = Lanes(1, patience_s=FOREVER_S)
    first = start(lanes.query)
    assert first.entered.wait(DEADLINE_S)
    second = start(lanes.query)
    assert waits(second)
    bulk = start(lanes.bulk)
    first.leave()
    assert second.entered.wait(DEADLINE_S)
    assert waits(bulk)
    second.leave()
    assert bulk.entered.wait(DEADLINE_S)


def test_no_lane_is_wider_than_it_is(start):
    lanes = Lanes(2, patience_s=FOREVER_S)
    running = [start(lanes.bulk), start(lanes.bulk)]
    assert all(bulk.entered.wait(DEADLINE_S) for bulk in running)
    third = start(lanes.bulk)
    assert waits(third)
    running[0].leave()
    assert third.entered.wait(DEADLINE_S)


def test_queries_without_end_do_not_stop_bulk_work(start):
    lanes = Lanes(1, patience_s=0.01)
    assert start(lanes.query).entered.wait(DEADLINE_S)
    assert start(lanes.bulk).entered.wait(DEADLINE_S)


def test_a_run_that_fails_leaves_its_place():
    lanes = Lanes(1, patience_s=FOREVER_S)
    for lane in (lanes.query, lanes.bulk):
        with pytest.raises(RuntimeError), lane():
            raise RuntimeError
        with lane():
            pass


# --- idle


class Holder:
    def __init__(self, idle_s: float) -> None:
        self.drops = 0
        self.idle = IdleTimer(self.drop, idle_s)

    def drop(self) -> None:
        self.drops += 1


def timers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_it_is_dropped_once_after_idle_time_and_again_after_new_use():
    holder = Holder(0.01)
    holder.idle.touch()
    until(lambda: holder.drops == 1)
    until(lambda: not timers())
    holder.idle.touch()
    until(lambda: holder.drops == 2)


def test_use_puts_it_off():
    holder = Holder(FOREVER_S)
    holder.idle.touch()
    (timer,) = timers()
    holder.idle.touch()
    assert timers() == [timer]
    holder.idle.stop()
    until(lambda: not timers())
    assert holder.drops == 0


def test_a_timer_that_rings_after_new_use_waits_on():
    holder = Holder(0.2)
    holder.idle.touch()
    (first,) = timers()
    end = time.monotonic() + DEADLINE_S
    while first.is_alive():
        holder.idle.touch()
        assert time.monotonic() < end
    assert holder.drops == 0
    until(lambda: holder.drops == 1)


def test_without_an_idle_time_nothing_waits():
    holder = Holder(0)
    holder.idle.touch()
    assert timers() == []


def test_what_nobody_holds_is_not_kept_until_the_timer_rings():
    holder = Holder(FOREVER_S)
    holder.idle.touch()
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None
    until(lambda: not timers())


# --- the cache in front


class Kept(dict):
    def get(self, model_id, text):
        return super().get((model_id, text))

    def put(self, model_id, text, vector, cost_us=0):
        assert cost_us >= 0
        self[model_id, text] = vector.copy()


def test_a_text_is_computed_once_for_each_model():
    kept = Kept()
    one, other = WordHashEmbedder(model_id="one"), WordHashEmbedder(model_id="other", dimensions=8)
    first = CachedEmbedder(one, kept).embed(["web"])
    again = CachedEmbedder(one, kept).embed(["web"])
    assert (first == again).all()
    assert again.shape == (1, 384)
    again[0, 0] = 7
    assert (CachedEmbedder(one, kept).embed(["web"]) == first).all()
    assert one.embedded_count == 1
    assert CachedEmbedder(other, kept).embed(["web"]).shape == (1, 8)


def test_many_texts_are_not_kept():
    kept = Kept()
    embedder = WordHashEmbedder()
    cached = CachedEmbedder(embedder, kept)
    assert cached.embed(["a", "b"]).shape == (2, 384)
    assert cached.embed([]).shape == (0, 384)
    assert kept == {}
    assert (cached.model_id, cached.dimensions) == (embedder.model_id, embedder.dimensions)


def test_a_vector_of_another_size_is_made_again():
    kept = Kept()
    kept["word-hash/1", "web"] = np.zeros(3, np.float32)
    assert CachedEmbedder(WordHashEmbedder(), kept).embed(["web"]).shape == (1, 384)
