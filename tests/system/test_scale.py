"""Many writers and many elements."""

import json
import os
import subprocess
import threading

import pytest

from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.commit.chain import Outcome, load_chain
from opfs.commit.tips import Tips
from opfs.core.names import ElementId
from opfs.ports import FileAttributes

COUNT = 2_000
"""`scripts/bench commit` has 10,000."""

pytestmark = pytest.mark.needs("root", "btrfs", "fuse")


def test_writers_share_blocks(opfs):
    before = len(opfs.blocks())
    barrier = threading.Barrier(32)

    def write(number):
        barrier.wait()
        for round_number in range(5):
            opfs.put(f"noop/shared-{number}", n=round_number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(opfs.blocks()) - before < 32 * 5
    for number in range(32):
        assert opfs.get(f"noop/shared-{number}") == {"n": 4}


def test_two_writers_of_one_element(opfs):
    """One wins, the other is told so; nothing is mixed."""
    barrier = threading.Barrier(2)
    outcomes = []

    def write(text):
        barrier.wait()
        for _ in range(50):
            try:
                opfs.put("noop/contested", text=text * 2000)
                outcomes.append(0)
            except OSError as error:
                outcomes.append(error.errno)

    threads = [threading.Thread(target=write, args=(text,)) for text in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert set(outcomes) <= {0, 16}
    assert 0 in outcomes
    assert set(opfs.get("noop/contested")["text"]) in ({"a"}, {"b"})


def test_a_tree_of_thousands(fresh, tmp_path):
    """Listed, read, searched and changed through the mount like a small one; most of it is there before."""
    source = tmp_path / "noop"
    source.mkdir()
    for number in range(COUNT):
        (source / f"e{number}.json").write_text(json.dumps({"number": number, "hostname": f"host-{number}"}))
    fresh.opfs("umount")
    fill_pool(fresh.pool, [(ElementId("noop", path.stem), path.read_bytes()) for path in source.glob("*")])
    fresh.opfs("mount")
    assert len(os.listdir(fresh.mount / "state/noop")) == COUNT
    assert subprocess.run(["diff", "-r", source, fresh.mount / "state/noop"], check=False).returncode == 0
    for number in range(20):
        (source / f"e{number}.json").write_text("{}")
    subprocess.run(["rsync", "-r", "--checksum", f"{source}/", fresh.mount / "state/noop/"], check=True)
    assert subprocess.run(["diff", "-r", source, fresh.mount / "state/noop"], check=False).returncode == 0
    assert len(fresh.blocks()) == 2 + 20


def fill_pool(pool, documents):
    """Commit many documents as one block, with the commit path's own functions."""
    tips = Tips(pool / "@log/tips")
    with BtrfsSnapshotStore(pool) as store:
        chain = load_chain(store, tips, "test.example/opfs", 0)
        actor = {"uid": 0, "user": "root"}
        attributes = FileAttributes(0o644, 0, 0, 0)
        block = chain.propose([Outcome(id, "create", content, attributes, actor) for id, content in documents], 0)
        store.write_block(block.name, block.writes, block.header_bytes, block.events_bytes)
        chain.adopt(block)
    tips.close()
