"""The tamper campaign: whatever root changes behind the daemon's back, verify names it and reading it fails.

A real daemon serves the pool all the time. Every change is undone, so that each test begins with a chain that is
whole, and each test uses files that nobody has read before, because the kernel rightly keeps what was true.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
from serving import serve
from tampering import changed, flip, renamed, swapped, writable
from victim import Victim

from opfs.btrfs import ioctl
from opfs.core.canonical import hash_bytes, hash_hex
from opfs.core.event import decode_events, encode_events
from opfs.core.header import BlockHeader
from opfs.core.merkle import tree_root
from opfs.core.names import ElementId
from opfs.core.note import parse_note, to_base64
from opfs.core.statetree import StateTree

pytestmark = pytest.mark.needs("root", "btrfs", "fuse")


@pytest.fixture(scope="module")
def victim(btrfs_dir, work_dir):
    with serve(btrfs_dir, work_dir) as serving:
        yield Victim(serving)


@pytest.fixture(autouse=True)
def everything_agrees_again(victim):
    yield
    assert victim.findings() == []


def test_a_document(victim):
    path = "state/noop/e0.json"
    with changed(victim.block(5) / path, flip, victim.block(5)):
        assert victim.findings() == [victim.says(5, path, "stored bytes")]
        assert victim.refuses(5, path)
        assert json.loads(victim.read(5, "state/noop/e1.json")) == {"n": 1}
        assert json.loads(victim.read(6, path)) == {"n": 0}
    assert json.loads(victim.read(5, path)) == {"n": 0}


def test_a_document_is_another_version_of_itself(victim):
    path = "state/noop/e1.json"
    later = (victim.block(20) / path).read_bytes()
    with changed(victim.block(6) / path, lambda _: later, victim.block(6)):
        assert victim.findings() == [victim.says(6, path, "stored bytes")]
        assert victim.refuses(6, path)


def test_a_document_is_emptied(victim):
    path = "state/noop/e2.json"
    with changed(victim.block(6) / path, lambda _: b"", victim.block(6)):
        assert victim.findings() == [victim.says(6, path, "stored bytes")]
        assert victim.refuses(6, path)
    assert json.loads(victim.read(7, path)) == {"n": 2}


def test_a_document_that_grew_after_it_was_looked_at(victim):
    path = "state/noop/e3.json"
    (victim.opfs.mount / "chain" / victim.blocks[6] / path).stat()
    with changed(victim.block(6) / path, lambda content: content + b" " * 9000, victim.block(6)):
        assert victim.findings() == [victim.says(6, path, "stored bytes")]
        assert victim.refuses(6, path)


def test_a_file_name(victim):
    block = victim.block(8)
    old, new = "state/noop/e0.json", "state/noop/other.json"
    with renamed(block / old, block / new, block):
        assert sorted(victim.findings()) == [victim.says(8, old, "name"), victim.says(8, new, "name")]
        assert victim.refuses(8, old)
        assert victim.refuses(8, new)


def test_a_file_that_no_block_has(victim):
    block = victim.block(9)
    for path in ("planted", "state/noop/e1.json~", "state/noop/planted.json"):
        with writable(block):
            (block / path).write_bytes(b"{}")
        try:
            assert victim.findings() == [victim.says(9, path, "name")]
            assert victim.refuses(9, path)
        finally:
            with writable(block):
                (block / path).unlink()


def test_a_document_is_a_link(victim):
    block = victim.block(10)
    path = block / "state/noop/e4.json"
    content = path.read_bytes()
    owner = path.stat()
    with writable(block):
        path.unlink()
        path.symlink_to("/etc/shadow")
    try:
        assert sorted(victim.findings()) == [victim.says(10, "state/noop/e4.json", "name")] * 2
        assert victim.refuses(10, "state/noop/e4.json")
    finally:
        with writable(block):
            path.unlink()
            path.write_bytes(content)
            path.chmod(owner.st_mode & 0o7777)


def test_an_executable_bit_is_not_what_a_block_commits_to(victim):
    """Owner, mode and time are carried along, not hashed: see docs/verification.md."""
    path = victim.block(10) / "state/noop/e5.json"
    mode = path.stat().st_mode & 0o7777
    with writable(victim.block(10)):
        path.chmod(mode | 0o111)
    try:
        assert victim.findings() == []
        assert json.loads(victim.read(10, "state/noop/e5.json")) == {"n": 5}
    finally:
        with writable(victim.block(10)):
            path.chmod(mode)


@pytest.mark.parametrize(
    "change",
    [
        lambda events: events.replace(b'"create"', b'"update"'),
        lambda events: events.replace(b'"seq":', b'"seq" :'),
        lambda events: events[:-1],
        lambda events: events + events,
        lambda events: b"",
    ],
)
def test_an_event(victim, change):
    block = victim.block(11)
    with changed(block / "events.jsonl", change, block):
        assert victim.findings() == [victim.says(11, "events.jsonl", "event")]
        assert victim.refuses(11, "events.jsonl")
        assert json.loads(victim.read(11, "state/noop/e10.json")) == {"n": 10}


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.replace(b'"time":"2', b'"time":"3'),
        lambda header: header.replace(b'"state_count":', b'"state_count":1'),
        lambda header: b"{}",
    ],
)
def test_a_header(victim, change):
    """The log has the true one, so what the block says of its documents is not lost with it."""
    block = victim.block(12)
    with changed(block / "block.json", change, block):
        assert victim.findings() == [victim.says(12, "block.json", "header")]
        assert victim.refuses(12, "block.json")
        assert json.loads(victim.read(12, "state/noop/e0.json")) == {"n": 0}


def test_a_block_rewritten_from_top_to_bottom(victim):
    """Document, event and header are made to fit each other: the name and the next block still tell."""
    block, new = victim.block(18), b'{"n": 666}'
    header = BlockHeader.decode((block / "block.json").read_bytes())
    (event,) = decode_events((block / "events.jsonl").read_bytes())
    path = f"state/{event.id.path}"
    forged = replace(event, content=hash_hex(new))
    documents = {ElementId("noop", file.stem): file.read_bytes() for file in (block / "state/noop").iterdir()}
    tree = StateTree.of((id, hash_bytes(content)) for id, content in (documents | {event.id: new}).items())
    forged_header = replace(header, state_root=tree.root.hex(), events_root=tree_root([forged.encode()]).hex())
    with (
        changed(block / path, lambda _: new, block),
        changed(block / "events.jsonl", lambda _: encode_events((forged,)), block),
        changed(block / "block.json", lambda _: forged_header.encode(), block),
    ):
        assert sorted(victim.findings()) == [
            victim.says(18, "block.json", "header"),
            victim.says(18, "events.jsonl", "event"),
            victim.says(18, path, "stored bytes"),
        ]
        for file in ("block.json", "events.jsonl", path):
            assert victim.refuses(18, file)


@pytest.mark.parametrize("kind", ["0", "entries"])
def test_a_tile_or_bundle(victim, kind):
    path = victim.tile(kind)
    name = path.relative_to(victim.log)
    for position in (40, -2):
        with changed(path, lambda data, position=position: flip(data, position)):
            assert victim.findings() == [victim.says(None, f"@log/{name}", "log")]
            assert victim.refuses_below(f"log/{name}")


@pytest.mark.parametrize("kind", ["0", "entries"])
def test_a_narrower_tile_that_is_still_there(victim, kind):
    path = victim.tile(kind).with_name("9")
    path.write_bytes(b"nothing" * 9)
    try:
        assert victim.findings() == [victim.says(None, f"@log/{path.relative_to(victim.log)}", "log")]
    finally:
        path.unlink()


@pytest.mark.parametrize("kind", ["0", "entries"])
def test_a_truncated_log(victim, kind):
    path = victim.tile(kind)
    name = path.relative_to(victim.log)
    with changed(path, lambda data: data[: len(data) // 2]):
        assert victim.findings() == [victim.says(None, f"@log/{name}", "log")]
        assert victim.refuses_below(f"log/{name}")
    with renamed(path, path.with_name("aside")):
        assert victim.findings() == [victim.says(None, f"@log/{name}", "log")]


def test_the_text_of_the_checkpoint(victim):
    size = str(len(victim.blocks)).encode()
    with changed(victim.log / "checkpoint", lambda note: note.replace(b"\n" + size + b"\n", b"\n7\n")):
        assert victim.findings() == [victim.says(None, "@log/checkpoint", "log")]
        assert victim.refuses_below("log/checkpoint")


@pytest.mark.parametrize("line", [0, 1])
def test_a_signature(victim, line):
    true = victim.read_below("log/checkpoint")
    signature = parse_note(true).signatures[line]
    encoded = to_base64(signature.key_id + signature.signature).encode()
    forged = to_base64(signature.key_id + flip(signature.signature)).encode()
    with changed(victim.log / "checkpoint", lambda note: note.replace(encoded, forged)):
        assert victim.findings() == [victim.says(None, "@log/checkpoint", "signature")]
        assert victim.refuses_below("log/checkpoint")


def test_a_missing_signature(victim):
    with changed(victim.log / "checkpoint", lambda note: note[: note.index("\n— ".encode()) + 1]):
        (finding,) = victim.findings()
        assert finding == victim.says(None, "@log/checkpoint", "log")
    with changed(victim.log / "checkpoint", lambda note: note[: note.rindex("— ".encode())]):
        assert victim.findings() == [victim.says(None, "@log/checkpoint", "signature")]


def test_an_old_checkpoint_put_back(victim):
    with changed(victim.log / "checkpoint", lambda _: victim.early_checkpoint):
        assert victim.findings() == [victim.says(None, "@log/checkpoint", "log")]
        assert victim.refuses_below("log/checkpoint")


@pytest.mark.needs("model")
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET actor_id = 99 WHERE seq = 5",
        "UPDATE events SET event_hash = zeroblob(32) WHERE seq = 5",
        "UPDATE texts SET text = 'nothing happened' WHERE row = 5",
        "UPDATE events SET access_id = (SELECT max(id) FROM access) WHERE seq = 5",
        "DELETE FROM events WHERE seq = 5",
    ],
)
def test_an_index_row(victim, change):
    database = victim.opfs.pool / "@index" / "events.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("INSERT INTO access VALUES (99, 7, 7, 0)")
        connection.execute("INSERT INTO actors VALUES (99, 'mallory')")
        before = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("events", "texts")}
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(change)
        connection.commit()
        try:
            found = set(victim.findings())
            assert victim.says(None, "@index/events.db", "index") in found
            assert {(block, disagrees) for block, _, disagrees in found} == {(None, "index")}
        finally:
            for table, rows in before.items():
                connection.execute(f"DELETE FROM {table}")
                connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
            connection.execute("DELETE FROM access WHERE id = 99")
            connection.execute("DELETE FROM actors WHERE id = 99")
            connection.commit()


def test_a_deleted_block(victim):
    with renamed(victim.block(14), victim.chain / "aside"):
        assert victim.findings() == [victim.says(15, "", "block")]
        assert victim.refuses(14, "block.json")
        assert json.loads(victim.read(15, "state/noop/e9.json")) == {"n": 9}


def test_the_newest_block_deleted(victim):
    """Nothing in the chain tells of it; the log does."""
    with renamed(victim.block(-1), victim.chain / "aside"):
        assert victim.findings() == [victim.says(None, "@log/checkpoint", "block")]


def test_reordered_blocks(victim):
    """Two blocks with each other's names: neither is what the chain or the log says."""
    with swapped(victim.block(6), victim.block(7)):
        found = victim.findings()
        assert {block for block, _, _ in found} == {victim.blocks[6], victim.blocks[7]}
        assert victim.says(6, "block.json", "header") in found
        assert victim.says(7, "block.json", "header") in found
        for height in (6, 7):
            assert victim.refuses(height, "block.json")
            assert victim.refuses(height, "events.jsonl")


