"""What every Index keeps to, and what this one does when its files are torn, damaged or another model's."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opfs.core.names import ElementId
from opfs.embedding.model import MiniLmEmbedder
from opfs.errors import IntegrityError, PoolError
from opfs.index.schema import MIGRATIONS
from opfs.index.store import DAMAGED_SUFFIX, DATABASE_NAME, VECTORS_NAME, SqliteIndex
from opfs.index.vectors import HEADER_BYTES
from opfs.ports import IndexedEvent
from opfs.testing.embedder import WordHashEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opfs.ports import Embedder

WORDS = ("web", "memory", "bridge", "port", "hostname", "disk", "template", "mtu", "stopped", "deleted")


def event(seq: int, text: str, *, uid: int = 0, gid: int = 0, mode: int = 0o644) -> IndexedEvent:
    return IndexedEvent(
        seq=seq,
        height=seq // 3,
        id=ElementId("lxc", str(100 + seq % 7)),
        op="update",
        time="2026-11-03T14:00:12.000000001Z",
        actor="alice",
        summary=f"summary of {seq}",
        text=text,
        uid=uid,
        gid=gid,
        mode=mode,
        event_hash=f"{seq:064x}",
    )


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{' '.join(rng.choice(WORDS, 4))} {number % (count // 2 + 1)}" for number in range(count)]


def events_of(texts: Sequence[str], first: int = 0) -> list[IndexedEvent]:
    return [event(first + number, text) for number, text in enumerate(texts)]


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


@pytest.fixture
def open_index(tmp_path: Path) -> Iterator[Callable[..., SqliteIndex]]:
    """Opens the index of the test anew, with the fake; the one opened before is closed."""
    opened: list[SqliteIndex] = []

    def open_it(embedder: Embedder | None = None) -> SqliteIndex:
        if opened:
            opened[-1].close()
        opened.append(SqliteIndex(tmp_path / "index", embedder or WordHashEmbedder()))
        return opened[-1]

    yield open_it
    for index in opened:
        index.close()


def search(index: SqliteIndex, text: str, limit: int = 10, uid: int = 0, gids: Sequence[int] = ()) -> list[int]:
    return [hit.event.seq for hit in index.similar(text, limit=limit, uid=uid, gids=gids)]


# --- every index ---------------------------------------------------------------------------------------------


def test_an_empty_index_finds_nothing(index: SqliteIndex):
    assert (index.indexed_count, index.tip(), search(index, "web")) == (0, None, [])


def test_what_was_appended_is_found_whole(index: SqliteIndex):
    events = events_of(["container web created", "bridge br0 deleted"])
    index.append(events)
    assert (index.indexed_count, index.tip()) == (2, (1, events[1].event_hash))
    (hit,) = index.similar("container web created", limit=1, uid=0, gids=[])
    assert hit.event == events[0]
    assert hit.score == pytest.approx(1, abs=1e-5)


def test_it_is_exact(index: SqliteIndex, embedder: Embedder):
    texts = sentences(400)
    index.append(events_of(texts))
    vectors = np.concatenate([embedder.embed([text]) for text in texts]).astype(np.float64)
    for query in ("web memory 7", "hostname of the container", "mtu", texts[11]):
        exact = vectors @ embedder.embed([query])[0].astype(np.float64)
        hits = index.similar(query, limit=25, uid=0, gids=[])
        assert [hit.score for hit in hits] == pytest.approx(sorted(exact, reverse=True)[:25], abs=1e-6)
        assert [exact[hit.event.seq] for hit in hits] == pytest.approx([hit.score for hit in hits], abs=1e-6)


def test_equal_texts_come_newest_first(index: SqliteIndex):
    index.append(events_of(["web started", "bridge", "web started", "web started"]))
    index.append(events_of(["web started", "web started"], first=4))
    assert search(index, "web started", limit=4) == [5, 4, 3, 2]


def test_more_is_asked_than_there_is(index: SqliteIndex):
    index.append(events_of(["a", "b", "c"]))
    assert sorted(search(index, "b", limit=1000)) == [0, 1, 2]


def test_only_readers_of_the_document_see_its_events(index: SqliteIndex):
    index.append(
        [
            event(0, "web public", uid=1, gid=1, mode=0o644),
            event(1, "web of group 5", uid=1, gid=5, mode=0o640),
            event(2, "web of user 7", uid=7, gid=1, mode=0o600),
            event(3, "web that its owner 7 may not read", uid=7, gid=5, mode=0o044),
            event(4, "web that nobody may read", uid=1, gid=1, mode=0o000),
        ]
    )
    assert sorted(search(index, "web", uid=0)) == [0, 1, 2, 3, 4]
    assert sorted(search(index, "web", uid=7, gids=[7])) == [0, 2]
    assert sorted(search(index, "web", uid=8, gids=[8, 5])) == [0, 1, 3]
    assert sorted(search(index, "web", uid=8, gids=[])) == [0, 3]
    # The best of all is hidden, and the places go to the next ones.
    assert sorted(search(index, "web that nobody may read", limit=2, uid=8)) == [0, 3]


def test_gaps_and_repeats_are_refused(index: SqliteIndex):
    index.append(events_of(["a"]))
    for wrong in ([event(0, "b")], [event(2, "b")], [event(1, "b"), event(3, "c")]):
        with pytest.raises(ValueError, match="numbered from 1 on"):
            index.append(wrong)
    assert index.indexed_count == 1


def test_clearing_forgets_everything(index: SqliteIndex):
    index.append(events_of(sentences(20)))
    index.clear()
    assert (index.indexed_count, index.tip(), search(index, "web")) == (0, None, [])
    index.append(events_of(["bridge"]))
    assert search(index, "web") == [0]


def test_a_search_after_an_append_misses_nothing_whoever_else_searches(index: SqliteIndex):
    done = threading.Event()

    def search_on() -> int:
        searches = 0
        while not done.is_set():
            before = index.indexed_count
            hits = index.similar("web memory", limit=5000, uid=0, gids=[])
            assert {hit.event.seq for hit in hits} >= set(range(before))
            searches += 1
        return searches

    with ThreadPoolExecutor(3) as pool:
        searchers = [pool.submit(search_on) for _ in range(3)]
        try:
            for number in range(40):
                index.append(events_of([f"web {number}", f"memory {number}", "bridge"], first=3 * number))
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
                index.append(events_of(texts))
                index.clear()
        finally:
            done.set()
        for searcher in searchers:
            searcher.result()


# --- this index ----------------------------------------------------------------------------------------------


def test_it_is_all_there_when_opened_again(open_index):
    texts = sentences(300)
    index = open_index()
    index.append(events_of(texts))
    expected = index.similar("web memory", limit=30, uid=0, gids=[])
    index = open_index()
    assert (index.indexed_count, index.tip()) == (300, (299, f"{299:064x}"))
    assert index.similar("web memory", limit=30, uid=0, gids=[]) == expected


def test_equal_texts_are_embedded_once(open_index):
    embedder = WordHashEmbedder()
    index = open_index(embedder)
    index.append(events_of(["same", "other", "same"]))
    index.append(events_of(["same", "third"], first=3))
    assert embedder.embedded_count == 3
    assert open_index(embedder).indexed_count == 5


def test_only_the_owner_may_look_inside(open_index, tmp_path: Path):
    open_index().append(events_of(["secret"]))
    assert (tmp_path / "index").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "index").iterdir())


def test_text_that_is_no_utf8_is_kept_readable(open_index):
    index = open_index()
    index.append(events_of(["command \udcff"]))
    (hit,) = index.similar("command", limit=1, uid=0, gids=[])
    assert hit.event.text == "command ?"


def test_another_model_begins_anew(open_index, tmp_path: Path):
    open_index().append(events_of(["web"]))
    index = open_index(WordHashEmbedder(model_id="word-hash/2", dimensions=8))
    assert index.indexed_count == 0
    index.append(events_of(["bridge"]))
    assert search(index, "bridge") == [0]
    assert not (tmp_path / "index" / (DATABASE_NAME + DAMAGED_SUFFIX)).exists()


def test_a_database_of_a_newer_program_begins_anew(open_index, tmp_path: Path):
    index = open_index()
    index.append(events_of(["web"]))
    index.close()
    with sqlite3.connect(tmp_path / "index" / DATABASE_NAME) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    assert open_index().indexed_count == 0


def test_a_closed_index_says_so(open_index):
    index = open_index()
    index.close()
    index.close()
    for use in (lambda: index.append(events_of(["a"])), lambda: search(index, "a"), index.clear):
        with pytest.raises(PoolError, match="closed"):
            use()


def test_an_embedder_without_meaning_is_refused(open_index):
    class Broken(WordHashEmbedder):
        def embed(self, texts):
            return np.full_like(super().embed(texts), np.nan)

    index = open_index(Broken())
    with pytest.raises(IntegrityError, match="finite"):
        index.append(events_of(["a"]))
    assert index.indexed_count == 0
    assert open_index().indexed_count == 0


def test_a_crash_between_vectors_and_rows_leaves_nothing_behind(open_index, tmp_path: Path):
    index = open_index()
    index.append(events_of(["one", "two"]))
    index.close()
    with (tmp_path / "index" / VECTORS_NAME).open("ab") as file:
        file.write(b"\x7f" * 5000)
    index = open_index()
    assert index.indexed_count == 2
    index.append(events_of(["three", "four"], first=2))
    assert search(index, "four", limit=1) == [3]
    assert open_index().indexed_count == 4


def test_a_vector_that_did_not_reach_the_disk_is_noticed(open_index, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    index = open_index()
    index.append(events_of(["one", "two", "two", "three", "one"]))
    # As after a power cut: the index was never closed, and the third of the three vectors is zeros.
    crashed = tmp_path / "crashed"
    shutil.copytree(tmp_path / "index", crashed)
    with (crashed / VECTORS_NAME).open("r+b") as file:
        file.seek(HEADER_BYTES + 2 * 4 * 384)
        file.write(bytes(4 * 384))
    with caplog.at_level(logging.WARNING):
        recovered = SqliteIndex(crashed, WordHashEmbedder())
    assert (recovered.indexed_count, recovered.tip()) == (3, (2, f"{2:064x}"))
    assert "ended torn: 2 vectors of 3" in caplog.text
    recovered.append(events_of(["three", "one"], first=3))
    assert search(recovered, "three", limit=1) == [3]
    recovered.close()


APPEND_FOREVER = """
import sys
from pathlib import Path
from opfs.index.store import SqliteIndex
from opfs.testing.embedder import WordHashEmbedder
from tests.contract.test_index import events_of

