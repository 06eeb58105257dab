"""What the running daemon may do, as the kernel says; and that its plugins still can do their work with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from opfs.cli.privileges import Capability

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse")

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def capabilities(task: Path) -> dict[str, int]:
    fields = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines() if ":" in line)
    return {name: int(fields[name], 16) for name in SETS}


def test_no_thread_of_the_daemon_holds_what_it_never_needs(opfs):
    tasks = list(Path(f"/proc/{opfs.daemon()}/task").iterdir())
    assert len(tasks) > 1, "threads inherit; there must be some to look at"
    for task in tasks:
        for name, held in capabilities(task).items():
            assert [c.name for c in Capability if held >> c & 1] == [], f"{task}: {name}"


def test_the_process_keeps_its_memory_to_itself(opfs):
    """A process that may not be dumped belongs to root in /proc, and only root with CAP_SYS_PTRACE looks inside."""
    pid = opfs.daemon()
    look = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", f"/proc/{pid}/maps"]
    assert subprocess.run(look, capture_output=True, check=False).returncode != 0
    own = subprocess.run(
        ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", "head", "-c1", f"/proc/{pid}/mem"],
        capture_output=True,
        check=False,
    )
    assert b"Permission denied" in own.stderr, "root without CAP_SYS_PTRACE reads it"


@pytest.mark.needs("lxc")
def test_what_it_starts_cannot_get_them_back(opfs):
    """A program run as root gets all capabilities of its bounding set, and these are no longer in it."""
    opfs.put("lxc/capped", state="running")
    try:
        shown = subprocess.run(
            ["lxc-info", "-P", opfs.lxc, "-n", "capped", "-p", "-H"], capture_output=True, text=True, check=True
        )
        held = capabilities(Path(f"/proc/{int(shown.stdout)}"))["CapBnd"]
        assert [c.name for c in Capability if held >> c & 1] == []
        assert held, "the container has no capabilities at all"
    finally:
        opfs.opfs("rm", "--yes", "lxc/capped")