@contextmanager
def replaced(block, by):
    """The block is a snapshot of another one, under its own name."""
    aside = block.with_name("aside")
    block.rename(aside)
    source, chain = os.open(by, os.O_RDONLY), os.open(block.parent, os.O_RDONLY)
    try:
        ioctl.create_snapshot(source, chain, block.name)
        yield
    finally:
        ioctl.delete_subvolume(chain, block.name)
        aside.rename(block)
        os.close(source)
        os.close(chain)


def test_a_swapped_snapshot(victim):
    with replaced(victim.block(4), by=victim.block(16)):
        found = victim.findings()
        assert {block for block, _, _ in found} == {victim.blocks[4]}
        assert victim.says(4, "block.json", "header") in found
        assert victim.refuses(4, "block.json")
        assert victim.refuses(4, "state/noop/e15.json")
        assert json.loads(victim.read(4, "state/noop/e1.json")) == {"n": 1}  # the same in both


def test_verifying_changes_nothing(btrfs_dir, work_dir, victim):
    """Every file of a pool at rest has the bytes and the times it had."""

    def state(pool):
        return {
            path: (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_mode)
            for path in pool.rglob("*")
            if (found := path.lstat()) and path.name != "lock"
        }

    with serve(btrfs_dir, work_dir) as other:
        for number in range(5):
            other.put(f"noop/e{number}", n=number)
        other.opfs("umount")
        before = state(other.pool)
        assert "everything agrees" in other.opfs("verify").stdout
        assert state(other.pool) == before
        other.opfs("mount")


def test_a_second_block_of_the_same_height(victim):
    fork = victim.chain / f"{victim.blocks[9][:8]}-0123456789ab"
    source, chain = os.open(victim.block(9), os.O_RDONLY), os.open(victim.chain, os.O_RDONLY)
    ioctl.create_snapshot(source, chain, fork.name)
    try:
        assert {(block, what) for block, _, what in victim.findings()} >= {(fork.name, "header")}
    finally:
        ioctl.delete_subvolume(chain, fork.name)
        os.close(source)
        os.close(chain)
