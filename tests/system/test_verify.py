"""The command opfs verify: with and without a daemon, in part, stopped and gone on with."""

from __future__ import annotations

import json
import os

import pytest
from serving import serve
from tampering import renamed

from opfs.cli.verification import PoolVerification, Progress
from opfs.config import load_config
from opfs.core.names import BlockName

pytestmark = pytest.mark.needs("root", "btrfs", "fuse")

BLOCKS = 13


@pytest.fixture(scope="module")
def served(btrfs_dir, work_dir):
    with serve(btrfs_dir, work_dir) as serving:
        for number in range(BLOCKS - 1):
            serving.put(f"noop/e{number}", n=number)
        yield serving


def state_file(serving):
    return load_config({"pool": str(serving.pool), "mount": str(serving.mount)}, {}).runtime / "verify.json"


def test_beside_a_daemon_and_without_one(served):
    documents = sum(range(BLOCKS))
    summary = f"{BLOCKS} blocks, {documents} documents read"
    for _ in range(2):
        done = served.opfs("verify")
        assert done.stdout.startswith(summary)
        assert done.stdout.endswith("everything agrees\n")
        assert not state_file(served).exists()
        served.opfs("umount")
    served.opfs("mount")


def test_while_blocks_are_made(served):
    """What is committed meanwhile is not held against anything."""
    process = os.fork()
    if process == 0:
        try:
            while True:
                served.put("noop/busy", n=os.urandom(8).hex())
        finally:
            os._exit(0)
    try:
        for _ in range(5):
            done = served.opfs("verify", check=False)
            assert done.stdout.endswith("everything agrees\n"), done.stdout
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)


def test_since_a_height_and_a_sample(served):
    done = served.opfs("verify", "--since", "10", "--json")
    blocks = len(served.blocks())
    assert done.stdout == ""
    assert done.stderr.startswith(f"{blocks} blocks, ")
    whole = served.opfs("verify", "--json").stderr
    sampled = served.opfs("verify", "--sample", "1", "--json").stderr
    read = [int(text.split(" blocks, ")[1].split()[0]) for text in (whole, done.stderr, sampled)]
    assert read[0] > read[1] > read[2] == blocks - 1


def test_a_sample_finds_what_it_reads_and_every_wrong_name(served):
    block = served.pool / "@chain" / served.blocks()[5]
    with renamed(block / "state/noop/e0.json", block / "state/noop/zz.json", block):
        done = served.opfs("verify", "--sample", "0", "--json", check=False)
    found = {(json.loads(line)["path"], json.loads(line)["disagrees"]) for line in done.stdout.splitlines()}
    assert done.returncode == 5
    assert found == {("state/noop/e0.json", "name"), ("state/noop/zz.json", "name")}


def test_a_run_that_was_stopped_goes_on(served):
    """It does not read again what it has read, keeps what it found, and still knows every element's last event."""
    block = served.pool / "@chain" / served.blocks()[3]
    with renamed(block / "state/noop/e0.json", block / "state/noop/zz.json", block):
        verification = PoolVerification(served.pool, is_live=True)
        for _, _, name, _ in verification.run():
            if name == BlockName.parse(served.blocks()[8]):
                Progress(name, tuple(verification.findings)).save(state_file(served), verification.id)
    done = served.opfs("verify", "--json", check=False)
    assert f"going on after block {served.blocks()[8]}" in done.stderr
    assert done.returncode == 5
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == [
        "state/noop/e0.json",
        "state/noop/zz.json",
    ]
    assert not state_file(served).exists()
    assert "everything agrees" in served.opfs("verify").stdout


def test_the_state_of_another_pool_or_a_torn_one_is_not_used(served):
    path = state_file(served)
    block = BlockName.parse(served.blocks()[8])
    Progress(block, ()).save(path, "another pool")
    assert "going on" not in served.opfs("verify").stderr
    Progress(block, ()).save(path, PoolVerification(served.pool).id)
    path.write_text(path.read_text()[:-9])
    assert "going on" not in served.opfs("verify").stderr
    Progress(block, ()).save(path, PoolVerification(served.pool).id)
    assert "going on" not in served.opfs("verify", "--fresh").stderr


def test_no_pool(served, tmp_path):
    done = served.opfs("--pool", str(tmp_path / "none"), "verify", check=False)
    assert done.returncode == 6
    assert "does not exist" in done.stderr
