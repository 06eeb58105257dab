"""Whoever lives in a mount namespace of his own holds nobody else's file system (opfs/testing/ownmounts.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from guest import OWN_MOUNTS

from opfs.btrfs.image import MIN_BYTES, attach, create_image, detach
from opfs.btrfs.mounts import parse_mountinfo
from opfs.testing.ownmounts import foreign_mounts

PYTHON = """
import sys
from pathlib import Path
from opfs.testing.ownmounts import unshare_mounts
unshare_mounts(needed=map(Path, sys.argv[1:]))
print("ready", flush=True)
sys.stdin.read()
"""
SHELL = f'. {OWN_MOUNTS}; detach_others "$@"; echo ready; cat'
HOLDERS = {
    "python": [sys.executable, "-c", PYTHON],
    "shell": ["unshare", "--mount", "sh", "-euc", SHELL, "sh"],
}

MOUNTINFO = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
30 22 0:40 / /tmp/pool rw - btrfs /dev/loop3 rw
31 30 0:41 / /tmp/pool/op rw - fuse.opfs opfs rw
32 22 0:42 / /tmp/a\040disk rw - fuse blockdevice rw
33 22 254:2 / /srv rw - btrfs /dev/vdb rw
34 22 0:43 / /opt/checkout rw - ext4 /dev/loop4 rw
"""


def test_what_a_loop_device_or_a_daemon_is_behind_is_foreign_unless_it_is_needed():
    mounts = parse_mountinfo(MOUNTINFO.strip())
    found = [str(mount.mount_point) for mount in foreign_mounts(mounts, [Path("/opt/checkout/tests"), Path("/tmp")])]
    assert found == ["/tmp/a disk", "/tmp/pool/op", "/tmp/pool"], "what lies on top goes first"


@pytest.fixture
def mounted(work_dir, tmp_path):
    """A file system on a loop device, with a blank in its name."""
    root = work_dir / f"{tmp_path.name} others"
    image = root.with_suffix(".img")
    create_image(image, MIN_BYTES)
    attach(image, root)
    yield root, image
    detach(root, image)
    image.unlink()
    root.rmdir()


@pytest.mark.needs("root", "btrfs", "loop")
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_loop_device_is_free_as_soon_as_its_owner_unmounts(mounted, holder):
    with subprocess.Popen(HOLDERS[holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as elsewhere:
        assert elsewhere.stdout.readline() == b"ready\n"
        detach(*mounted)  # raises where somebody else still has it


@pytest.mark.needs("root", "btrfs", "loop")
@pytest.mark.parametrize("holder", HOLDERS)
def test_what_is_needed_stays(mounted, holder):
    root, _ = mounted
    command = [*HOLDERS[holder], str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as elsewhere:
        assert elsewhere.stdout.readline() == b"ready\n"
        seen = parse_mountinfo(Path(f"/proc/{elsewhere.pid}/mountinfo").read_text())
        assert root in [mount.mount_point for mount in seen]
