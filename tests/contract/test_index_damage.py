"""What the index does when its files are torn, damaged, gone, or unusable: all of it can be made again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexfiles import VECTORS, crashed, everything_of, varied, whole_again
from indexing import events_of, fill, search, sentences

from opfs.errors import IntegrityError, PoolError
from opfs.index.columns import EVENT_COLUMNS, TEXT_COLUMNS
from opfs.index.layout import COLUMNS_NAME, HEADER_BYTES, LABELS_NAME, ROWS_NAME
from opfs.index.store import DAMAGED_SUFFIX, DATABASE_NAME, SqliteIndex
from opfs.testing.embedder import WordHashEmbedder


def files_of(directory: Path) -> list[Path]:
    """The files of records of an index: every column, the vectors and their labels."""
    columns = [*EVENT_COLUMNS, *TEXT_COLUMNS]
    paths = [next((directory / COLUMNS_NAME).glob(f"{name}.*")) for name in columns]
    return [*paths, directory / VECTORS / ROWS_NAME, directory / VECTORS / LABELS_NAME]


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
