"""The layers of the cache: vectors, answers of searches, descriptions; each right or not there."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from opfs.archive.pack import ArchivedBlock
from opfs.archive.packs import Archive
from opfs.cache.cache import Cache, signature_of
from opfs.cache.descriptions import remember_description
from opfs.cache.layer import Layer
from opfs.cache.packed import PackedFile
from opfs.cache.queries import CachedSearches
from opfs.cache.snapshots import CacheSnapshots
from opfs.core.canonical import hash_bytes
from opfs.core.event import Event
from opfs.core.filters import EventFilter
from opfs.core.names import BlockName, ElementId
from opfs.core.timestamp import NS_PER_S
from opfs.ports import FileAttributes, Hit, IndexedEvent, StoredDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 1 << 20


def event(seq: int, plugin: str = "lxc") -> IndexedEvent:
    return IndexedEvent(
        seq, seq, ElementId(plugin, "web"), "update", "2026-11-03T14:00:00.000000000Z", "alice", "memory 1 → 2",
        f"text {seq}", 0, 0, 0o600, f"{seq:064x}",
    )  # fmt: skip


def chain_event(seq: int, plugin: str) -> Event:
    return Event(
        id=ElementId(plugin, "web"), op="update", seq=seq, time="2026-11-03T14:00:00.000000000Z", actor={},
        content=None, prev_event=None,
    )  # fmt: skip


@pytest.fixture
def new_cache() -> Iterator[Callable[..., Cache]]:
    """Caches that are closed at the end."""
    with ExitStack() as opened:

        def make(directory: Path, **options: Any) -> Cache:
            return opened.enter_context(closing(Cache(directory, MIB, **options)))

        yield make


def reopened(cache: Cache) -> Iterator[Cache]:
    """The cache as it is, and what is there when it is opened anew."""
    yield cache
    cache.close()
    with closing(Cache(cache.directory, MIB)) as again:
        yield again


# --- vectors


def test_vectors_by_model_and_text(tmp_path):
    cache = Cache(tmp_path / "cache", MIB)
    vector = np.linspace(-1, 1, 384, dtype=np.float32)
    assert cache.embeddings.get("m", "web server") is None
    cache.embeddings.put("m", "web server", vector, cost_us=4000)
    for again in reopened(cache):
        found = again.embeddings.get("m", "web server")
        assert found is not None
        assert found.dtype == np.float32
        assert (found == vector).all()
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 1
        # neither another model nor another way to cut model and text apart
        for model, text in (("m2", "web server"), ("mw", "eb server"), ("m", "web server "), ("m", "\udcff")):
            assert again.embeddings.get(model, text) is None


# --- any layer


def test_what_is_cleared_while_it_is_computed_is_not_kept(tmp_path):
    file = PackedFile(tmp_path, MIB)
    layer = Layer(file)

    def compute() -> bytes:
        file.clear()  # an erasure, meanwhile
        return b"secret"

    assert layer.remember(bytes(32), compute) == b"secret"
    assert len(file) == 0
    assert layer.remember(bytes(32), lambda: b"new") == b"new"
    assert layer.remember(bytes(32), lambda: b"newer") == b"new"
    assert layer.remember(bytes(32), lambda: b"newest", accept=lambda found: found != b"new") == b"newest"
    quick = Layer(file, min_cost_us=10**9)
    assert quick.remember(bytes([1]) * 32, lambda: b"quick") == b"quick"
    assert file.get(bytes([1]) * 32) is None


def test_the_whole_gives_way_to_a_full_disk_and_starts_again(new_cache, tmp_path):
    cache = new_cache(tmp_path)
    cache.blocks.remember(bytes(32), lambda: b"x")
    cache.tend(lambda: False)
    assert cache.disk_bytes == 0
    cache.blocks.remember(bytes(32), lambda: b"x")
    assert cache.disk_bytes == 0
    cache.tend(lambda: True)
    cache.blocks.remember(bytes(32), lambda: b"x")
    assert cache.disk_bytes > 0
    assert cache.check()["blocks"] == (1, 0)
    cache.clear()
    assert cache.stats()["blocks"]["entries"] == 0


def test_a_layer_that_is_switched_off_leaves_nothing(tmp_path):
    with closing(Cache(tmp_path, MIB)) as cache:
        cache.blocks.remember(bytes(32), lambda: b"x")
    assert (tmp_path / "blocks").exists()
    with closing(Cache(tmp_path, MIB, layers=("embeddings",))) as cache:
        check_that_it_is_gone(tmp_path, cache)
    with closing(Cache(tmp_path, MIB)) as cache:
        cache.blocks.remember(bytes(32), lambda: b"x")
    with closing(Cache(tmp_path, 0)):
        assert list((tmp_path / "blocks").iterdir()) == []


def check_that_it_is_gone(tmp_path: Path, cache: Cache) -> None:
    assert list((tmp_path / "blocks").iterdir()) == []
    assert cache.stats()["embeddings"]["max_bytes"] == MIB
    assert cache.blocks.remember(bytes(32), lambda: b"y") == b"y"


def test_a_directory_of_somebody_else_is_not_used(new_cache, tmp_path):
    tmp_path.chmod(0o777)
    assert new_cache(tmp_path).stats()["embeddings"]["max_bytes"] == 0
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    assert new_cache(link).stats()["embeddings"]["max_bytes"] == 0
    (tmp_path / "file").touch()
    assert new_cache(tmp_path / "file").stats()["embeddings"]["max_bytes"] == 0


def test_two_daemons_do_not_share_one(new_cache, tmp_path):
    first, second = new_cache(tmp_path), new_cache(tmp_path)
    assert first.stats()["embeddings"]["max_bytes"] > 0
    assert second.stats()["embeddings"]["max_bytes"] == 0
    first.blocks.remember(bytes(32), lambda: b"x")
    second.clear()
    assert first.check()["blocks"] == (1, 0)
    assert len(list((tmp_path / "blocks").iterdir())) == 2
    first.close()
    assert new_cache(tmp_path).stats()["embeddings"]["max_bytes"] > 0


# --- descriptions


def test_descriptions(tmp_path):
    layer = Layer(PackedFile(tmp_path, MIB))
    first, other = event(1), event(2)
    assert remember_description(layer, "v1", "aa", lambda: first) == first
    assert remember_description(layer, "v1", "aa", lambda: other) == first
    assert remember_description(layer, "v2", "aa", lambda: other) == other


# --- answers


@dataclass
class CountingIndex:
    """Everything it is asked is answered with all events that pass, and counted."""

    events: list[IndexedEvent] = field(default_factory=list)
    asked: int = 0
    lag: int = 0
    identity: str = "first"

    @property
    def indexed_count(self) -> int:
        return len(self.events) - self.lag

    embedded_count = indexed_count

    def similar(self, text="", *, limit, uid, gids, where) -> list[Hit]:
        self.asked += 1
        known = self.events[: self.indexed_count][: where.before_seq]
        found = [each for each in known if not where.plugins or each.id.plugin in where.plugins]
        return [Hit(1 / (each.seq + 3), each) for each in found if uid in (0, each.uid)][:limit]

    matching = fused = changes = similar


@pytest.fixture
def searches(tmp_path):
    index = CountingIndex([event(0), event(1, "net")])
    layer = Layer(PackedFile(tmp_path, MIB))
    return CachedSearches(index, layer, "v1", 2, "start"), index


def commit(searches, index, plugin: str) -> None:
    seq = len(index.events)
    searches.follow([chain_event(seq, plugin)])
    index.events.append(event(seq, plugin))


def ask(searches, index, verb="similar", where=EventFilter(), *, uid=0, gids=(), limit=20, text="web"):  # noqa: B008
    """The answer, which has to be what the index itself says, and whether the index was asked."""
    before = index.asked
    words = {} if verb == "changes" else {"text" if verb != "matching" else "words": text}
    found = getattr(searches, verb)(**words, limit=limit, uid=uid, gids=gids, where=where)
    was_asked = index.asked > before
    assert list(found) == index.similar(limit=limit, uid=uid, gids=gids, where=where)
    return was_asked


@pytest.mark.parametrize("verb", ["similar", "matching", "fused", "changes"])
def test_the_same_question_is_answered_once_and_another_never_with_it(searches, verb):
    searches, index = searches
    assert ask(searches, index, verb)
    assert not ask(searches, index, verb)
    for different in (
        {"uid": 1000},
        {"gids": (4,)},
        {"limit": 1},
        {"where": EventFilter(plugins=frozenset({"net"}))},
        {"where": EventFilter(since_ns=5)},
        {"where": EventFilter(until_ns=5)},
        {"where": EventFilter(ops=frozenset({"update"}))},
    ):
        assert ask(searches, index, verb, **different), different
        assert not ask(searches, index, verb, **different), different
    if verb != "changes":
        assert ask(searches, index, verb, text="other")
    commit(searches, index, "net")
    assert ask(searches, index, verb)
    assert not ask(searches, index, verb)


def test_what_happens_elsewhere_leaves_answers_of_a_plugin_alone(searches):
    searches, index = searches
    for verb, outlives in (("similar", True), ("changes", True), ("matching", False), ("fused", False)):
        where = EventFilter(plugins=frozenset({"lxc"}))
        ask(searches, index, verb, where)
        commit(searches, index, "net")
        assert ask(searches, index, verb, where) is not outlives, verb
        commit(searches, index, "lxc")
        assert ask(searches, index, verb, where), verb


def test_what_was_known_at_a_moment_stays(searches):
    searches, index = searches
    where = EventFilter(before_seq=1)
    assert ask(searches, index, "similar", where)
    commit(searches, index, "lxc")
    assert not ask(searches, index, "similar", where)
    ahead = EventFilter(before_seq=99)
    assert ask(searches, index, "similar", ahead)
    commit(searches, index, "lxc")
    assert ask(searches, index, "similar", ahead)


def test_an_index_that_is_behind_is_asked_itself(searches):
    searches, index = searches
    index.lag = 1
    assert ask(searches, index)
    assert ask(searches, index)
    index.lag = 0
    assert ask(searches, index)
    assert not ask(searches, index)


def test_an_index_that_was_begun_anew_is_another(searches):
    searches, index = searches
    assert ask(searches, index)
    index.identity = "second"
    assert ask(searches, index)
    assert not ask(searches, index)


def test_an_answer_of_another_program_is_none(tmp_path):
    index = CountingIndex([event(0)])
    file = PackedFile(tmp_path, MIB)
    searches = CachedSearches(index, Layer(file), "v1", 1, "start")
    ask(searches, index)
    (key,) = [key for segment in file._segments for key in segment.places]
    for strange in (b"[]x", b'[{"score": 1}]', b'[{"score": 1, "event": {"id": 3}}]', b"\xff", b"{}"):
        file.put(key, strange)
        assert ask(searches, index), strange


# --- snapshots


class CopyingSubvolumes:
    """Snapshots as directories that are copied."""

    def create_snapshot(self, source_fd: int, parent_fd: int, name: str) -> None:
        if name in os.listdir(parent_fd):
            raise FileExistsError(17, "exists")
        shutil.copytree(os.readlink(f"/proc/self/fd/{source_fd}"), f"/proc/self/fd/{parent_fd}/{name}")

    def delete_subvolume(self, parent_fd: int, name: str) -> None:
        shutil.rmtree(f"/proc/self/fd/{parent_fd}/{name}")


def test_snapshots_only_of_what_changed_and_not_too_many(new_cache, tmp_path):
    place, directory = tmp_path / "cache", tmp_path / "snapshots"
    place.mkdir()
    directory.mkdir()
    (directory / "strange").mkdir()
    snapshots = CacheSnapshots(place, directory, 3, CopyingSubvolumes())
    hour = 3600 * NS_PER_S
    assert snapshots.take(0) is None  # there is nothing
    assert snapshots.age_ns(hour) == hour
    cache = new_cache(place)
    for number in range(5):
        cache.blocks.remember(bytes([number]) * 32, lambda: b"x")
        assert snapshots.take(number * hour) == f"1970-01-01T0{number}:00:00Z"
        assert snapshots.take(number * hour + 1) is None
        assert signature_of(directory / snapshots.names()[-1]) == signature_of(place)
    assert [name[12] for name in snapshots.names()] == ["2", "3", "4"]
    assert snapshots.age_ns(5 * hour) == hour
    none = CacheSnapshots(place, directory, 0, CopyingSubvolumes())
    assert none.take(9 * hour) is None
    none.trim()
    assert [path.name for path in directory.iterdir()] == ["strange"]
    snapshots.take(9 * hour)
    snapshots.clear()
    assert snapshots.names() == []


# --- documents of pruned blocks


def test_a_kept_document_is_compared_with_the_archive_and_a_wrong_one_is_read_there(tmp_path):
    name, content = BlockName(1, "0123456789ab"), b'{"size": 1}'
    document = StoredDocument(ElementId("lxc", "web"), content, FileAttributes(0o600, 0, 0, 0))
    Archive(tmp_path / "archive").add([ArchivedBlock(name, b"{}", b"", (document,))])
    file = PackedFile(tmp_path / "cache", MIB)

    def read() -> bytes:
        archive = Archive(tmp_path / "archive")  # nothing of it is in memory
        archive.kept = Layer(file)
        return archive.read_version(name, document.id).content

    assert read() == read() == content
    assert (file.counts.puts, file.counts.hits) == (1, 1)
    file.put(hash_bytes(content), b"forged")
    assert read() == content
    assert read() == content
    assert file.counts.puts == 3
