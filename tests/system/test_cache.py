"""The cache of a running daemon: what it says, its snapshots, and that it may go at any moment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving import Serving

pytestmark = pytest.mark.needs("root", "btrfs", "fuse")

KEEP_ONE = {"OPFS_RETAIN_NEWEST": "1", "OPFS_RETAIN_HOURLY": "1"}


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stats(opfs: Serving) -> dict[str, Any]:
    return json.loads(opfs.opfs("cache", "stats", "--json").stdout)


def snapshots(opfs: Serving) -> list[str]:
    return sorted(os.listdir(opfs.pool / "@cache-snapshots"))


@pytest.fixture
def pruned(fresh) -> Serving:
    """Blocks 1 to 4 of noop/x, only the last with a snapshot; each document has a frame of the archive to itself."""
    for number in range(4):
        fresh.put("noop/x", size=number, note=f"version {number} {os.urandom(140_000).hex()}")
    fresh.settings |= KEEP_ONE | {"OPDBUS_MAX_CACHE_SNAPSHOTS": "0"}
    fresh.opfs("umount")
    fresh.opfs("mount")
    fresh.opfs("prune")
    fresh.opfs("umount")
    fresh.opfs("mount")
    return fresh


def old_version(opfs: Serving, number: int) -> dict[str, object]:
    """The document of a pruned block."""
    name = next(name for name in opfs.blocks() if int(name[:8]) == number + 1)
    return json.loads((opfs.mount / "chain" / name / "state/noop/x.json").read_bytes())


def test_it_helps_is_counted_and_may_be_removed_at_any_moment(pruned):
    opfs = pruned
    assert old_version(opfs, 2)["size"] == 2
    assert stats(opfs)["layers"]["blocks"]["puts"] >= 1
    opfs.opfs("umount")
    opfs.opfs("mount")
    assert old_version(opfs, 2)["size"] == 2
    assert stats(opfs)["layers"]["blocks"]["hits"] >= 1
    assert "hits of" in (opfs.mount / "status").read_text()
    assert 'opfs_cache_hits_total{layer="blocks"}' in (opfs.mount / "metrics").read_text()
    assert "blocks" in opfs.opfs("cache", "stats").stdout
    assert "0 were damaged" in opfs.opfs("cache", "verify").stdout
    for directory in (opfs.pool / "@cache", opfs.pool / "@cache/blocks"):
        assert directory.stat().st_mode & 0o077 == 0
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c"]
    refused = subprocess.run([*nobody, f"echo cache stats >{opfs.mount}/ctl"], capture_output=True, text=True)
    assert "Permission denied" in refused.stderr

    subprocess.run(f"rm -rf {opfs.pool}/@cache/*", shell=True, check=True)
    for number in range(3):
        assert old_version(opfs, number)["size"] == number
    opfs.put("noop/x", size=100)
    for path in (opfs.pool / "@cache/blocks").iterdir():
        path.write_bytes(os.urandom(path.stat().st_size))  # under the daemon
    for number in range(3):
        assert old_version(opfs, number)["size"] == number
    shutil.rmtree(opfs.pool / "@cache/blocks", ignore_errors=True)
    (opfs.pool / "@cache/blocks").write_text("in the way")
    assert old_version(opfs, 1)["size"] == 1
    opfs.opfs("cache", "clear")
    assert stats(opfs)["layers"]["blocks"]["entries"] == 0
    opfs.opfs("umount")
    opfs.opfs("mount")
    assert old_version(opfs, 1)["size"] == 1
    assert (opfs.mount / "errors").read_text() == ""


def test_snapshots_are_taken_kept_in_number_and_gone_after_an_erasure(pruned):
    opfs = pruned
    opfs.settings |= {"OPDBUS_MAX_CACHE_SNAPSHOTS": "2"}
    snapshot = ["btrfs", "subvolume", "snapshot", "-r", opfs.pool / "@cache"]
    assert snapshots(opfs) == []
    for day in ("01", "02", "03"):  # as if of earlier days
        earlier = opfs.pool / f"@cache-snapshots/2026-01-{day}T00:00:00Z"
        subprocess.run([*snapshot, earlier], check=True, capture_output=True)
    old_version(opfs, 1)
    opfs.opfs("umount")
    opfs.opfs("mount")
    until(lambda: len(snapshots(opfs)) == 2)
    assert snapshots(opfs)[0] == "2026-01-03T00:00:00Z"
    newest = opfs.pool / "@cache-snapshots" / snapshots(opfs)[1]
    assert b"version 1" in b"".join(path.read_bytes() for path in (newest / "blocks").glob("*.pack"))
    with pytest.raises(OSError, match="Read-only"):
        (newest / "new").touch()
    assert stats(opfs)["snapshots"] == snapshots(opfs)
    opfs.opfs("erase", "--yes", "noop/x@2")
    assert snapshots(opfs) == []
    packs = b"".join(path.read_bytes() for path in (opfs.pool / "@cache").rglob("*.pack"))
    assert b"version 1" not in packs
    opfs.opfs("umount")
    told = stats(opfs)  # of the pool at rest
    assert told["snapshots"] == []
    opfs.opfs("cache", "verify")
    opfs.opfs("cache", "clear")
    opfs.opfs("mount")


def test_elsewhere_and_off(fresh, tmp_path):
    place = tmp_path / "cache"
    before = fresh.pool / "@cache/queries/00000001.pack"
    before.parent.mkdir(exist_ok=True)
    before.write_bytes(b"what was kept here")
    fresh.settings |= {"OPDBUS_CACHE_DIR": str(place), "OPFS_CACHE_LAYERS": "diffs", **KEEP_ONE}
    fresh.opfs("umount")
    fresh.opfs("mount")
    fresh.put("noop/x", size=1)
    fresh.put("noop/x", size=2)
    fresh.opfs("search", "noop")
    fresh.opfs("index", "rebuild")
    fresh.opfs("search", "noop")
    told = stats(fresh)
    assert told["directory"] == str(place)
    assert told["layers"]["diffs"]["hits"] > 0
    assert told["layers"]["blocks"]["max_bytes"] == 0
    assert sorted(os.listdir(place)) == ["diffs"]
    assert not before.exists()
    assert (place / "diffs").stat().st_mode & 0o077 == 0
    assert told["snapshots"] == []


@pytest.mark.needs("model")
def test_a_search_is_answered_again_without_working_and_never_stale(fresh):
    fresh.put("noop/x", size=1, note="the web server")
    first = fresh.opfs("search", "web", "server").stdout
    before = stats(fresh)["layers"]
    assert before["embeddings"]["entries"] >= 1
    # what is worked out in less than half a millisecond is not kept, so that only then it is found
    assert fresh.opfs("search", "web", "server").stdout == first
    after = stats(fresh)["layers"]
    asked_again = sum(after[layer]["hits"] - before[layer]["hits"] for layer in ("embeddings", "queries"))
    assert asked_again >= 1
    fresh.put("noop/y", size=1, note="another web server")
    assert "noop/y" in fresh.opfs("search", "web", "server").stdout
    fresh.opfs("rm", "--yes", "noop/y")
    last = fresh.opfs("search", "web", "server").stdout
    assert "delete" in last
    fresh.kill()
    fresh.opfs("mount")
    assert fresh.opfs("search", "web", "server").stdout == last
