"""After kill -9 the mount is dead, says so, and the next start takes it away, whatever was open of it."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
from contextlib import suppress

import pytest

from opfs.fuse.mountpoint import MOUNT_TYPE

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse")

DEAD = {errno.ENOTCONN, errno.ECONNABORTED}


def mounts_at(path):
    with open("/proc/self/mountinfo") as table:
        return sum(f" {path} " in line and f" - {MOUNT_TYPE} " in line for line in table)


def says_that_it_is_dead(do, *arguments):
    with pytest.raises(OSError, match=r"\[Errno") as failed:
        do(*arguments)
    assert failed.value.errno in DEAD, errno.errorcode[failed.value.errno]


@pytest.mark.parametrize("command", ["mount", "up"])
def test_everything_open_when_the_daemon_dies(fresh, command):
    fresh.put("noop/kept", n=1)
    draft = fresh.mount / "state" / "noop" / "draft"
    draft.write_bytes(b"on the disk of the pool")
    # a process that stands in the mount, as a forgotten shell does
    shell = subprocess.Popen(
        ["sh", "-c", "read line; cat state/noop/kept.json"], cwd=fresh.mount, stdin=subprocess.PIPE
    )
    reading = os.open(fresh.path("noop/kept"), os.O_RDONLY)
    writing = os.open(fresh.path("noop/half"), os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(writing, b'{"never": ')
    drafting = os.open(draft, os.O_RDWR)
    os.pwrite(drafting, b"IN", 0)
    directory = os.open(fresh.mount / "chain", os.O_RDONLY | os.O_DIRECTORY)
    block = os.open(fresh.mount / "chain" / "HEAD" / "block.json", os.O_RDONLY)
    mapped = mmap.mmap(block, 0, prot=mmap.PROT_READ)
    first_page = mapped[:10]
    try:
        fresh.kill()
        for descriptor in (reading, drafting):
            says_that_it_is_dead(os.pread, descriptor, 10, 0)
        says_that_it_is_dead(os.write, writing, b"1}")
        says_that_it_is_dead(os.write, drafting, b"x")
        says_that_it_is_dead(os.fsync, drafting)
        says_that_it_is_dead(os.listdir, directory)
        says_that_it_is_dead(os.statvfs, fresh.mount)
        assert mapped[:10] == first_page  # a page that was read stays
        status = fresh.opfs("status", check=False)
        assert "stale" in status.stdout
        assert status.returncode != 0
        fresh.opfs(command)
        assert mounts_at(fresh.mount) == 1
        # what is open of the dead mount stays dead, and is no obstacle to the new one
        for descriptor in (reading, drafting):
            says_that_it_is_dead(os.pread, descriptor, 10, 0)
        assert fresh.get("noop/kept") == {"n": 1}
        assert draft.read_bytes() == b"IN the disk of the pool"
        assert not fresh.path("noop/half").exists()
        fresh.put("noop/kept", n=2)
        shell.communicate(b"\n", timeout=120)
        assert shell.returncode != 0
    finally:
        mapped.close()
        for descriptor in (reading, writing, drafting, directory, block):
            with suppress(OSError):  # the flush of a dead file fails, the descriptor is gone all the same: close(2)
                os.close(descriptor)
        shell.kill()
        shell.wait()
    assert fresh.get("noop/kept") == {"n": 2}


def test_dying_again_and_again_leaves_one_mount(fresh):
    """Also where the next daemon dies while it starts, and where nobody asks in between."""
    fresh.put("noop/kept", n=0)
    for number in range(1, 4):
        fresh.kill()
        fresh.opfs("mount")
        assert mounts_at(fresh.mount) == 1
        fresh.put("noop/kept", n=number)
    assert fresh.get("noop/kept") == {"n": 3}
    fresh.opfs("umount")
    assert mounts_at(fresh.mount) == 0
    fresh.opfs("mount")
