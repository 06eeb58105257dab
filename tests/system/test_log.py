"""The log of a real daemon, read through the kernel and checked by code that is not opfs'."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from pymerkle import InmemoryTree

from opfs.core.header import BlockHeader
from opfs.core.note import open_note, parse_checkpoint, parse_note
from opfs.core.notekeys import Verifier
from opfs.core.tlogproof import parse_tlog_proof

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse")


def checkpoint_of(opfs):
    keys = [Verifier.parse(line) for line in (opfs.mount / "chain/log/log.vkey").read_text().splitlines()]
    return parse_checkpoint(open_note((opfs.mount / "chain/log/checkpoint").read_bytes(), keys).text)


def bundled_headers(log: Path, size: int) -> list[bytes]:
    """The entries as any client of tlog-tiles reads them; written from the specification, with nothing of opfs."""
    entries: list[bytes] = []
    for index in range(-(-size // 256)):
        width = min(256, size - 256 * index)
        path = log / "tile" / "entries" / (f"{index:03d}" if width == 256 else f"{index:03d}.p/{width}")
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:2], "big")
            entries.append(data[2 : 2 + length])
            data = data[2 + length :]
    return entries


def independent_root(entries: list[bytes]) -> bytes:
    tree = InmemoryTree(algorithm="sha256")
    for entry in entries:
        tree.append_entry(entry)
    return tree.get_root()


def test_every_block_is_in_the_log_as_another_implementation_computes_it(opfs):
    for number in range(5):
        opfs.put(f"noop/log-{number}", value=number)
    checkpoint = checkpoint_of(opfs)
    blocks = opfs.blocks()
    entries = bundled_headers(opfs.mount / "chain/log", checkpoint.size)
    assert checkpoint.size == len(entries) == len(blocks)
    assert checkpoint.root == independent_root(entries)
    assert entries == [(opfs.mount / "chain" / block / "block.json").read_bytes() for block in blocks]
    assert checkpoint.origin == "test.example/opfs"


def test_each_block_carries_its_proof_and_shows_no_more_than_it_has(opfs):
    opfs.put("noop/proved", value=1)
    keys = [Verifier.parse(line) for line in (opfs.mount / "chain/log/log.vkey").read_text().splitlines()]
    for block in opfs.blocks():
        directory = opfs.mount / "chain" / block
        proof = parse_tlog_proof((directory / "block.tlog-proof").read_bytes())
        header = (directory / "block.json").read_bytes()
        proof.check(header, "test.example/opfs", keys)
        assert proof.index == BlockHeader.decode(header).height
        assert sorted(os.listdir(directory)) == ["block.json", "block.tlog-proof", "events.jsonl", "state"]


def test_the_signature_has_the_time_of_the_block(opfs):
    opfs.put("noop/timed", value=1)
    keys = [Verifier.parse(line) for line in (opfs.mount / "chain/log/log.vkey").read_text().splitlines()]
    opened = open_note((opfs.mount / "chain/log/checkpoint").read_bytes(), keys)
    time = json.loads((opfs.mount / "chain/HEAD/block.json").read_text())["time"]
    (time_s,) = [signature.time_s for signature in opened.verified if signature.time_s is not None]
    assert subprocess.run(["date", "-u", "-d", time, "+%s"], capture_output=True, text=True).stdout == f"{time_s}\n"


def test_nobody_writes_into_the_log_and_everybody_reads_it(opfs, tmp_path):
    log = opfs.mount / "chain/log"
    for path in (log / "checkpoint", log / "new", log / "tile/0/000"):
        with pytest.raises(OSError, match="Read-only file system"):
            path.write_bytes(b"x")
    assert subprocess.run(["cp", "-r", log, tmp_path / "copy"], capture_output=True).returncode == 0
    assert {path.stat().st_mode & 0o777 for path in log.rglob("*")} == {0o444, 0o555}


def test_the_keys_are_in_no_block_and_open_to_nobody(opfs):
    keys = opfs.pool / "keys"
    assert keys.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in keys.iterdir()} == {0o600}
    secrets = [line.rsplit("+", 1)[1] for line in (keys / "log.key").read_text().splitlines()]
    for directory in ("@chain", "@state", "@log", "@index", "@drafts"):
        found = subprocess.run(["grep", "-rlF", secrets[0], opfs.pool / directory], capture_output=True, text=True)
        assert found.stdout == ""
    assert not list(opfs.pool.glob("@*/**/log.key"))


def test_kill_9_between_blocks_loses_nothing_of_the_log(fresh):
    for number in range(4):
        fresh.put(f"noop/k{number}", value=number)
    assert checkpoint_of(fresh).size == 5
    fresh.kill()
    os.unlink(fresh.pool / "@log/checkpoint")
    fresh.opfs("mount")
    assert checkpoint_of(fresh).size == 5
    fresh.put("noop/after", value=1)
    entries = bundled_headers(fresh.mount / "chain/log", 6)
    assert checkpoint_of(fresh).root == independent_root(entries)


def test_the_files_follow_without_anybody_looking(fresh):
    for number in range(3):
        fresh.put(f"noop/f{number}", value=number)
    deadline = time.monotonic() + 120
    while not (fresh.pool / "@log/tile/entries/000.p/4").exists():
        assert time.monotonic() < deadline
    assert bundled_headers(fresh.pool / "@log", 4)[3] == (fresh.mount / "chain/HEAD/block.json").read_bytes()


def test_a_changed_file_of_the_log_is_not_handed_out(fresh):
    fresh.put("noop/a", value=1)
    assert checkpoint_of(fresh).size == 2  # and so it is in the files
    (fresh.pool / "@log/tile/0/000.p/2").write_bytes(bytes(64))
    (fresh.pool / "@log/checkpoint").write_bytes(b"test.example/opfs\n0\n")
    for path in ("tile/0/000.p/2", "checkpoint"):
        with pytest.raises(OSError, match=os.strerror(errno.EUCLEAN)):
            (fresh.mount / "chain/log" / path).read_bytes()
    proof = parse_tlog_proof((fresh.mount / "chain/HEAD/block.tlog-proof").read_bytes())
    assert parse_checkpoint(parse_note(proof.checkpoint).text).size == 2  # the daemon knows better


def test_rotated_keys_are_an_event_that_the_old_keys_signed(fresh):
    fresh.put("noop/a", value=1)
    vkeys = fresh.mount / "chain/log/log.vkey"
    before = vkeys.read_text().splitlines()
    old_checkpoint = (fresh.mount / "chain/log/checkpoint").read_bytes()
    fresh.opfs("key", "rotate", "--yes")
    (event,) = fresh.events()
    assert (event["plugin"], event["element"], event["op"], event["content"]) == ("opfs", "keys", "rotate", None)
    after = vkeys.read_text().splitlines()
    assert after[2:] == before
    names = [vkey.split("+")[1] for vkey in after[:2]]
    assert [key_id in step["summary"] for key_id, step in zip(names, event["plan"], strict=True)] == [True, True]
    assert open_note(old_checkpoint, [Verifier.parse(line) for line in after])
    assert open_note((fresh.mount / "chain/log/checkpoint").read_bytes(), [Verifier.parse(after[0])])
    fresh.opfs("umount")
    fresh.opfs("key", "rotate", "--yes")
    fresh.opfs("mount")
    assert vkeys.read_text().splitlines()[2:] == after
    assert [event["op"] for event in fresh.events()] == ["rotate"]
    assert fresh.opfs("key", "show").stdout == vkeys.read_text()
    fresh.put("noop/b", value=1)
    assert checkpoint_of(fresh).size == len(fresh.blocks()) == 5


def test_keys_of_a_backup_are_imported(fresh, tmp_path):
    backup = tmp_path / "log.key"
    shutil.copy(fresh.pool / "keys/log.key", backup)
    first = fresh.opfs("key", "show").stdout
    fresh.opfs("key", "rotate", "--yes")
    rotated = fresh.opfs("key", "show").stdout
    fresh.opfs("key", "import", backup)
    assert fresh.opfs("key", "show").stdout == first + "".join(rotated.splitlines(keepends=True)[:2])
    assert [event["op"] for event in fresh.events()] == ["rotate"]
    backup.write_text(backup.read_text().replace("test.example", "other.example"))
    assert fresh.opfs("key", "import", backup, check=False).returncode == 2
    fresh.opfs("umount")
    assert fresh.opfs("key", "show").stdout.startswith(first)
    (fresh.pool / "keys/log.key").unlink()
    lost = fresh.opfs("mount", check=False)
    assert lost.returncode == 6
    assert "the keys of the log test.example/opfs are missing" in lost.stderr
    fresh.opfs("key", "rotate", "--yes")
    fresh.opfs("mount")
    assert checkpoint_of(fresh).size == len(fresh.blocks())


def test_anybody_reads_the_log_and_only_root_rotates(fresh):
    above = fresh.mount.parent
    above.chmod(0o711)
    try:
        nobody = {"user": 65534, "capture_output": True, "text": True}
        read = subprocess.run(["cat", fresh.mount / "chain/log/checkpoint"], **nobody)
        refused = subprocess.run(["bash", "-c", f"echo rotate-keys > {fresh.mount}/ctl"], **nobody)
    finally:
        above.chmod(0o700)
    assert read.stdout.startswith("test.example/opfs\n")
    assert "Permission denied" in refused.stderr
    assert (fresh.mount / "errors").read_text().count("only root may rotate keys") == 1
    assert len((fresh.mount / "chain/log/log.vkey").read_text().splitlines()) == 2


def test_a_chain_restored_from_a_backup_is_read_but_not_written_until_told(fresh):
    fresh.put("noop/a", value=1)
    fresh.put("noop/b", value=1)
    fresh.opfs("umount")
    lost = max(path.name for path in (fresh.pool / "@chain").iterdir())
    subprocess.run(["btrfs", "subvolume", "delete", fresh.pool / "@chain" / lost], check=True, capture_output=True)
    fresh.opfs("mount")
    assert fresh.get("noop/a") == {"value": 1}
    status = (fresh.mount / "status").read_text()
    assert "the log refuses to sign: it signed 3 blocks before, the chain has 2" in status
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        fresh.put("noop/c", value=1)
    running = fresh.opfs("key", "accept-size", "--yes", check=False)
    assert running.returncode == 6
    fresh.opfs("umount")
    fresh.opfs("key", "accept-size", "--yes")
    fresh.opfs("mount")
    fresh.put("noop/c", value=1)
    assert checkpoint_of(fresh).size == len(fresh.blocks()) == 3
