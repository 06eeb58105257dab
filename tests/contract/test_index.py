"""What every Index keeps to, and what this one does when its files are torn, damaged or another model's."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from indexing import event, events_of, fill, search, sentences

from opfs.embedding.model import MiniLmEmbedder
from opfs.index.store import SqliteIndex
from opfs.testing.embedder import WordHashEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opfs.ports import Embedder


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.needs("model"))])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    if request.param == "fake":
        return WordHashEmbedder()
    return MiniLmEmbedder(request.getfixturevalue("models_dir"))


@pytest.fixture
def index(tmp_path: Path, embedder: Embedder) -> Iterator[SqliteIndex]:
    index = SqliteIndex(tmp_path / "index", embedder)
    yield index
    index.close()


# --- every index ---------------------------------------------------------------------------------------------


def test_an_empty_index_finds_nothing(index: SqliteIndex):
    assert (index.indexed_count, index.tip(), search(index, "web")) == (0, None, [])


def test_what_was_appended_is_found_whole(index: SqliteIndex):
    events = events_of(["container web created", "bridge br0 deleted"])
    fill(index, events)
    assert (index.indexed_count, index.tip()) == (2, (1, events[1].event_hash))
    (hit,) = index.similar("container web created", limit=1, uid=0, gids=[])
    assert hit.event == events[0]
    assert hit.score == pytest.approx(1, abs=1e-5)


def test_it_is_exact(index: SqliteIndex, embedder: Embedder):
    texts = sentences(400)
    fill(index, events_of(texts))
    vectors = np.concatenate([embedder.embed([text]) for text in texts]).astype(np.float64)
    for query in ("web memory 7", "hostname of the container", "mtu", texts[11]):
        exact = vectors @ embedder.embed([query])[0].astype(np.float64)
        hits = index.similar(query, limit=25, uid=0, gids=[])
        assert [hit.score for hit in hits] == pytest.approx(sorted(exact, reverse=True)[:25], abs=1e-6)
        assert [exact[hit.event.seq] for hit in hits] == pytest.approx([hit.score for hit in hits], abs=1e-6)


def test_equal_texts_come_newest_first(index: SqliteIndex):
    fill(index, events_of(["web started", "bridge", "web started", "web started"]))
    fill(index, events_of(["web started", "web started"], first=4))
    assert search(index, "web started", limit=4) == [5, 4, 3, 2]


def test_more_is_asked_than_there_is(index: SqliteIndex):
    fill(index, events_of(["a", "b", "c"]))
    assert sorted(search(index, "b", limit=1000)) == [0, 1, 2]


def test_only_readers_of_the_document_see_its_events(index: SqliteIndex):
    fill(
        index,
        [
            event(0, "web public", uid=1, gid=1, mode=0o644),
            event(1, "web of group 5", uid=1, gid=5, mode=0o640),
            event(2, "web of user 7", uid=7, gid=1, mode=0o600),
            event(3, "web that its owner 7 may not read", uid=7, gid=5, mode=0o044),
            event(4, "web that nobody may read", uid=1, gid=1, mode=0o000),
        ],
    )
    assert sorted(search(index, "web", uid=0)) == [0, 1, 2, 3, 4]
    assert sorted(search(index, "web", uid=7, gids=[7])) == [0, 2]
    assert sorted(search(index, "web", uid=8, gids=[8, 5])) == [0, 1, 3]
    assert sorted(search(index, "web", uid=8, gids=[])) == [0, 3]
    # The best of all is hidden, and the places go to the next ones.
    assert sorted(search(index, "web that nobody may read", limit=2, uid=8)) == [0, 3]


def test_gaps_and_repeats_are_refused(index: SqliteIndex):
    fill(index, events_of(["a"]))
    for wrong in ([event(0, "b")], [event(2, "b")], [event(1, "b"), event(3, "c")]):
        with pytest.raises(ValueError, match="numbered from 1 on"):
            fill(index, wrong)
    assert index.indexed_count == 1


def test_clearing_forgets_everything(index: SqliteIndex):
    fill(index, events_of(sentences(20)))
    index.clear()
    assert (index.indexed_count, index.tip(), search(index, "web")) == (0, None, [])
    fill(index, events_of(["bridge"]))
    assert search(index, "web") == [0]


def test_a_search_after_an_append_misses_nothing_whoever_else_searches(index: SqliteIndex):
    done = threading.Event()

    def search_on() -> int:
        searches = 0
        while not done.is_set():
            before = index.embedded_count
            hits = index.similar("web memory", limit=5000, uid=0, gids=[])
            assert {hit.event.seq for hit in hits} >= set(range(before))
            searches += 1
        return searches

    with ThreadPoolExecutor(3) as pool:
        searchers = [pool.submit(search_on) for _ in range(3)]
        try:
            for number in range(40):
                fill(index, events_of([f"web {number}", f"memory {number}", "bridge"], first=3 * number))
                assert 3 * number + 1 in search(index, f"memory {number}", limit=1)
        finally:
            done.set()
        assert all(searcher.result() for searcher in searchers)


def test_clearing_under_a_search_does_not_hurt_it(index: SqliteIndex):
    done = threading.Event()

    def search_on() -> None:
        while not done.is_set():
            assert set(search(index, "web memory", limit=100)) <= set(range(30))

    texts = sentences(30)
    with ThreadPoolExecutor(2) as pool:
        searchers = [pool.submit(search_on) for _ in range(2)]
        try:
            for _ in range(15):
                fill(index, events_of(texts))
                index.clear()
        finally:
            done.set()
        for searcher in searchers:
            searcher.result()
