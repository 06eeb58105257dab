"""The daemon's life as a person sees it: up, down, mount, umount, after kill -9, two side by side."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from opfs.btrfs.mounts import mount_at
from opfs.cli.process import find_daemon
from opfs.config import load_config

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse")


class Place:
    """One pool in an image and one mount, and the command on them."""

    def __init__(self, directory):
        self.pool, self.mount = directory / "pool", directory / "mnt"
        self.image = directory / "pool.img"
        self.runtime = load_config({"pool": self.pool}, {}).runtime

    def opfs(self, *arguments, check=True, **environment):
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("OPFS_", "OPDBUS_"))}
        done = subprocess.run(
            [sys.executable, "-m", "opfs", "--pool", self.pool, "--mount", self.mount, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**variables, **environment},
        )
        if check and done.returncode != 0:
            pytest.fail(f"opfs {' '.join(arguments)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done

    def daemon(self):
        return find_daemon(self.pool)

    def kill(self):
        """kill -9, and wait until it is gone."""
        process = os.pidfd_open(self.daemon())
        signal.pidfd_send_signal(process, signal.SIGKILL)
        _wait_gone(process)
        os.close(process)

    def write(self, name, text):
        (self.mount / "state" / "file" / name).write_text(text)

    def loop_devices(self):
        listed = subprocess.run(
            ["losetup", "--associated", self.image, "--noheadings"], capture_output=True, text=True, check=True
        )
        return listed.stdout


def _wait_gone(process):
    import select

    assert select.select([process], [], [], 120)[0]


@pytest.fixture
def place(work_dir):
    """A place with nothing in it; whatever runs there is ended afterwards."""
    place = Place(Path(tempfile.mkdtemp(prefix="up-", dir=work_dir)))
    yield place
    place.opfs("down")
    assert place.loop_devices() == ""
    shutil.rmtree(place.runtime, ignore_errors=True)


@pytest.fixture
def up(place):
    """A place where opfs is up on a new pool."""
    place.opfs("up", "--size", "512M", "--origin", "test.example/opfs")
    return place


def test_up_makes_the_pool_and_ends_with_what_to_try(place):
    done = place.opfs("up", "--size", "512M", SUDO_UID="0")
    assert f"made {place.image}" in done.stderr
    assert done.stdout.splitlines()[-3:] == [
        f"""  echo '{{"hostname": "web", "memory": 512, "state": "running"}}' > {place.mount}/state/lxc/100.json""",
        f"  ls {place.mount}/chain",
        f"  cat '{place.mount}/search/similar/web server memory'",
    ]
    assert os.listdir(place.mount / "chain")
    assert place.image.stat().st_size == 512 << 20
    assert place.image.stat().st_blocks * 512 < 256 << 20


def test_the_first_steps_work_for_whoever_came_through_sudo(place):
    done = place.opfs("up", "--size", "512M", SUDO_UID="1000")
    assert f"| sudo tee {place.mount}/state/lxc/100.json" in done.stdout


def test_up_again_says_that_it_is_up(up):
    pid = up.daemon()
    assert f"up already on {up.mount} (pid {pid})" in up.opfs("up").stdout
    assert up.daemon() == pid


def test_down_frees_everything_and_keeps_the_data(up, tmp_path):
    target = tmp_path / "motd"
    up.write("motd.json", json.dumps({"path": str(target), "content": "hello\n"}))
    head = os.readlink(up.mount / "chain" / "HEAD")
    up.opfs("down")
    assert up.daemon() is None
    assert mount_at(up.mount) is None
    assert mount_at(up.pool) is None
    assert up.loop_devices() == ""
    assert target.read_text() == "hello\n"
    assert "down already" in up.opfs("down").stdout
    up.opfs("up")
    assert os.readlink(up.mount / "chain" / "HEAD") == head


def test_status_tells_up_from_stale_from_down(up):
    assert json.loads(up.opfs("status", "--json").stdout)["state"] == "serving"
    up.kill()
    stale = up.opfs("status", "--json", check=False)
    assert (json.loads(stale.stdout)["state"], stale.returncode) == ("stale", 1)
    up.opfs("down")
    down = up.opfs("status", "--json", check=False)
    assert (json.loads(down.stdout)["state"], down.returncode) == ("down", 1)


def test_mount_recovers_after_kill(up, tmp_path):
    up.write("motd.json", json.dumps({"path": str(tmp_path / "motd"), "content": "hello\n"}))
    head = os.readlink(up.mount / "chain" / "HEAD")
    up.kill()
    up.opfs("mount")
    assert os.readlink(up.mount / "chain" / "HEAD") == head
    assert (up.mount / "state" / "file" / "motd.json").exists()


def test_mount_makes_no_pool(place):
    done = place.opfs("mount", check=False)
    assert done.returncode == 6
    assert "there is no pool" in done.stderr
    assert not place.image.exists()


def test_umount_leaves_the_pool_mounted_and_readable_without_the_daemon(up):
    up.opfs("umount")
    assert up.daemon() is None
    assert mount_at(up.mount) is None
    assert mount_at(up.pool) is not None
    done = up.opfs("show", "HEAD", "--json")
    assert json.loads(done.stdout)["origin"] == "test.example/opfs"
    assert "without verifying" in done.stderr


def test_an_unmount_by_others_ends_the_daemon(up):
    process = os.pidfd_open(up.daemon())
    subprocess.run(["umount", up.mount], check=True)
    _wait_gone(process)
    os.close(process)
    assert up.daemon() is None


def test_a_mount_right_after_an_unmount_by_others_waits_for_the_daemon_to_end(up):
    first = up.daemon()
    subprocess.run(["umount", up.mount], check=True)
    up.opfs("mount")
    assert up.daemon() not in (None, first)


def test_the_origin_is_fixed_when_the_pool_is_made(up):
    up.opfs("down")
    done = up.opfs("up", "--origin", "other.example/opfs", check=False)
    assert done.returncode == 2
    assert "is named test.example/opfs" in done.stderr


def test_a_mount_point_in_use_is_refused_in_the_daemon_s_words(place):
    place.mount.mkdir()
    (place.mount / "mine").touch()
    done = place.opfs("up", "--size", "512M", check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-2] == (f"opfs: {place.mount} is not empty: the mount would hide what is in it")
    assert place.daemon() is None


@pytest.mark.parametrize("wrong", ["pool", "mount"])
def test_up_at_a_wrong_place_leaves_nothing_behind(place, wrong):
    getattr(place, wrong).write_text("a file of somebody's\n")
    refused = place.opfs("up", check=False)
    assert (refused.returncode, f"{getattr(place, wrong)} cannot be" in refused.stderr) == (6, True)
    assert not place.image.exists()
    assert getattr(place, wrong).read_text() == "a file of somebody's\n"


def test_a_second_mount_of_a_pool_is_refused(up):
    elsewhere = up.mount.with_name("elsewhere")
    done = up.opfs("up", "--mount", str(elsewhere), check=False)
    assert done.returncode == 6
    assert f"in use by pid {up.daemon()}" in done.stderr


def test_two_pools_side_by_side(up, work_dir):
    other = Place(Path(tempfile.mkdtemp(prefix="up-", dir=work_dir)))
    other.opfs("up", "--size", "512M")
    try:
        assert other.daemon() not in (None, up.daemon())
        done = other.opfs("up", "--pool", str(other.pool), "--mount", str(up.mount), check=False)
        assert done.returncode == 6
    finally:
        other.opfs("down")
        shutil.rmtree(other.runtime, ignore_errors=True)
    assert (up.mount / "status").read_text()


def test_doctor_is_content(up):
    done = up.opfs("doctor", "--json")
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    states = {finding["check"]: finding["state"] for finding in findings}
    assert {"fuse", "btrfs", "pool", "daemon", "mount", "model", "plugin file"} <= states.keys()
    assert states["daemon"] == states["mount"] == states["pool"] == "ok"


def test_rm_confirms_and_removes(up, tmp_path):
    target = tmp_path / "motd"
    up.write("motd.json", json.dumps({"path": str(target), "content": "hello\n"}))
    up.opfs("rm", "--yes", "file/motd")
    assert not (up.mount / "state" / "file" / "motd.json").exists()
    rows = [json.loads(line) for line in up.opfs("log", "--json", "file/motd").stdout.splitlines()]
    assert [row["op"] for row in rows] == ["delete", "create"]


def test_search_and_index_rebuild(up, tmp_path):
    up.write("motd.json", json.dumps({"path": str(tmp_path / "motd"), "content": "hello\n"}))
    for _ in range(2):
        hit = json.loads(up.opfs("search", "--json", "message", "of", "the", "day").stdout.splitlines()[0])
        assert (hit["plugin"], hit["element"]) == ("file", "motd")
        assert "file/motd" in up.opfs("search", "motd file").stdout
        up.opfs("index", "rebuild")
