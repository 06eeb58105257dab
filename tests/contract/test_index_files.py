"""What the index does when its files are torn, damaged, gone, of another version, or another model's."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import sys
import zlib
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexing import event, events_of, fill, search, sentences

from opfs.core.filters import EventFilter, FilterKind
from opfs.core.names import ElementId
from opfs.core.timestamp import format_time
from opfs.errors import IntegrityError, PoolError
from opfs.index.audit import IndexAudit
from opfs.index.columns import EVENT_COLUMNS, TEXT_COLUMNS
from opfs.index.generation import directory_of
from opfs.index.layout import COLUMNS_NAME, HEADER_BYTES, LABELS_NAME, ROWS_NAME, VECTORS_1_NAME, vector_header_1
from opfs.index.schema import SCHEMA, VERSION
from opfs.index.store import DAMAGED_SUFFIX, DATABASE_NAME, SqliteIndex
from opfs.testing.embedder import WordHashEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opfs.ports import Embedder, IndexedEvent

VECTORS = directory_of(Path(), WordHashEmbedder().model_id).name
ROW_BYTES = 4 * 384


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


def test_it_is_all_there_when_opened_again(open_index):
    texts = sentences(300)
    index = open_index()
    fill(index, events_of(texts))
    expected = index.similar("web memory", limit=30, uid=0, gids=[])
    index = open_index()
    assert (index.indexed_count, index.tip()) == (300, (299, f"{299:064x}"))
    assert index.similar("web memory", limit=30, uid=0, gids=[]) == expected


def test_equal_texts_are_embedded_once(open_index):
    embedder = WordHashEmbedder()
    index = open_index(embedder)
    fill(index, events_of(["same", "other", "same"]))
    fill(index, events_of(["same", "third"], first=3))
    assert embedder.embedded_count == 3
    assert open_index(embedder).indexed_count == 5


def test_only_the_owner_may_look_inside(open_index, tmp_path: Path):
    fill(open_index(), events_of(["secret"]))
    assert (tmp_path / "index").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "index").iterdir())


def test_text_that_is_no_utf8_is_kept_readable(open_index):
    index = open_index()
    fill(index, events_of(["command \udcff"]))
    (hit,) = index.similar("command", limit=1, uid=0, gids=[])
    assert hit.event.text == "command ?"


def test_a_database_of_a_newer_program_begins_anew(open_index, tmp_path: Path):
    index = open_index()
    fill(index, events_of(["web"]))
    index.close()
    with sqlite3.connect(tmp_path / "index" / DATABASE_NAME) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    assert open_index().indexed_count == 0


def test_a_closed_index_says_so(open_index):
    index = open_index()
    index.close()
    index.close()
    for use in (lambda: fill(index, events_of(["a"])), lambda: search(index, "a"), index.clear):
        with pytest.raises(PoolError, match="closed"):
            use()


def test_an_embedder_without_meaning_is_refused(open_index):
    class Broken(WordHashEmbedder):
        def embed(self, texts):
            return np.full_like(super().embed(texts), np.nan)

    index = open_index(Broken())
    with pytest.raises(IntegrityError, match="finite"):
        fill(index, events_of(["a"]))
    assert (index.indexed_count, index.embedded_count) == (1, 0)
    assert [hit.event.seq for hit in index.matching("a", limit=1, uid=0, gids=[])] == [0]
    index = open_index()
    assert index.embed(10) == 1


def files_of(directory: Path) -> list[Path]:
    """The files of records of an index: every column, the vectors and their labels."""
    columns = [*EVENT_COLUMNS, *TEXT_COLUMNS]
    paths = [next((directory / COLUMNS_NAME).glob(f"{name}.*")) for name in columns]
    return [*paths, directory / VECTORS / ROWS_NAME, directory / VECTORS / LABELS_NAME]


def everything_of(index: SqliteIndex) -> list[object]:
    """Answers of every kind, by which two indexes can be told apart."""
    ask = {"limit": 100, "uid": 7, "gids": [7]}
    return [
        index.similar("web memory", **ask),
        index.matching("web", **ask),
        index.fused("memory port", **ask),
        index.changes(**ask, where=EventFilter(since_ns=time_of(3), until_ns=time_of(40))),
        *(index.values(kind, **ask) for kind in FilterKind),
    ]


def varied(count: int) -> list[IndexedEvent]:
    """Events that differ in everything that a column says."""
    texts = sentences(count)
    return [
        replace(
            event(number, texts[number], uid=number % 3 * 7, mode=(0o644, 0o600)[number % 5 == 0]),
            id=ElementId(("lxc", "net")[number % 2], f"e{number % 4}"),
            op=("create", "update", "delete")[number % 3],
            actor=("alice", "bob")[number % 2],
            time=format_time(time_of(number)),
        )
        for number in range(count)
    ]


def time_of(number: int) -> int:
    return 1_700_000_000_000_000_000 + number * 10**9


def crashed(index: SqliteIndex, directory: Path, place: Path) -> Path:
    """A copy of the index's files as a crash leaves them: never closed."""
    shutil.copytree(directory, place)
    index.close()
    return place


