"""Packs of the archive: what is written is read, and nothing else is."""

from __future__ import annotations

import os
import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.archive.compression import STORED, ZSTD, compress, decompress, entropy_bits, level_for
from opfs.archive.pack import HEAD_BYTES, ArchivedBlock, contents_length, decode_contents, encode_pack
from opfs.archive.packs import Archive
from opfs.core.names import BlockName, ElementId
from opfs.errors import IntegrityError, NoSpace, NotFound
from opfs.ports import FileAttributes, StoredDocument

WEB, DB = ElementId("lxc", "web"), ElementId("lxc", "db")


def block(height: int, **documents: bytes) -> ArchivedBlock:
    stored = tuple(
        StoredDocument(ElementId("lxc", name), content, FileAttributes(0o640, 1000, 7, 10**18 + height))
        for name, content in documents.items()
    )
    return ArchivedBlock(BlockName(height, f"{height:012x}"), b"header %d" % height, b'{"seq": %d}\n' % height, stored)


BLOCKS = [block(1, web=b"{}", db=b'{"a": 1}'), block(3, web=b'{"a": 1}'), block(2)]


def test_entropy_chooses_the_level():
    assert entropy_bits(b"") == entropy_bits(b"aaaa") == 0
    assert entropy_bits(bytes(range(256))) == 8
    assert level_for(b'{"hostname": "web"}' * 20) == 19
    assert level_for(random.Random(1).randbytes(1 << 16)) is None
    assert compress(random.Random(1).randbytes(1 << 16))[0] == STORED
    assert compress(b"{}")[0] == STORED


@given(st.binary(max_size=5000), st.integers(1, 40))
def test_what_was_compressed_comes_back(data, times):
    method, stored = compress(data * times)
    assert len(stored) <= len(data * times)
    assert decompress(method, stored, len(data * times)) == data * times


def test_a_frame_that_lies_about_its_length_is_refused():
    method, stored = compress(b"a" * 100_000)
    assert method == ZSTD
    for length in (99_999, 100_001, 0):
        with pytest.raises(IntegrityError):
            decompress(method, stored, length)
    with pytest.raises(IntegrityError):
        decompress("lz4", stored, 100_000)


def test_equal_bytes_are_stored_once():
    content = os.urandom(10_000)
    once = encode_pack([block(1, web=content)])
    often = encode_pack([block(height, web=content, db=content) for height in range(1, 50)])
    assert len(often) < len(once) + 10_000


def test_the_archive_gives_back_what_it_was_given(tmp_path):
    archive = Archive(tmp_path / "archive")
    archive.add(BLOCKS[:2])
    archive.add(BLOCKS[2:])
    archive.add([])
    for one in (archive, Archive(tmp_path / "archive")):
        assert sorted(one.names()) == sorted(b.name for b in BLOCKS)
        for b in BLOCKS:
            assert b.name in one
            assert (one.read_header(b.name), one.read_events(b.name)) == (b.header, b.events)
            assert {one.read_version(b.name, id) for id in one.versions_of(b.name)} == set(b.documents)
        with pytest.raises(NotFound, match="did not set lxc/db"):
            one.read_version(BLOCKS[1].name, DB)
        with pytest.raises(NotFound, match="is not in the archive"):
            one.read_events(BlockName(9, "0" * 12))
        assert one.damage == {}
        assert 0 < one.size_bytes < 2000
    assert (tmp_path / "archive").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "archive").iterdir()} == {0o600}


def test_a_thousand_blocks_take_little_room(tmp_path):
    chance = random.Random(1)
    archive = Archive(tmp_path)
    words = [f"{chance.getrandbits(64):016x}" for _ in range(12)]
    archive.add([block(h, web=f'{{"size": {h}, "of": "{" ".join(words)}"}}'.encode()) for h in range(1000)])
    assert archive.size_bytes / 1000 < 200


def read_all(archive: Archive) -> list[object]:
    found: list[object] = []
    for b in BLOCKS:
        found += [archive.read_header(b.name), archive.read_events(b.name)]
        found += [archive.read_version(b.name, id) for id in archive.versions_of(b.name)]
    return found


def test_any_damage_is_found(tmp_path):
    archive = Archive(tmp_path / "a")
    archive.add(BLOCKS)
    (path,) = (tmp_path / "a").iterdir()
    data, whole = path.read_bytes(), read_all(archive)
    for offset in range(len(data)):
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        damaged = Archive(tmp_path / "a")
        if damaged.damage:
            assert not damaged.names()
            continue
        # zstd has bits that change nothing: what is read is then what was written
        with suppress(IntegrityError):
            assert read_all(damaged) == whole
    path.write_bytes(data[:-1])
    with pytest.raises(IntegrityError, match="ends too early"):
        [Archive(tmp_path / "a").read_events(b.name) for b in BLOCKS]


def test_what_a_killed_writer_left_is_swept(tmp_path):
    (tmp_path / "0123.unfinished").write_bytes(b"half")
    archive = Archive(tmp_path)
    assert not archive.names()
    archive.sweep()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    archive = Archive(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace):
        archive.add(BLOCKS)
    assert not archive.names()
    assert list(tmp_path.iterdir()) == []


@given(st.data())
def test_noise_is_refused(data):
    packed = bytearray(encode_pack(BLOCKS))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    head = bytes(packed[:HEAD_BYTES])
    with suppress(IntegrityError):
        decode_contents(head, bytes(packed[HEAD_BYTES : HEAD_BYTES + contents_length(head)]))
