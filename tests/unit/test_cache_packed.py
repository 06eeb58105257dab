"""The packed file of the cache against a plain model; torn, garbled and removed at every point."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from opfs.cache.packed import SEGMENTS, PackedFile
from opfs.cache.segment import ENTRY_BYTES, HEADER_BYTES

SIZE = 64 << 10


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def payload(number: int, length: int = 100) -> bytes:
    return (hashlib.sha256(f"content {number}".encode()).digest() * (length // 32 + 1))[:length]


def found(file: PackedFile, number: int) -> bytes | None:
    record = file.get(key(number))
    return None if record is None else bytes(record.payload)


def test_what_was_put_is_there_also_after_reopening(tmp_path):
    file = PackedFile(tmp_path / "layer", SIZE)
    assert found(file, 1) is None
    assert file.put(key(1), payload(1), cost_us=4000)
    assert file.put(key(2), b"")
    assert file.put(key(1), payload(7), cost_us=5000)
    for again in (file, PackedFile(tmp_path / "layer", SIZE)):
        assert found(again, 1) == payload(7)
        assert found(again, 2) == b""
        assert len(again) == 2
        assert again.counts.saved_us == 5000
    assert (file.counts.hits, file.counts.misses, file.counts.puts) == (2, 1, 3)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "layer").iterdir()}
    assert (modes, (tmp_path / "layer").stat().st_mode & 0o777) == ({0o600}, 0o700)


def test_it_stays_within_its_size_and_what_is_asked_for_stays(tmp_path):
    file = PackedFile(tmp_path, SIZE)
    for number in range(2000):
        assert file.put(key(number), payload(number))
        assert found(file, 0) == payload(0), number
        assert file.disk_bytes <= SIZE
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) == file.disk_bytes
    assert found(file, 1) is None
    assert found(file, 1999) == payload(1999)
    assert file.counts.evictions == 2000 - len(file)
    assert len(file) > SIZE // (HEADER_BYTES + 100 + ENTRY_BYTES) * (SEGMENTS - 2) // SEGMENTS


def test_when_everything_is_used_the_oldest_go_first(tmp_path):
    file = PackedFile(tmp_path, SIZE)
    for number in range(1000):
        file.put(key(number), payload(number))
        found(file, number)
    assert file.disk_bytes <= SIZE
    assert found(file, 999) == payload(999)


def test_what_does_not_fit_is_refused_and_nothing_else_lost(tmp_path):
    file = PackedFile(tmp_path, SIZE)
    file.put(key(1), payload(1))
    assert not file.put(key(2), bytes(SIZE))
    assert not file.put(key(2), bytes(SIZE // SEGMENTS))
    assert file.put(key(3), bytes(SIZE // SEGMENTS - 200))
    assert found(file, 1) == payload(1)
    assert file.counts.refused == 2
    nothing = PackedFile(tmp_path / "off", 0)
    assert not nothing.put(key(1), b"x")
    assert found(nothing, 1) is None
    assert not (tmp_path / "off").exists()


def test_a_smaller_size_holds_at_once(tmp_path):
    file = PackedFile(tmp_path, SIZE)
    for number in range(300):
        file.put(key(number), payload(number))
    file = PackedFile(tmp_path, SIZE // 4)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == file.disk_bytes <= SIZE // 4
    assert found(file, 299) == payload(299)


def filled(directory: Path, count: int = 5) -> list[Path]:
    file = PackedFile(directory, SIZE)
    for number in range(count):
        file.put(key(number), payload(number))
    return sorted(directory.iterdir())


@pytest.mark.parametrize("suffix", [".pack", ".index"])
def test_torn_at_every_byte(tmp_path, suffix):
    """Each prefix of either file, as a crash may leave it: what is found is right, and the file goes on."""
    whole = tmp_path / "whole"
    filled(whole)
    (torn,) = whole.glob(f"*{suffix}")
    for length in range(torn.stat().st_size + 1):
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy)
        os.truncate(copy / torn.name, length)
        file = PackedFile(copy, SIZE)
        seen = [found(file, number) for number in range(5)]
        intact = sum(content is not None for content in seen)
        assert seen == [payload(number) for number in range(intact)] + [None] * (5 - intact)
        assert file.put(key(9), payload(9))
        again = PackedFile(copy, SIZE)
        assert [found(again, number) for number in (*range(intact), 9)] == [
            payload(number) for number in (*range(intact), 9)
        ]
        shutil.rmtree(copy)


@pytest.mark.parametrize("suffix", [".pack", ".index"])
def test_a_garbled_byte_is_a_miss_and_never_a_wrong_answer(tmp_path, suffix):
    whole = tmp_path / "whole"
    filled(whole)
    (garbled,) = whole.glob(f"*{suffix}")
    content = garbled.read_bytes()
    for position in range(0, len(content), 3):
        garbled.write_bytes(content[:position] + bytes([content[position] ^ 0x40]) + content[position + 1 :])
        file = PackedFile(whole, SIZE)
        seen = [found(file, number) for number in range(5)]
        assert all(content in (payload(number), None) for number, content in enumerate(seen))
        assert None in seen
        shutil.rmtree(whole)
        filled(whole)


def test_garbled_under_way_is_found_by_check_and_forgotten(tmp_path):
    filled(tmp_path)
    file = PackedFile(tmp_path, SIZE)
    (pack,) = tmp_path.glob("*.pack")
    with pack.open("r+b") as stream:
        stream.seek(2 * (HEADER_BYTES + 100) + HEADER_BYTES + 7)
        stream.write(b"\xff\xfe")
    assert file.check() == (4, 1)
    assert found(file, 2) is None
    assert file.check() == (4, 0)
    os.truncate(pack, 10)
    assert found(file, 3) is None
    assert file.counts.damaged == 1


def test_removed_under_it(tmp_path):
    """Everything goes on, and nothing is written to files that have no name any more."""
    directory = tmp_path / "layer"
    filled(directory)
    file = PackedFile(directory, SIZE)
    shutil.rmtree(directory)
    assert found(file, 1) in (payload(1), None)
    assert file.put(key(8), payload(8))
    assert found(file, 8) == payload(8)
    assert found(PackedFile(directory, SIZE), 8) == payload(8)
    assert not file.look_again()
    shutil.rmtree(directory)
    assert file.look_again()
    assert len(file) == 0


def test_a_disk_that_refuses_is_no_error(tmp_path, monkeypatch):
    file = PackedFile(tmp_path / "no" / "such", SIZE)
    monkeypatch.setattr(os, "pwrite", lambda *_: 3)  # a full btrfs takes a part
    assert not file.put(key(1), payload(1))
    monkeypatch.undo()
    assert file.put(key(1), payload(1))
    assert found(file, 1) == payload(1)
    (tmp_path / "blocked").write_text("a file where a directory should be")
    blocked = PackedFile(tmp_path / "blocked", SIZE)
    assert not blocked.put(key(1), payload(1))
    assert found(blocked, 1) is None


def test_strange_files_are_left_alone_and_links_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"precious")
    directory = tmp_path / "layer"
    directory.mkdir()
    (directory / "00000001.pack").symlink_to(secret)
    (directory / "00000001.index").symlink_to(secret)
    (directory / "notes").write_text("what is this")
    (directory / "00000002.index").write_text("another format")
    file = PackedFile(directory, SIZE)
    assert len(file) == 0
    assert [path.name for path in directory.iterdir()] == ["notes"]
    assert file.put(key(1), payload(1))
    file.clear()
    assert [path.name for path in directory.iterdir()] == ["notes"]
    assert secret.read_bytes() == b"precious"


def test_what_was_worked_out_before_a_clear_is_not_put_after_it(tmp_path):
    file = PackedFile(tmp_path, SIZE)
    file.put(key(1), payload(1))
    epoch = file.epoch
    file.clear()
    assert list(tmp_path.iterdir()) == []
    assert not file.put(key(1), payload(1), epoch=epoch)
    assert file.put(key(1), payload(1), epoch=file.epoch)
    file.is_paused = True
    assert not file.put(key(2), payload(2))
    file.close()
    assert found(file, 1) is None


def test_many_threads(tmp_path):
    """Readers and writers at once, over many evictions and clears: every answer is the right one."""
    file = PackedFile(tmp_path, SIZE)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for step in range(1500):
            number = (seed * 7919 + step * 31) % 700
            content = found(file, number)
            if content not in (None, payload(number)):
                wrong.append(number)
            if content is None:
                file.put(key(number), payload(number))
            if step % 500 == 499 and seed == 0:
                file.clear()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert file.disk_bytes <= SIZE
    assert file.check() == (len(file), 0)
    assert len(PackedFile(tmp_path, SIZE)) == len(file)


class Model(RuleBasedStateMachine):
    """A dict that may forget, but never invents: what is found is the last thing that was put under its key."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="opfs-cache-"))
        self.size = 8 << 10
        self.file = PackedFile(self.directory, self.size)
        self.put_last: dict[int, bytes] = {}
        self.newest: int | None = None

    @rule(number=st.integers(0, 30), length=st.integers(0, 600))
    def put(self, number: int, length: int) -> None:
        content = payload(len(self.put_last) * 1000 + number, length)
        if self.file.put(key(number), content):
            self.put_last[number] = content
            self.newest = number
        else:
            assert HEADER_BYTES + ENTRY_BYTES + length > self.size // SEGMENTS - 32

    @rule(number=st.integers(0, 30))
    def get(self, number: int) -> None:
        assert found(self.file, number) in (None, self.put_last.get(number))

    @precondition(lambda self: self.newest is not None)
    @rule()
    def the_newest_is_there(self) -> None:
        assert self.newest is not None
        assert found(self.file, self.newest) == self.put_last[self.newest]

    @rule()
    def reopen(self) -> None:
        before = {number: found(self.file, number) for number in self.put_last}
        self.file = PackedFile(self.directory, self.size)
        assert {number: found(self.file, number) for number in self.put_last} == before

    @rule(suffix=st.sampled_from([".pack", ".index"]), cut=st.integers(1, 400))
    def crash(self, suffix: str, cut: int) -> None:
        """The end of the newest file never reached the disk."""
        paths = sorted(self.directory.glob(f"*{suffix}"))
        if paths:
            os.truncate(paths[-1], max(0, paths[-1].stat().st_size - cut))
        self.file = PackedFile(self.directory, self.size)
        self.newest = None
        # an older version of the same key may be in an older segment only if no newer one was ever there
        # A key gets other values here, and a crash may bring an older one back.
        self.put_last = {}

    @rule()
    def clear(self) -> None:
        self.file.clear()
        self.put_last.clear()
        self.newest = None

    @invariant()
    def is_within_its_size(self) -> None:
        if hasattr(self, "file"):
            assert self.file.disk_bytes <= self.size
            on_disk = sum(path.stat().st_size for path in self.directory.iterdir())
            assert on_disk == self.file.disk_bytes

    def teardown(self) -> None:
        shutil.rmtree(self.directory)


Model.TestCase.settings = settings(max_examples=25, stateful_step_count=30)
test_model = Model.TestCase
