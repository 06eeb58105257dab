"""Limits of containers under control groups of version 2, enforced by a real kernel that has the controllers there.

This machine's controllers are bound to version 1, so another machine is emulated. A process in a group that is named
as LXC names a container's stands for the container.
"""

from __future__ import annotations

import pytest
from emulated import run_emulated

pytestmark = pytest.mark.needs("emulator")

PROGRAM = """
import json, os, subprocess
from pathlib import Path

TOP = Path("/sys/fs/cgroup")
subprocess.run(["/bin/busybox", "mount", "-t", "cgroup2", "cgroup2", TOP], check=True)
(TOP / "cgroup.subtree_control").write_text("+memory +cpu +cpuset")
group = TOP / "lxc.payload.c1"
(group / "init.scope").mkdir(parents=True)
container = subprocess.Popen(["/bin/busybox", "sleep", "1000"])
(group / "init.scope/cgroup.procs").write_text(str(container.pid))

from opfs.plugins.lxc.live import LiveLimits

live = LiveLimits()
assert live.host.versions == {"memory": 2, "cpu": 2, "cpuset": 2}, live.host
assert live.host.has_swap and live.host.has_bandwidth


def kernel(file):
    return (group / file).read_text().strip()


assert live.read(container.pid, {}) == {}, live.read(container.pid, {})
limits = {"memory": 64, "swap": 32, "cores": 1, "cpulimit": 0.5}
assert live.write("c1", container.pid, limits)
assert kernel("memory.max") == str(64 << 20)
assert kernel("memory.swap.max") == str(32 << 20)
assert kernel("cpu.max") == "50000 100000"
assert kernel("cpuset.cpus") == "0"
assert live.read(container.pid, limits) == limits

for memory, swap in [(128, 0), (32, 256), (16, None)]:
    changed = {"memory": memory, "swap": swap, "cores": None, "cpulimit": 0.25}
    live.write("c1", container.pid, changed)
    found = live.read(container.pid, {})
    assert found == {key: value for key, value in changed.items() if value is not None}, found

# The kernel means it: what needs more than 16 MiB is ended.
enter = f"echo 0 > {group}/init.scope/cgroup.procs; exec /bin/busybox tail /dev/zero"
eater = subprocess.run(["/bin/busybox", "sh", "-c", enter])
assert eater.returncode in (-9, 137), eater
assert "oom_kill 1" in (group / "memory.events").read_text()

live.write("c1", container.pid, {})
assert (kernel("memory.max"), kernel("memory.swap.max"), kernel("cpu.max")) == ("max", "max", "max 100000")
assert live.read(container.pid, {}) == {}
container.kill()
container.wait()
assert live.write("c1", container.pid, limits) is False, "it has ended"
print("limits hold")
"""


def test_limits_hold_under_version_2():
    said = run_emulated(PROGRAM, [], ["opfs.plugins.lxc.live", "subprocess", "json", "pathlib"])
    assert "limits hold" in said