def whole_again(place: Path, events: list[IndexedEvent]) -> SqliteIndex:
    """The index at `place`, with what it lacks of the events put in again."""
    index = SqliteIndex(place, WordHashEmbedder())
    fill(index, events[index.indexed_count :])
    return index


@settings(max_examples=40, deadline=None)
@given(
    number=st.integers(0, len(EVENT_COLUMNS) + len(TEXT_COLUMNS) + 1),
    share=st.floats(0, 1),
    is_closed=st.booleans(),
    is_zeros=st.booleans(),
)
def test_any_torn_end_of_any_file_is_made_again(tmp_path_factory, number, share, is_closed, is_zeros):
    directory = tmp_path_factory.mktemp("torn")
    events = varied(40)
    index = SqliteIndex(directory / "a", WordHashEmbedder())
    fill(index, events)
    expected = everything_of(index)
    if is_closed:
        index.close()
    place = crashed(index, directory / "a", directory / "b")
    path = files_of(place)[number]
    size = path.stat().st_size
    kept = int(share * size)
    with path.open("r+b") as file:
        file.truncate(kept)
        if is_zeros and not is_closed and kept >= HEADER_BYTES:
            # A power cut may leave the size and not the content.
            file.truncate(size)
    recovered = whole_again(place, events)
    assert (recovered.indexed_count, recovered.embedded_count) == (40, 40)
    assert everything_of(recovered) == expected
    recovered.close()
    shutil.rmtree(directory)


def test_only_what_did_not_reach_the_disk_is_embedded_again(open_index, tmp_path: Path):
    index = open_index()
    fill(index, events_of(["one", "two", "two", "three", "one"]))
    place = crashed(index, tmp_path / "index", tmp_path / "crashed")
    with (place / VECTORS / ROWS_NAME).open("r+b") as file:
        file.seek(HEADER_BYTES + 2 * ROW_BYTES)
        file.write(bytes(ROW_BYTES))
    embedder = WordHashEmbedder()
    recovered = SqliteIndex(place, embedder)
    assert (recovered.indexed_count, recovered.embedded_count) == (5, 3)
    assert recovered.embed(10) == 1
    assert embedder.embedded_count == 1
    assert search(recovered, "three", limit=1) == [3]
    recovered.close()


def test_what_a_crash_leaves_behind_is_overwritten(open_index, tmp_path: Path):
    index = open_index()
    fill(index, varied(20)[:10])
    index.close()
    for path in files_of(tmp_path / "index"):
        with path.open("ab") as file:
            file.write(b"\x7f" * 5000)
    index = open_index()
    assert (index.indexed_count, index.embedded_count) == (10, 10)
    fill(index, varied(20)[10:])
    twin = SqliteIndex(tmp_path / "twin", WordHashEmbedder())
    fill(twin, varied(20))
    assert everything_of(index) == everything_of(twin)
    twin.close()


def test_made_at_once_or_event_by_event_it_is_the_same(open_index, tmp_path: Path):
    index = open_index()
    for one in varied(30):
        index.append([one])
        index.embed(1)
    fill(index, [])
    index.close()
    twin = SqliteIndex(tmp_path / "twin", WordHashEmbedder())
    fill(twin, varied(30))
    twin.close()
    for one, other in zip(files_of(tmp_path / "index"), files_of(tmp_path / "twin"), strict=True):
        assert one.read_bytes() == other.read_bytes()
    tables = ("texts", "access", "plugins", "elements", "ops", "actors", "events", "words_data")
    for table in tables[:-1]:
        assert rows_of(tmp_path / "index", table) == rows_of(tmp_path / "twin", table)


def rows_of(directory: Path, table: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(directory / DATABASE_NAME)) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()


# --- begun anew ----------------------------------------------------------------------------------------------


