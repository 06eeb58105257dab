"""Pruning through the mount: snapshots go, and everything that could be read, proved and verified still can."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from contextlib import ExitStack, closing

import pytest

from opfs.btrfs.pool import Pool
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.commit.chain import Outcome, load_chain
from opfs.commit.tips import Tips
from opfs.core.actor import Actor
from opfs.core.names import BlockName, ElementId

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse")

ACTOR = Actor(uid=0, user="root").to_json()
FEW = {"OPFS_RETAIN_NEWEST": "3", "OPFS_RETAIN_HOURLY": "1", "OPFS_MAX_LIVE_BLOCKS": "0"}


@pytest.fixture
def opfs(fresh):
    """A daemon that keeps three snapshots, and the last one of this hour, when it is told to prune."""
    restart(fresh, **FEW)
    return fresh


def restart(opfs, **settings: str) -> None:
    opfs.opfs("umount")
    opfs.settings.update(settings)
    opfs.opfs("mount")


def snapshots(opfs) -> list[str]:
    return sorted(os.listdir(opfs.pool / "@chain"))


def fill(opfs, count: int) -> None:
    for number in range(count):
        opfs.put(f"noop/x{number % 3}", size=number)


def files_of(opfs, block: str) -> dict[str, bytes]:
    """Every file of a block but the proof, which is made anew with every checkpoint."""
    top = opfs.mount / "chain" / block
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in sorted(top.rglob("*"))
        if path.is_file() and path.name != "block.tlog-proof"
    }


def test_nothing_is_lost(opfs):
    fill(opfs, 12)
    opfs.put("noop/x1", size=99)
    opfs.path("noop/x0").chmod(0o600)
    opfs.put("noop/x2", size=98)
    opfs.path("noop/x2").unlink()
    before = {block: files_of(opfs, block) for block in opfs.blocks()}
    versions = sorted(os.listdir(opfs.mount / "history/noop/x1"))
    opfs.opfs("label", "seven", "7")
    out = opfs.opfs("prune", "--plan").stdout
    assert re.search("kept, labelled +1\n", out)
    assert "13 snapshots would go" in out or "12 snapshots would go" in out
    opfs.opfs("prune")
    kept = {BlockName.parse(name).height for name in snapshots(opfs)}
    assert 7 in kept
    assert len(kept) <= 6
    assert {block: files_of(opfs, block) for block in before} == before
    assert sorted(os.listdir(opfs.mount / "history/noop/x1")) == versions
    assert opfs.opfs("verify").stdout.endswith("everything agrees\n")
    (event,) = opfs.events()
    assert (event["op"], event["plugin"], event["element"]) == ("prune", "opfs", "prune")
    assert "every snapshot" in opfs.opfs("prune").stdout or len(snapshots(opfs)) <= 6


def test_the_past_is_reached_in_every_way(opfs, tmp_path):
    fill(opfs, 9)
    third = opfs.blocks()[3]
    opfs.opfs("prune")
    assert third not in snapshots(opfs)
    chain = opfs.mount / "chain"
    assert json.loads((chain / third / "state/noop/x2.json").read_text()) == {"size": 2}
    assert (opfs.mount / "at/3").resolve() == chain / third
    assert "changed" in opfs.opfs("diff", "2", "5").stdout
    proof = tmp_path / "x2.opfs-proof"
    opfs.opfs("prove", "noop/x2", "--at", "3", "--with-document", "-o", str(proof))
    opfs.opfs("verify-proof", str(proof), "--key", str(chain / "log/log.vkey"))
    shutil.copy(opfs.mount / "history/noop/x2/3.json", opfs.path("noop/x2"))
    assert opfs.get("noop/x2") == {"size": 2}
    missing = subprocess.run(["cat", chain / third / "state/noop/none.json"], capture_output=True, text=True)
    assert "No such file" in missing.stderr
    refused = subprocess.run(["sh", "-c", f"echo x >{chain}/{third}/block.json"], capture_output=True, text=True)
    assert "Read-only file system" in refused.stderr or "Permission denied" in refused.stderr


def test_owners_and_modes_hold_in_the_archive(opfs):
    opfs.put("noop/secret", size=1)
    opfs.path("noop/secret").chmod(0o600)
    opfs.put("noop/secret", size=2)
    fill(opfs, 6)
    opfs.opfs("prune")
    second = opfs.blocks()[2]
    assert second not in snapshots(opfs)
    path = opfs.mount / "chain" / second / "state/noop/secret.json"
    assert path.stat().st_mode & 0o777 == 0o600
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", path]
    assert "Permission denied" in subprocess.run(as_nobody, capture_output=True, text=True).stderr


def test_it_is_the_same_after_kill_and_without_the_derived_files(opfs):
    fill(opfs, 9)
    opfs.opfs("prune")
    before = {block: files_of(opfs, block) for block in opfs.blocks()}
    opfs.kill()
    for name in ("history.db", "history.db-wal", "history.db-shm"):
        (opfs.pool / "@index" / name).unlink(missing_ok=True)
    opfs.opfs("mount")
    os.listdir(opfs.mount / "history/noop/x1")  # waits until the history is there
    assert {block: files_of(opfs, block) for block in before} == before
    assert opfs.opfs("verify").stdout.endswith("everything agrees\n")
    opfs.put("noop/x1", size=1000)


def test_damage_in_the_archive_is_found_and_never_shown(opfs):
    fill(opfs, 9)
    third = opfs.blocks()[3]
    opfs.opfs("prune")
    (pack,) = (opfs.pool / "@log/archive").iterdir()
    whole = pack.read_bytes()
    data = bytearray(whole)
    opfs.opfs("umount")
    data[-40] ^= 1
    pack.write_bytes(data)
    shown = opfs.opfs("verify", check=False)
    assert shown.returncode == 5
    assert "block.json: header" in shown.stdout
    opfs.opfs("mount")
    found = subprocess.run(
        ["sh", "-c", f"cat {opfs.mount}/chain/*/state/noop/*.json {opfs.mount}/chain/{third}/events.jsonl"],
        capture_output=True,
        text=True,
    )
    assert "Structure needs cleaning" in found.stderr
    for line in found.stdout.splitlines():
        assert line.startswith("{"), "wrong bytes were handed out"
    pack.write_bytes(whole)


def test_it_prunes_by_itself_and_says_so(opfs):
    restart(opfs, OPFS_MAX_LIVE_BLOCKS="10")
    for _ in range(3):
        fill(opfs, 12)
        deadline, number = time.monotonic() + 120, 0
        while len(snapshots(opfs)) > 11:
            assert time.monotonic() < deadline
            number += 1
            opfs.put("noop/other", size=number)
    assert len(snapshots(opfs)) <= 12
    assert len(opfs.blocks()) > 36
    status = (opfs.mount / "status").read_text()
    assert "with a snapshot" in status
    assert opfs.opfs("verify").stdout.endswith("everything agrees\n")


def test_only_root_prunes(opfs):
    fill(opfs, 6)
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    echo = [*as_nobody, "bash", "-c", f"echo prune >{opfs.mount}/ctl"]
    assert "Permission denied" in subprocess.run(echo, capture_output=True, text=True).stderr
    assert len(snapshots(opfs)) == 7


def test_room_is_made_by_more_snapshots_going_oldest_first(opfs):
    """A hundred blocks an hour apart, all kept by the rule; then the pool is to have more room than it has."""
    opfs.opfs("umount")
    with ExitStack() as opened:
        opened.enter_context(Pool.open(opfs.pool))
        store = opened.enter_context(BtrfsSnapshotStore(opfs.pool))
        tips = opened.enter_context(closing(Tips(opfs.pool / "@log/tips")))
        chain = load_chain(store, tips, "test.example/opfs", 1)
        begin_ns = time.time_ns()  # a block is never older than the one before: these are of days to come
        for number in range(120):
            content = json.dumps({"size": number}).encode()
            outcome = Outcome(ElementId("noop", f"x{number % 7}"), "update", content, None, ACTOR)
            proposal = chain.propose([outcome], begin_ns + number * 3600 * 10**9)
            store.write_block(proposal.name, proposal.writes, proposal.header_bytes, proposal.events_bytes)
            chain.adopt(proposal)
    opfs.settings.update(FEW, OPFS_RETAIN_HOURLY="1000", OPFS_RETAIN_MIN_FREE="0")
    opfs.opfs("mount")
    opfs.opfs("label", "old", "20")
    assert re.search(r"kept, hourly +117\n", opfs.opfs("prune", "--plan").stdout)
    with BtrfsSnapshotStore(opfs.pool) as store:
        store.sync()
        wanted = store.space().free_bytes + (1 << 20)
        restart(opfs, OPFS_RETAIN_MIN_FREE=str(wanted))
        deadline = time.monotonic() + 120
        while store.space().free_bytes < wanted:
            assert time.monotonic() < deadline, f"{wanted - store.space().free_bytes} bytes are lacking"
            time.sleep(0.1)
    kept = {BlockName.parse(name).height for name in snapshots(opfs)}
    assert 20 in kept
    gone = set(range(120)) - kept
    assert gone
    assert gone >= set(range(1, max(gone))) - {20}, "the oldest went first"
    assert set(range(110, 121)) <= kept
    assert (opfs.mount / "chain" / opfs.blocks()[3] / "block.json").read_bytes()
