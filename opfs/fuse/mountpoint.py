"""Mount points as the kernel sees them: what is mounted where, whether it is alive, and taking it away.

Speaks to the kernel only (proc_pid_mountinfo(5), umount2(2)), never to a daemon but for one probe. Blocking,
and a probe of a daemon that hangs waits as long as that does: call from a worker thread where that matters.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.errors import InvalidRequest, PoolError

if TYPE_CHECKING:
    from pathlib import Path

FILE_SYSTEM = "opfs"
MOUNT_TYPE = f"fuse.{FILE_SYSTEM}"

_MNT_FORCE = 1
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Mount:
    """What is mounted on a path, the topmost where there are several: `device` is `major:minor`."""

    device: str
    type: str


def mount_at(mountpoint: Path) -> Mount | None:
    """What is mounted exactly there, dead or alive; None where nothing is."""
    wanted, found = os.fsencode(mountpoint), None
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            fields, _, tail = line.partition(b" - ")
            words = fields.split(b" ")
            if _unescape(words[4]) == wanted:
                found = Mount(words[2].decode(), tail.split(b" ")[0].decode())
    return found


def is_mounted(mountpoint: Path) -> bool:
    """Whether an opfs is mounted there, dead or alive."""
    mount = mount_at(mountpoint)
    return mount is not None and mount.type == MOUNT_TYPE


def is_answering(mountpoint: Path) -> bool:
    """Whether the daemon behind a mount answers: asks for what no kernel keeps in a cache."""
    try:
        os.statvfs(mountpoint)
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            return False
        raise
    return True


def recover_stale_mount(mountpoint: Path) -> bool:
    """Take away what a killed daemon left mounted; whether there was such a thing.

    Touches only mounts of our own type whose daemon is gone.
    """
    recovered = False
    while is_mounted(mountpoint) and not is_answering(mountpoint):
        unmount(mountpoint)
        recovered = True
    return recovered


def unmount(mountpoint: Path, *, abort: bool = False) -> None:
    """Detach the mount now; files in use go when they are closed.

    With `abort` the connection to its daemon ends as well: whoever waits for an answer gets ECONNABORTED.
    """
    flags = _MNT_DETACH | _UMOUNT_NOFOLLOW | (_MNT_FORCE if abort else 0)
    if _libc.umount2(os.fsencode(mountpoint), flags) != 0:
        number = ctypes.get_errno()
        raise PoolError(f"{mountpoint} cannot be unmounted: {os.strerror(number)}", hint="only root may unmount it")


def check_mountpoint(mountpoint: Path) -> None:
    """Raise InvalidRequest unless `mountpoint` is an empty directory with nothing mounted on it."""
    hint = "give an empty directory of its own, e.g. /mnt/op"
    if mount := mount_at(mountpoint):
        what = "an opfs is already mounted" if mount.type == MOUNT_TYPE else f"a {mount.type} is mounted"
        raise InvalidRequest(f"{what} on {mountpoint}", hint=f"unmount it first, or {hint}")
    try:
        mode = os.lstat(mountpoint).st_mode
    except OSError as error:
        raise InvalidRequest(f"{mountpoint} cannot be used: {error.strerror}", hint=hint) from error
    if stat.S_ISLNK(mode):
        raise InvalidRequest(f"{mountpoint} is a symbolic link", hint=hint)
    if not stat.S_ISDIR(mode):
        raise InvalidRequest(f"{mountpoint} is not a directory", hint=hint)
    if os.listdir(mountpoint):
        raise InvalidRequest(f"{mountpoint} is not empty: the mount would hide what is in it", hint=hint)


def _unescape(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)
