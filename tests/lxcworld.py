"""What the tests of the lxc plugin share: its tools asked directly, documents carried out, images, control groups."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import subprocess
import tarfile
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path


def lxc(lxcpath, tool, name, *arguments, check=True):
    done = subprocess.run([tool, "-P", lxcpath, "-n", name, *arguments], check=check, capture_output=True, text=True)
    return done.stdout


def inside(lxcpath, name, *command):
    return lxc(lxcpath, "lxc-attach", name, "--", *command).strip()


def init_of(lxcpath, name):
    return lxc(lxcpath, "lxc-info", name, "-pH").strip()


async def observed(plugin, name):
    return (await plugin.observe([name])).get(name)


async def become(plugin, name, desired):
    """What the daemon does, without policy; returns the plan."""
    if desired is not None:
        plugin.check(name, desired)
    diff = plugin.plan(name, await observed(plugin, name), desired)
    for action in diff.actions:
        await plugin.apply(action)
    assert not plugin.compare(name, desired, await observed(plugin, name))
    return diff


def new_name():
    """One that no other run has: control groups have one name space for the whole host."""
    return f"opfs-{secrets.token_hex(4)}"


@contextmanager
def lxc_directory(name, parent=None):
    """An LXC directory of its own; whatever runs in it is ended with it."""
    path = Path(tempfile.mkdtemp(prefix="opfs-lxc-", dir=parent))
    path.chmod(0o755)
    yield path
    for container in path.iterdir():
        if container.is_dir():
            lxc(path, "lxc-stop", container.name, "--kill", check=False)
    # A monitor ends a moment after its container.
    deadline = time.monotonic() + 60
    while any(names(process, str(path)) for process in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline, "a monitor does not end"
        time.sleep(0.01)
    shutil.rmtree(path)
    # A start that fails leaves the monitor's empty control groups: LXC does, and a test must not.
    for pattern in (f"lxc.monitor.{name}", f"*/lxc.monitor.{name}"):
        for group in Path("/sys/fs/cgroup").glob(pattern):
            group.rmdir()


def names(process, path):
    try:
        words = (process / "cmdline").read_bytes()
    except OSError:
        return False
    return b"[lxc monitor]" in words and path.encode() in words


def subids(place):
    """A directory with a range of ids for root, as /etc of a host that has one."""
    for file in ("subuid", "subgid"):
        (place / file).write_text("someone:200000:65536\nroot:300000:65536\n")
    return place


def small_system(file, extra=(), mode="w:gz"):
    """An image of a system that is busybox and nothing else; `extra` are more members with their bytes."""
    busybox = Path(shutil.which("busybox")).read_bytes()
    inittab = b"::sysinit:/bin/busybox true\n"
    with tarfile.open(file, mode) as archive:
        for folder in ("bin", "sbin", "etc", "dev", "proc", "sys", "tmp", "root"):
            archive.addfile(member(f"./{folder}", tarfile.DIRTYPE, 0o755))
        for path, data in (("./bin/busybox", busybox), ("./etc/inittab", inittab)):
            archive.addfile(member(path, mode=0o755, size=len(data)), io.BytesIO(data))
        for tool in ("sh", "ls", "cat", "id", "touch", "stat", "hostname", "ip", "udhcpc"):
            archive.addfile(member(f"./bin/{tool}", tarfile.SYMTYPE, linkname="busybox"))
        archive.addfile(member("./sbin/init", tarfile.LNKTYPE, linkname="./bin/busybox"))
        for info, data in extra:
            archive.addfile(info, io.BytesIO(data))
    return file


def member(name, kind=tarfile.REGTYPE, mode=0o644, size=0, linkname="", uid=0):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname, info.uid, info.gid = kind, mode, size, linkname, uid, uid
    info.mtime = 1_700_000_000
    return info


def mount_cgroups():
    """The host's control groups below a /sys that is new, as in a mount namespace."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/sys/fs/cgroup"], check=True)
    for _, point, kind, options, *_ in mounts:
        if kind in ("cgroup", "cgroup2"):
            os.makedirs(point, exist_ok=True)
            own = [word for word in options.split(",") if word not in ("rw", "relatime")]
            chosen = ["-o", ",".join(own)] if kind == "cgroup" else []
            subprocess.run(["mount", "-t", kind, *chosen, kind, point], check=True)
