"""fsck --repair makes everything derived again, and never touches what is not."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest
from features import FEATURES
from tampering import changed, flip, renamed

pytestmark = pytest.mark.needs("root", "btrfs", "fuse")


@pytest.fixture
def resting(fresh):
    """A pool with a history, whose daemon is down; it is up again for the end of the test."""
    for number in range(6):
        fresh.put(f"noop/e{number}", n=number)
    fresh.put("noop/e1", n="again")
    if FEATURES["model"]() is None:
        (fresh.mount / "search" / "similar" / "all").read_bytes()  # waits for the index
    fresh.opfs("umount")
    yield fresh
    fresh.opfs("mount")


def tiles(pool):
    return {path.relative_to(pool): path.read_bytes() for path in (pool / "@log" / "tile").rglob("*") if path.is_file()}


def blocks(pool):
    return {
        path.relative_to(pool): (path.read_bytes() if path.is_file() else None, path.lstat().st_ctime_ns)
        for path in (pool / "@chain").rglob("*")
    }


def test_there_is_nothing_to_repair(resting):
    assert "everything agrees" in resting.opfs("fsck").stdout
    assert "everything agrees" in resting.opfs("fsck", "--repair").stdout


def test_a_pool_in_use_is_left_alone(fresh):
    done = fresh.opfs("fsck", check=False)
    assert done.returncode == 6
    assert "in use" in done.stderr


def test_all_that_is_derived_is_made_again(resting):
    """The tiles have the same bytes as before, and the blocks were not touched."""
    pool = resting.pool
    tiles_before, blocks_before = tiles(pool), blocks(pool)
    for path in (pool / "@log" / "tile").rglob("*"):
        if path.is_file():
            path.write_bytes(flip(path.read_bytes()))
    (pool / "@log" / "checkpoint").write_bytes(b"nothing\n")
    (pool / "@log" / "tips").write_bytes(b"nothing\n")
    (pool / "@log" / "log.vkey").unlink()
    (pool / "@state" / "state" / "noop" / "e2.json").write_bytes(b'{"n": 666}')
    (pool / "@state" / "state" / "noop" / "planted.json").write_bytes(b"{}")
    (pool / "@state" / "state" / "noop" / "e3.json").unlink()
    if FEATURES["model"]() is None:
        with closing(sqlite3.connect(pool / "@index" / "events.db")) as connection:
            connection.execute("UPDATE actors SET name = 'mallory' WHERE id = (SELECT min(id) FROM actors)")
            connection.commit()
    done = resting.opfs("fsck", check=False)
    assert done.returncode == 5
    assert "opfs fsck --repair" in done.stderr
    assert (pool / "@log" / "tips").read_bytes() == b"nothing\n"
    done = resting.opfs("fsck", "--repair", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("everything agrees")
    assert tiles(pool) == tiles_before
    assert blocks(pool) == blocks_before


def test_nothing_is_made_of_blocks_that_are_damaged(resting):
    block = resting.pool / "@chain" / sorted(os.listdir(resting.pool / "@chain"))[3]
    with changed(block / "state/noop/e1.json", flip, block), changed(resting.pool / "@log" / "checkpoint", flip):
        done = resting.opfs("fsck", "--repair", check=False)
        assert done.returncode == 5
        assert "nothing was repaired" in done.stderr
    assert "everything agrees" in resting.opfs("fsck").stdout


def test_no_log_is_made_of_a_chain_that_lost_its_end(resting):
    """The log has promised that block: signing without it would break the promise."""
    newest = resting.pool / "@chain" / max(os.listdir(resting.pool / "@chain"))
    checkpoint = (resting.pool / "@log" / "checkpoint").read_bytes()
    with renamed(newest, newest.with_name("aside")):
        done = resting.opfs("fsck", "--repair", check=False)
        assert done.returncode == 5
        assert "nothing was repaired" in done.stderr
        assert (resting.pool / "@log" / "checkpoint").read_bytes() == checkpoint
        with renamed(resting.pool / "@log" / "checkpoint", resting.pool / "@log" / "aside"):
            assert resting.opfs("fsck", "--repair", check=False).returncode == 5
            assert not (resting.pool / "@log" / "checkpoint").exists()
