"""Blocks at intervals, as a user of the mount sees them; kill -9 between the answer and the block."""

import json
import os
import subprocess
import threading

import pytest
from serving import serve

pytestmark = pytest.mark.needs("root", "btrfs", "fuse")

WRITERS = 6


@pytest.fixture
def weekly(btrfs_dir, work_dir):
    with serve(btrfs_dir, work_dir, settings={"OPFS_SNAPSHOT_INTERVAL": "weekly"}) as opfs:
        yield opfs


def xattr(path, name):
    return os.getxattr(path, f"user.opfs.{name}").decode()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_pending_is_seen_at_once_and_is_in_one_block_later(weekly):
    stream, pending = weekly.mount / "events", weekly.mount / "events@pending"
    weekly.put("noop/a", n=1)
    weekly.put("noop/a", n=2)
    weekly.put("noop/b", n=1)
    weekly.path("noop/b").unlink()
    weekly.sh("mv state/noop/a.json state/noop/c.json")
    assert weekly.get("noop/c") == {"n": 2}
    assert xattr(weekly.path("noop/c"), "status") == "pending"
    assert xattr(weekly.path("noop/c"), "block").startswith("pending-")
    assert len(weekly.blocks()) == 1
    assert stream.read_text() == ""
    told = lines(pending)
    assert [event["op"] for event in told] == ["create", "update", "create", "delete", "create", "delete"]
    assert {event["block"] for event in told} == {None}
    assert "events: 6, elements: 3, since " in (weekly.mount / "status").read_text()
    assert "events@pending" in os.listdir(weekly.mount)
    assert "pending" in weekly.opfs("events", "--pending").stdout

    made = weekly.opfs("commit").stdout.strip()
    assert weekly.blocks() == [weekly.blocks()[0], made]
    committed = lines(stream)
    assert [{**event, "block": None} for event in committed] == told
    assert pending.read_text() == ""
    assert xattr(weekly.path("noop/c"), "status") == "committed"
    assert "nothing; blocks: weekly" in (weekly.mount / "status").read_text()
    assert os.listdir(weekly.mount / "history/noop/a") == []
    versions = lines(weekly.mount / "history/noop/a/.versions")
    assert [(version["op"], version["kept"]) for version in versions] == [
        ("create", False),
        ("update", False),
        ("delete", True),
    ]
    assert "replaced before the block was made" in weekly.opfs("history", "noop/a").stdout
    weekly.opfs("verify")


def test_a_base_that_is_pending_is_told_from_a_later_one(weekly):
    weekly.put("noop/a", n=1)
    base = os.getxattr(weekly.path("noop/a"), "user.opfs.block")
    os.setxattr(weekly.path("noop/a"), "user.opfs.base", base)
    weekly.put("noop/a", n=2)
    os.setxattr(weekly.path("noop/a"), "user.opfs.base", base)
    with pytest.raises(OSError, match="Stale"):
        weekly.put("noop/a", n=3)
    weekly.opfs("commit")
    assert xattr(weekly.path("noop/a"), "block") == "00000001"


def test_what_needs_a_block_makes_it(weekly):
    weekly.put("noop/a", n=1)
    weekly.opfs("label", "first")
    assert json.loads((weekly.mount / "at/first/state/noop/a.json").read_text()) == {"n": 1}
    weekly.put("noop/a", n=2)
    proof = weekly.opfs("prove", "noop/a", "--with-document").stdout
    assert '"n": 2' in proof or "n" in proof
    weekly.put("noop/a", n=3)
    weekly.put("noop/a", n=4)
    count = len(weekly.blocks())
    weekly.opfs("rollback", "--yes", "first")
    assert weekly.get("noop/a") == {"n": 1}
    assert len(weekly.blocks()) == count + 2  # what was pending, and the rollback
    assert lines(weekly.mount / "events@pending") == []


def test_a_stop_makes_the_block(weekly):
    weekly.put("noop/a", n=1)
    weekly.opfs("umount")
    assert (weekly.pool / "@log/journal").stat().st_size == 0
    weekly.opfs("mount")
    assert (len(weekly.blocks()), weekly.get("noop/a")) == (2, {"n": 1})


class Writer(threading.Thread):
    """Writes, deletes and renames elements of its own until the mount is gone; knows what was acknowledged."""

    def __init__(self, opfs, number, progress):
        super().__init__()
        self.opfs, self.number, self.progress = opfs, number, progress
        self.possible = [{}]
        """What may be there: what was acknowledged last, and what is under way."""

    def run(self):
        for count in range(100_000):
            name = f"file/w{self.number}-{count % 3}"
            there = dict(self.possible[0])
            try:
                if count % 5 == 4 and name in there:
                    del there[name]
                    self.possible.append(there)
                    self.opfs.path(name).unlink()
                else:
                    there[name] = f"version {count}"
                    self.possible.append(there)
                    target = str(self.opfs.lxc / name.replace("/", "-"))
                    self.opfs.path(name).write_text(json.dumps({"path": target, "content": there[name]}))
            except OSError:
                return
            self.possible = [there]
            self.progress.release()


def test_kill_between_the_answer_and_the_block(weekly):
    for round_number in range(3):
        progress = threading.Semaphore(0)
        writers = [Writer(weekly, f"{round_number}{number}", progress) for number in range(WRITERS)]
        blocks = len(weekly.blocks())
        for writer in writers:
            writer.start()
        for _ in range(60 + 17 * round_number):
            assert progress.acquire(timeout=120)
        if round_number == 1:
            weekly.opfs("commit")
        assert len(weekly.blocks()) == blocks + (round_number == 1)
        weekly.kill()
        for writer in writers:
            writer.join(30)
            assert not writer.is_alive()
        weekly.opfs("mount")
        for writer in writers:
            there = {
                f"file/{path.stem}": json.loads(path.read_text())["content"]
                for path in (weekly.mount / "state/file").glob(f"w{writer.number}-*.json")
            }
            assert there in writer.possible
            for name, content in there.items():
                assert (weekly.lxc / name.replace("/", "-")).read_text() == content
        assert lines(weekly.mount / "events@pending") == []
        assert weekly.findings() == []
    assert subprocess.run(["tail", "-n", "1", weekly.mount / "events"], capture_output=True, check=True).stdout
    weekly.opfs("verify")
