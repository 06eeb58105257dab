"""A mount namespace without other people's file systems, so that nobody has to wait for its end to unmount his own.

A new namespace copies every mount of the moment. A file system is gone only when the last copy is, and its loop device,
its image and its daemon are held until then: tests and benchmarks that run side by side would hold each other's.

Linux only, needs CAP_SYS_ADMIN; changes the calling process, which must have one thread (unshare(2) is a thread's).
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from opfs.btrfs.mounts import parse_mountinfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from opfs.btrfs.mounts import Mount

CLONE_NEWNS = 0x00020000

_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_LIBC = ctypes.CDLL(None, use_errno=True)


def unshare_mounts(flags: int = 0, *, needed: Iterable[Path] = ()) -> None:
    """Move to a mount namespace of our own that holds nobody's loop device and no daemon's mount.

    `flags` are further namespaces to leave (unshare(2)). What holds one of the `needed` paths, the working directory,
    the temporary directory, this interpreter or this code stays. Raises OSError.
    """
    if _LIBC.unshare(CLONE_NEWNS | flags) != 0:
        raise _last_error("a mount namespace of our own")
    if _LIBC.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        raise _last_error("making its mounts private")
    places = (Path.cwd(), Path(tempfile.gettempdir()), Path(sys.prefix), Path(sys.base_prefix), Path(__file__))
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
    for mount in foreign_mounts(mounts, [place.resolve() for place in (*places, *needed)]):
        failed = _LIBC.umount2(os.fsencode(mount.mount_point), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0
        if failed and ctypes.get_errno() not in (errno.EINVAL, errno.ENOENT):  # else it went with what it lay on
            raise _last_error(f"detaching {mount.mount_point}")


def foreign_mounts(mounts: Iterable[Mount], needed: Iterable[Path]) -> Iterator[Mount]:
    """Of all mounts, in the order of mountinfo, those to detach: the last first, since it may lie on the others.

    They are what a loop device or a daemon is behind, except what one of the `needed` paths lies in.
    """
    needed = list(needed)
    for mount in reversed(list(mounts)):
        is_backed = mount.source.startswith("/dev/loop") or mount.fs_type.partition(".")[0] in ("fuse", "fuseblk")
        if is_backed and not any(path.is_relative_to(mount.mount_point) for path in needed):
            yield mount


def _last_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
