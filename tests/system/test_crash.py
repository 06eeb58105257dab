"""kill -9 while many write: what was acknowledged is there, nothing half-written is, the same command mounts again."""

import json
import os
import threading

import pytest

pytestmark = pytest.mark.needs("root", "btrfs", "fuse")

WRITERS = 8
ROUNDS = 4


class Writer(threading.Thread):
    """Writes one element over and over until the mount is gone; knows what was acknowledged and what was tried."""

    def __init__(self, opfs, number, progress):
        super().__init__()
        self.path = opfs.path(f"file/w{number}")
        self.target = str(opfs.lxc / f"target-{number}")
        self.progress = progress
        self.acknowledged = None
        self.tried = None
        self.count = 0

    def run(self):
        while True:
            self.tried = f"version {self.count}"
            document = json.dumps({"path": self.target, "content": self.tried})
            try:
                self.path.write_text(document)
            except OSError:
                return
            self.acknowledged = self.tried
            self.count += 1
            self.progress.release()


def test_kill_during_writes(fresh):
    for round_number in range(ROUNDS):
        progress = threading.Semaphore(0)
        writers = [Writer(fresh, f"{round_number}-{number}", progress) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        for _ in range(60 + 17 * round_number):
            assert progress.acquire(timeout=120)
        fresh.kill()
        for writer in writers:
            writer.join(120)
            assert not writer.is_alive()
        with pytest.raises(OSError, match="not connected"):
            os.listdir(fresh.mount)
        fresh.opfs("mount")
        for writer in writers:
            present = json.loads(writer.path.read_text())["content"] if writer.path.exists() else None
            assert present in (writer.acknowledged, writer.tried)
            # the host is as the chain says, not half-way
            if present is not None:
                with open(writer.target) as target:
                    assert target.read() == present
            else:
                assert not os.path.exists(writer.target)
        assert fresh.findings() == []


def test_a_write_after_the_daemon_died_is_an_error(fresh):
    fresh.put("noop/a", n=1)
    fresh.kill()
    with pytest.raises(OSError, match="not connected"):
        fresh.put("noop/a", n=2)
    fresh.opfs("mount")
    assert fresh.get("noop/a") == {"n": 1}


def test_derived_files_may_be_lost_between_runs(fresh):
    for number in range(5):
        fresh.put("noop/a", n=number)
    fresh.opfs("umount")
    for name in ("@log/tips", "@index/events.db", "@index/vectors.f32"):
        (fresh.pool / name).unlink(missing_ok=True)
    fresh.opfs("mount")
    fresh.put("noop/a", n=9)
    assert fresh.events()[0]["seq"] == 5
    hits = [json.loads(line)["seq"] for line in (fresh.mount / "search/similar/n.json").read_text().splitlines()]
    assert sorted(hits) == list(range(6))