index = SqliteIndex(Path(sys.argv[1]), WordHashEmbedder())
while True:
    count = index.indexed_count
    index.append(events_of([f"event {count + number}" for number in range(5)], first=count))
    print(index.indexed_count, flush=True)
"""


def test_a_killed_process_loses_nothing_it_had_appended(tmp_path: Path):
    command = [sys.executable, "-c", APPEND_FOREVER, str(tmp_path / "index")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        acknowledged = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        acknowledged += [int(line) for line in process.stdout.read().split()]
    index = SqliteIndex(tmp_path / "index", WordHashEmbedder())
    assert index.indexed_count >= acknowledged[-1]
    assert search(index, f"event {acknowledged[-1] - 1}", limit=1) == [acknowledged[-1] - 1]
    index.append(events_of(["one more"], first=index.indexed_count))
    index.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lost=st.integers(0, 60 * 4 * 384 + HEADER_BYTES), is_synced=st.booleans(), repeats=st.booleans())
def test_any_torn_tail_leaves_a_beginning_that_can_go_on(
    tmp_path_factory: pytest.TempPathFactory, lost: int, is_synced: bool, repeats: bool
):
    directory = tmp_path_factory.mktemp("torn")
    texts = [f"{text} {0 if repeats else number}" for number, text in enumerate(sentences(60))]
    index = SqliteIndex(directory / "a", WordHashEmbedder())
    index.append(events_of(texts))
    if is_synced:
        index.close()
    shutil.copytree(directory / "a", directory / "b")
    index.close()
    vectors = directory / "b" / VECTORS_NAME
    size = max(0, vectors.stat().st_size - lost)
    with vectors.open("r+b") as file:
        file.truncate(size)
    recovered = SqliteIndex(directory / "b", WordHashEmbedder())
    count = recovered.indexed_count
    assert count <= 60
    assert lost > 0 or count == 60
    if not repeats:
        assert count == (max(0, size - HEADER_BYTES) // (4 * 384) if size >= HEADER_BYTES else 0)
    recovered.append(events_of(texts[count:], first=count))
    whole = SqliteIndex(directory / "a", WordHashEmbedder())
    arguments = {"limit": 60, "uid": 0, "gids": []}
    assert recovered.similar("web memory", **arguments) == whole.similar("web memory", **arguments)
    recovered.close()
    whole.close()
    shutil.rmtree(directory)


@pytest.mark.parametrize("name", [DATABASE_NAME, VECTORS_NAME])
@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, None], ids=["empty", "garbage", "gone"])
def test_damaged_files_are_begun_anew(open_index, tmp_path: Path, name: str, content: bytes | None):
    index = open_index()
    index.append(events_of(sentences(10)))
    index.close()
    path = tmp_path / "index" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    index = open_index()
    assert index.indexed_count == 0
    index.append(events_of(["web"]))
    assert search(index, "web") == [0]
    assert open_index().indexed_count == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 4096))
def test_a_damaged_database_never_stops_an_open(tmp_path_factory: pytest.TempPathFactory, seed: int, length: int):
    directory = tmp_path_factory.mktemp("damaged")
    index = SqliteIndex(directory, WordHashEmbedder(dimensions=8))
    index.append(events_of(sentences(50)))
    index.close()
    rng = np.random.default_rng(seed)
    path = directory / DATABASE_NAME
    content = bytearray(path.read_bytes())
    start = int(rng.integers(0, len(content)))
    content[start : start + length] = rng.bytes(len(content[start : start + length]))
    path.write_bytes(content)
    index = SqliteIndex(directory, WordHashEmbedder(dimensions=8))
    assert index.indexed_count <= 50
    found = None
    # What lies in pages that opening does not read, a search finds, and says what to do.
    with suppress(IntegrityError):
        found = len(index.similar("web", limit=50, uid=0, gids=[]))
    assert found in (None, index.indexed_count)
    index.clear()
    index.append(events_of(["web"]))
    assert search(index, "web") == [0]
    index.close()
    shutil.rmtree(directory)


def test_damage_is_kept_for_whoever_asks(open_index, tmp_path: Path):
    open_index().close()
    (tmp_path / "index" / DATABASE_NAME).write_bytes(b"garbage" * 1000)
    open_index()
    assert (tmp_path / "index" / (DATABASE_NAME + DAMAGED_SUFFIX)).read_bytes() == b"garbage" * 1000


def test_a_place_that_cannot_be_used_is_no_damage(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(PoolError, match="cannot be used"):
        SqliteIndex(tmp_path / "file" / "index", WordHashEmbedder())


def test_every_column_says_what_it_is_for():
    for script in MIGRATIONS:
        columns = [line for line in script.splitlines() if line.startswith("  ") and not line.startswith("  UNIQUE")]
        assert columns
        assert all("--" in line for line in columns)
