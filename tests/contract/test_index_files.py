"""What the index does with its files: opened again, of another version, of other sentences, another model's."""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from indexfiles import ROW_BYTES, VECTORS, crashed, everything_of, varied
from indexing import events_of, fill, search, sentences
from test_index_damage import files_of

from opfs.errors import IntegrityError, PoolError
from opfs.index.audit import IndexAudit
from opfs.index.generation import directory_of
from opfs.index.layout import COLUMNS_NAME, HEADER_BYTES, ROWS_NAME, VECTORS_1_NAME, vector_header_1
from opfs.index.schema import SCHEMA, VERSION
from opfs.index.store import DATABASE_NAME, SqliteIndex
from opfs.testing.embedder import WordHashEmbedder

if TYPE_CHECKING:
    from opfs.ports import Embedder


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


def test_every_column_says_what_it_is_for():
    columns = [line for line in SCHEMA.splitlines() if line.startswith("  ") and line.split()[0].islower()]
    assert len(columns) > 30
    assert [line for line in columns if "--" not in line and "content_rowid" not in line] == []