def test_texts_that_stay_the_same_are_not_embedded_again(open_index):
    embedder = WordHashEmbedder()
    index = open_index(embedder)
    fill(index, events_of(sentences(50)))
    before = index.similar("web", limit=60, uid=0, gids=[])
    made = embedder.embedded_count
    identity = index.identity
    index.clear()
    fill(index, events_of([*sentences(50), "something else"]))
    assert embedder.embedded_count == made + 1
    assert [hit for hit in index.similar("web", limit=60, uid=0, gids=[]) if hit.event.seq < 50] == before
    assert index.identity != identity


def test_nothing_of_what_is_gone_is_left_in_any_file(open_index, tmp_path: Path):
    embedder = WordHashEmbedder()
    index = open_index(embedder)
    fill(index, events_of(["web started", "password zebra written", "bridge"]))
    (vector,) = embedder.embed(["password zebra written"])
    index.clear()
    fill(index, events_of(["web started", "erased", "bridge"]))
    assert index.settle() is False
    index.close()
    for path in (tmp_path / "index").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert b"zebra" not in content, path
        assert vector.tobytes() not in content, path


def test_other_sentences_make_another_index_and_no_damage(tmp_path: Path, caplog):
    embedder = WordHashEmbedder()
    index = SqliteIndex(tmp_path, embedder, words_version=1)
    fill(index, events_of(["web started", "bridge"]))
    index.close()
    assert list(IndexAudit(tmp_path, words_version=2).check(events_of(["web was started", "bridge"]), 2)) == []
    index = SqliteIndex(tmp_path, embedder, words_version=2)
    assert index.indexed_count == 0
    fill(index, events_of(["web was started", "bridge"]))
    assert embedder.embedded_count == 3
    index.close()
    assert list(IndexAudit(tmp_path, words_version=2).check(events_of(["web was started", "bridge"]), 2)) == []
    assert not caplog.records


def test_a_database_of_version_1_gives_its_vectors(tmp_path: Path):
    """As the program before this one left it: the tables frozen here, and one file of vectors."""
    embedder = WordHashEmbedder()
    texts = ["web started", "bridge deleted"]
    vectors = embedder.embed(texts)
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as connection, connection:
        connection.executescript(
            """
            CREATE TABLE meta (id INTEGER PRIMARY KEY, model_id TEXT NOT NULL, synced_rows INTEGER NOT NULL) STRICT;
            CREATE TABLE texts (row INTEGER PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE, crc32 INTEGER NOT NULL,
                                text TEXT NOT NULL) STRICT;
            PRAGMA user_version = 1;
            """
        )
        connection.execute("INSERT INTO meta VALUES (0, ?, 2)", [embedder.model_id])
        connection.executemany(
            "INSERT INTO texts VALUES (?, ?, ?, ?)",
            [
                (row, hashlib.sha256(text.encode()).digest(), zlib.crc32(vectors[row].tobytes()), text)
                for row, text in enumerate(texts)
            ],
        )
    (tmp_path / VECTORS_1_NAME).write_bytes(vector_header_1(embedder.model_id, 384) + vectors.tobytes())
    index = SqliteIndex(tmp_path, embedder)
    assert index.indexed_count == 0
    fill(index, events_of([*texts, "new"]))
    assert embedder.embedded_count == 2 + 1
    assert search(index, "bridge deleted", limit=1) == [1]
    index.settle()
    index.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [COLUMNS_NAME, DATABASE_NAME, VECTORS]


# --- another model -------------------------------------------------------------------------------------------

OLD, NEW = WordHashEmbedder(model_id="old"), WordHashEmbedder(model_id="new", dimensions=32)


def with_old(model_id: str) -> WordHashEmbedder | None:
    return OLD if model_id == "old" else None


def test_the_old_model_answers_until_the_new_one_has_everything(tmp_path: Path):
    index = SqliteIndex(tmp_path, OLD)
    fill(index, events_of(sentences(20)))
    expected = index.similar("web", limit=20, uid=0, gids=[])
    index.close()
    index = SqliteIndex(tmp_path, NEW, other_embedder=with_old)
    identity = index.identity
    assert "until then old answers" in (index.notice or "")
    for count in (5, 5, 5):
        assert index.embed(count) == count
        assert index.similar("web", limit=20, uid=0, gids=[]) == expected
    index.close()
    index = SqliteIndex(tmp_path, NEW, other_embedder=with_old)
    index.append(events_of(["one more"], first=20))
    assert index.embedded_count == 20
    assert index.embed(100) == 1, "what searches use comes first"
    assert index.embedded_count == 21
    while index.embed(3):
        pass
    assert (index.embedded_count, index.notice) == (21, None)
    assert index.identity != identity
    new = [hit.score for hit in index.similar("web", limit=20, uid=0, gids=[])]
    assert new != [hit.score for hit in expected]
    assert [path.name for path in tmp_path.glob("vectors-*")] == [directory_of(Path(), "new").name]
    index.close()
    assert counts_of(tmp_path, NEW) == (21, 21)


