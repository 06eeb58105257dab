"""Erasure through the mount: the bytes are nowhere in the pool's image, and everything else can be read and proved."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from serving import Serving, serve

from opfs.archive.packs import Archive
from opfs.btrfs.image import attach, create_image, detach
from opfs.btrfs.mounts import mount_at
from opfs.core.names import BlockName, ElementId
from opfs.ports import Erasure

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse")

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def random_text(size: int) -> str:
    """Random digits, found nowhere else."""
    return os.urandom(size).hex()


def read_error(path: Path) -> str:
    return subprocess.run(["cat", path], capture_output=True, text=True).stderr


@pytest.fixture
def opfs(fresh) -> Serving:
    """An element `noop/x` with the versions 1, 2 and 3, beside others."""
    fresh.put("noop/x", size=1, note="the first")
    fresh.put("noop/x", size=2, note="to be erased")
    fresh.put("noop/other", size=7)
    fresh.put("noop/x", size=3, note="the last")
    return fresh


def test_what_was_erased_is_gone_and_all_else_holds(opfs, tmp_path):
    second, third = opfs.blocks()[2:4]
    before = {name: (opfs.mount / "chain" / name / "state/noop/x.json").read_bytes() for name in opfs.blocks()[1:]}
    seen = opfs.mount / "chain" / third / "state/noop/x.json"
    opfs.opfs("search", "to be erased")
    out = opfs.opfs("erase", "--yes", "noop/x@2", "-m", "held a password")
    assert out.stdout == "noop/x of block 2 is erased\n"
    head = opfs.blocks()[-1]
    (event,) = opfs.events()
    assert (event["op"], event["element"], event["message"]) == ("erase", "erase", "held a password")
    assert "noop/x@2" in event["plan"][0]["summary"]
    for path in (seen, opfs.mount / "chain" / second / "state/noop/x.json", opfs.mount / "history/noop/x/2.json"):
        assert "No data available" in read_error(path), path
        assert f"erased in block {head} by root" in (opfs.mount / "errors").read_text()
    for name, content in before.items():
        if name not in (second, third):
            assert (opfs.mount / "chain" / name / "state/noop/x.json").read_bytes() == content
    assert json.loads((opfs.mount / "chain" / third / "state/noop/other.json").read_text()) == {"size": 7}
    told = [json.loads(line) for line in (opfs.mount / "history/noop/x/.versions").read_text().splitlines()]
    assert [version["erased"] for version in told] == [None, head, None]
    assert f"erased in block {head}" in opfs.opfs("history", "noop/x").stdout
    assert opfs.opfs("verify").stdout.endswith("everything agrees\n")
    key = ["--key", str(opfs.mount / "chain/log/log.vkey")]
    for number, words in enumerate(
        (
            ["noop/x", "--at", "2"],
            ["noop/other", "--at", "3", "--with-document"],
            ["--event", str(event["seq"])],
            ["--event", "1"],
        )
    ):
        proof = tmp_path / f"{number}.opfs-proof"
        opfs.opfs("prove", *words, "-o", str(proof))
        opfs.opfs("verify-proof", str(proof), *key)
    refused = opfs.opfs("prove", "noop/x", "--at", "2", "--with-document", check=False)
    assert refused.returncode == 4
    assert "was erased" in refused.stderr
    assert not any("to be erased" in line for line in opfs.opfs("search", "erased note").stdout.splitlines())
    opfs.put("noop/x", size=4)
    assert opfs.opfs("verify").stdout.endswith("everything agrees\n")


def test_a_refusal_that_quoted_it_quotes_it_no_more(fresh):
    def errors():
        return (fresh.mount / "errors").read_text()

    fresh.put("noop/x", note="to be erased")
    fresh.sh("echo '{]' > state/noop/x.json", check=False)
    deadline = time.monotonic() + 120
    while "still looking" in errors():
        assert time.monotonic() < deadline
    assert "accepted noop/x in block 1" in errors()
    assert "to be erased" in errors()
    fresh.put("noop/x", note="the last")
    fresh.opfs("erase", "--yes", "noop/x@1")
    assert "to be erased" not in errors()
    assert "noop/x" in errors()


def test_it_refuses(opfs):
    for words, reason in (
        (["noop/x@4"], "current document of noop/x"),
        (["noop/x@3"], "block 3 made no version of noop/x"),
        (["noop/none@1"], "made no version"),
        (["noop/x"], "is no version"),
    ):
        refused = opfs.opfs("erase", "--yes", *words, check=False)
        assert refused.returncode in (2, 3), refused
        assert reason in refused.stderr
    unasked = opfs.opfs("erase", "noop/x@3", check=False)
    assert (unasked.stdout, "made no version" in unasked.stderr) == ("", True), "nobody is asked about nothing"
    opfs.path("noop/twin").write_bytes((opfs.mount / "history/noop/x/2.json").read_bytes())
    refused = opfs.opfs("erase", "--yes", "noop/x@2", check=False)
    assert "current document of noop/twin" in refused.stderr
    echo = [*NOBODY, "bash", "-c", f"echo erase noop/x@2 >{opfs.mount}/ctl"]
    assert "Permission denied" in subprocess.run(echo, capture_output=True, text=True).stderr
    assert not any(event["op"] == "erase" for block in opfs.blocks() for event in opfs.events(block))
    assert opfs.opfs("verify").stdout.endswith("everything agrees\n")


def test_it_stays_erased_after_kill_without_derived_files_and_without_a_daemon(opfs):
    opfs.opfs("erase", "--yes", "noop/x@2")
    opfs.kill()
    for name in ("history.db", "history.db-wal", "history.db-shm"):
        (opfs.pool / "@index" / name).unlink(missing_ok=True)
    assert "erased in block 00000005" in opfs.opfs("history", "noop/x").stdout
    opfs.opfs("mount")
    assert "No data available" in read_error(opfs.mount / "history/noop/x/2.json")
    again = opfs.opfs("erase", "--yes", "noop/x@2", check=False)
    assert "already" in again.stderr
    assert opfs.opfs("verify").stdout.endswith("everything agrees\n")


def test_a_crash_in_between_is_gone_on_with(opfs):
    """As if the daemon had died before the old pack went: both are there, and the mark."""
    opfs.settings |= {"OPFS_RETAIN_NEWEST": "1", "OPFS_RETAIN_HOURLY": "1"}
    opfs.opfs("umount")
    opfs.opfs("mount")
    opfs.opfs("prune")
    (old,) = (opfs.pool / "@log/archive").iterdir()
    content = old.read_bytes()
    opfs.opfs("erase", "--yes", "noop/x@2")
    assert not old.exists()
    opfs.kill()
    old.write_bytes(content)
    mark = opfs.pool / "@log/erasing"
    mark.touch()
    opfs.opfs("mount")
    deadline = time.monotonic() + 120
    while mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not old.exists()
    assert "No data available" in read_error(opfs.mount / "history/noop/x/2.json")
    assert opfs.opfs("verify").stdout.endswith("everything agrees\n")


def test_a_pack_that_says_so_falsely_is_found(opfs):
    """Whoever destroys a document behind our back and marks it as erased has no event to show for it."""
    opfs.opfs("erase", "--yes", "noop/x@2")
    opfs.opfs("umount")
    archive = Archive(opfs.pool / "@log/archive")
    name = next(name for name in archive.names() if name.height == 3)
    content = archive.read_version(name, ElementId("noop", "other")).content_hash
    whole = {path: path.read_bytes() for path in (opfs.pool / "@log/archive").iterdir()}
    archive.erase(Erasure(content, BlockName.parse(sorted(os.listdir(opfs.pool / "@chain"))[-1])))
    shown = opfs.opfs("verify", check=False)
    assert shown.returncode == 5
    assert "does not say so" in shown.stdout
    for path in (opfs.pool / "@log/archive").iterdir():
        path.unlink()
    for path, data in whole.items():
        path.write_bytes(data)
    opfs.opfs("mount")


@pytest.fixture
def alone(work_dir) -> Iterator[tuple[Serving, Path]]:
    """A daemon on a pool in an image of its own, and the image."""
    place = Path(tempfile.mkdtemp(prefix="erase-", dir=work_dir))
    image, mount_point = place / "pool.img", place / "pool"
    mount_point.mkdir()
    create_image(image, 256 << 20)
    attach(image, mount_point)
    try:
        with serve(mount_point, work_dir) as serving:
            yield serving, image
    finally:
        if mount_at(mount_point) is not None:
            detach(mount_point, image)


def occurrences(image: Path, needle: bytes) -> int:
    """How often the whole image file has these bytes, holes and all."""
    found = subprocess.run(["grep", "-a", "-o", "-F", "-c", needle.decode(), image], capture_output=True, text=True)
    return int(found.stdout or 0)


def test_the_raw_image_has_none_of_it(alone):
    """The whole image file is searched, with the pool's compression off, or it would hide the bytes.

    Before, the same search finds them: a document small enough to lie in the metadata, twice, and a large one, the
    words of the index, and an answer of a search in the cache, with a snapshot of that.
    """
    opfs, image = alone
    mounted = opfs.pool.parent
    subprocess.run(["mount", "-o", "remount,compress=no", mounted], check=True)
    small, large = random_text(40), random_text(50_000)
    opfs.put("noop/x", note=f"small {small}")
    opfs.put("noop/y", note=f"large {large}")
    for number in range(3):
        opfs.put("noop/z", size=number)
    opfs.put("noop/x", size=1)
    opfs.put("noop/y", size=1)
    opfs.opfs("search", "something small")
    kept = b"".join(path.read_bytes() for path in (opfs.pool / "@cache/queries").glob("*.pack"))
    assert small[:30].encode() in kept  # the answer of that search
    snapshot = opfs.pool / "@cache-snapshots/2026-01-01T00:00:00Z"
    subprocess.run(["btrfs", "-q", "subvolume", "snapshot", "-r", opfs.pool / "@cache", snapshot], check=True)
    subprocess.run(["sync", "-f", mounted], check=True)
    needles = [small, *(large[start : start + 64] for start in range(0, len(large) - 64, 33_331))]
    assert all(occurrences(image, needle.encode()) for needle in needles)
    for version in ("noop/x@1", "noop/y@2"):
        assert opfs.opfs("erase", "--yes", version).stderr == ""
    assert [occurrences(image, needle.encode()) for needle in needles] == [0] * len(needles)
    assert not snapshot.exists()
    assert opfs.opfs("verify").stdout.endswith("everything agrees\n")
