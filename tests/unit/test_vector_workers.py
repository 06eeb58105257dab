"""Threads that help one search: all is done, by whoever is there."""

from __future__ import annotations

import threading

import pytest

from opfs.index.exact.workers import Workers


def work_of(workers: Workers, count: int) -> tuple[list[int], set[int]]:
    done: list[int] = []
    threads: set[int] = set()

    def begin():
        threads.add(threading.get_ident())
        return done.append

    workers.run(begin, range(count))
    return sorted(done), threads


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_every_item_is_done_once(count):
    workers = Workers(3)
    assert work_of(workers, count)[0] == list(range(count))
    workers.close()


def test_a_search_that_outlives_the_engine_is_finished_alone():
    """An index that is cleared, or gets another model, closes its engine under searches that began before."""
    workers = Workers(3)
    workers.close()
    assert work_of(workers, 100) == (list(range(100)), {threading.get_ident()})


def test_what_goes_wrong_in_any_thread_is_told():
    workers = Workers(3)

    def begin():
        def work(item: int) -> None:
            if item == 7:
                raise OSError("no disk")

        return work

    with pytest.raises(OSError, match="no disk"):
        workers.run(begin, range(100))
    workers.close()


def test_two_halves_run_side_by_side():
    workers = Workers(2)
    met = threading.Barrier(2)

    def half(found: str) -> str:
        met.wait()
        return found

    assert workers.both(lambda: half("words"), lambda: half("meaning")) == ("words", "meaning")
    workers.close()


def test_two_halves_are_done_one_after_the_other_where_no_thread_is_free():
    workers = Workers(2)
    workers.close()
    order: list[int] = []
    assert workers.both(lambda: order.append(1), lambda: order.append(2)) == (None, None)
    assert order == [1, 2]


@pytest.mark.parametrize("wrong", [0, 1])
def test_what_goes_wrong_in_either_half_is_told(wrong: int):
    def half(number: int) -> None:
        if number == wrong:
            raise OSError("no disk")

    workers = Workers(2)
    with pytest.raises(OSError, match="no disk"):
        workers.both(lambda: half(0), lambda: half(1))
    workers.close()