def counts_of(directory: Path, embedder: Embedder) -> tuple[int, int]:
    with closing(SqliteIndex(directory, embedder)) as index:
        return index.indexed_count, index.embedded_count


def test_without_the_old_model_words_answer_until_the_new_one_has_everything(tmp_path: Path):
    index = SqliteIndex(tmp_path, OLD)
    fill(index, events_of(["web memory", "bridge", "web"]))
    index.close()
    index = SqliteIndex(tmp_path, NEW)
    assert "one by words, because the model before, old, is gone" in (index.notice or "")
    assert index.embedded_count == 3, "nobody waits for what may take an hour"
    assert search(index, "memory of the web") == [0, 2]
    assert [hit.event.seq for hit in index.fused("bridge", limit=5, uid=0, gids=[])] == [1]
    while index.embed(2):
        pass
    assert index.notice is None
    assert sorted(search(index, "memory of the web")) == [0, 1, 2]
    index.close()


def test_back_to_the_old_model(tmp_path: Path):
    index = SqliteIndex(tmp_path, OLD)
    fill(index, events_of(["web", "bridge"]))
    index.close()
    index = SqliteIndex(tmp_path, NEW, other_embedder=with_old)
    index.embed(1)
    index.close()
    index = SqliteIndex(tmp_path, OLD)
    assert (index.notice, index.embedded_count, index.embed(10)) == (None, 2, 0)
    index.close()
    assert [path.name for path in tmp_path.glob("vectors-*")] == [directory_of(Path(), "old").name]


def test_a_new_model_for_an_index_without_events(tmp_path: Path):
    SqliteIndex(tmp_path, OLD).close()
    index = SqliteIndex(tmp_path, NEW)
    assert index.notice is None
    fill(index, events_of(["web"]))
    assert search(index, "web") == [0]
    index.close()


# --- damage --------------------------------------------------------------------------------------------------


APPEND_FOREVER = """
import sys
from pathlib import Path
from opfs.index.store import SqliteIndex
from opfs.testing.embedder import WordHashEmbedder
from tests.indexing import events_of, fill

index = SqliteIndex(Path(sys.argv[1]), WordHashEmbedder())
while True:
    count = index.indexed_count
    fill(index, events_of([f"event {count + number}" for number in range(5)], first=count))
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
    fill(index, events_of(["one more"], first=index.indexed_count))
    index.close()


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, None], ids=["empty", "garbage", "gone"])
def test_a_damaged_database_is_begun_anew(open_index, tmp_path: Path, content: bytes | None):
    index = open_index()
    fill(index, events_of(sentences(10)))
    index.close()
    harm(tmp_path / "index" / DATABASE_NAME, content)
    index = open_index()
    assert index.indexed_count == 0
    fill(index, events_of(["web"]))
    assert search(index, "web") == [0]
    assert open_index().indexed_count == 1


@pytest.mark.parametrize("number", range(len(EVENT_COLUMNS) + len(TEXT_COLUMNS) + 2))
def test_a_damaged_file_of_records_is_made_again(open_index, tmp_path: Path, number: int):
    index = open_index()
    fill(index, varied(10))
    expected = everything_of(index)
    for content in (b"", b"garbage" * 1000, None):
        index.close()
        harm(files_of(tmp_path / "index")[number], content)
        index = open_index()
        assert index.indexed_count == 10
        fill(index, [])
        assert everything_of(index) == expected


def harm(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 4096))
def test_a_damaged_database_never_stops_an_open(tmp_path_factory: pytest.TempPathFactory, seed: int, length: int):
    directory = tmp_path_factory.mktemp("damaged")
    index = SqliteIndex(directory, WordHashEmbedder(dimensions=8))
    fill(index, events_of(sentences(50)))
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
    fill(index, events_of(["web"]))
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
    columns = [line for line in SCHEMA.splitlines() if line.startswith("  ") and line.split()[0].islower()]
    assert len(columns) > 30
    assert [line for line in columns if "--" not in line and "content_rowid" not in line] == []
