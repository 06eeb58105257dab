"""Subvolumes of btrfs as a place for trees that are copied at once: made, copied, deleted.

Speaks to the `btrfs` tool (btrfs-progs), with argument lists and a deadline. Knows nothing of what is in a
tree. The pool of opfs itself does not use this: it has ioctls of its own, in another layer. Calls for
different paths may run concurrently.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from opfs.errors import ApplyFailed, ApplyTimeout

if TYPE_CHECKING:
    from collections.abc import Sequence

_FIRST_INODE = 256
"""Of every subvolume (BTRFS_FIRST_FREE_OBJECTID)."""
_TIMEOUT_S = 60.0
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def is_on_btrfs(path: Path) -> bool:
    """Whether a path is on btrfs; of one that is not there yet, its nearest parent counts."""
    while not path.exists() and path != path.parent:
        path = path.parent
    # Device numbers of subvolumes are in no mount table, so the mount is found by its path.
    real = os.path.realpath(path)
    best = ("", "")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].replace("\\040", " ")
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best[0]):
            best = (point, right.split()[0])
    return best[1] == "btrfs"


def is_subvolume(path: Path) -> bool:
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return status.st_ino == _FIRST_INODE and is_on_btrfs(path)


async def create(path: Path) -> None:
    """Make an empty subvolume."""
    await _btrfs("create", "--", str(path))


async def copy(source: Path, target: Path, *, is_read_only: bool = False) -> None:
    """Make `target` a snapshot of `source`, which must be a subvolume."""
    options = ["-r"] if is_read_only else []
    await _btrfs("snapshot", *options, "--", str(source), str(target))


async def delete(path: Path) -> None:
    """Delete a subvolume; nothing where there is none."""
    if await trio.to_thread.run_sync(path.exists):
        await _btrfs("delete", "--", str(path))


async def _btrfs(verb: str, *arguments: str) -> None:
    command: Sequence[str] = ["btrfs", "subvolume", verb, *arguments]
    try:
        with trio.fail_after(_TIMEOUT_S):
            done = await trio.run_process(
                command,
                stdin=subprocess.DEVNULL,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd="/",
                env=_ENVIRONMENT,
            )
    except trio.TooSlowError:
        raise ApplyTimeout(f"btrfs subvolume {verb} was still at work after {_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise ApplyFailed(f"btrfs cannot be run: {error.strerror}", hint="apt-get install btrfs-progs") from error
    if done.returncode != 0:
        words = bytes(done.stderr or b"").decode("utf-8", "replace").strip().replace("\n", "; ")
        raise ApplyFailed(f"btrfs subvolume {verb} failed: {words or 'it gave no reason'}")
