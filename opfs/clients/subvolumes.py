"""Subvolumes of btrfs as a place for trees that are copied at once: made, copied, deleted.

Speaks to the `btrfs` tool (btrfs-progs), with argument lists and a deadline. Knows nothing of what is in a
tree. The pool of opfs itself does not use this: it has ioctls of its own, in another layer. Calls for
different paths may run concurrently.
"""

from __future__ import annotations

import os
from pathlib import Path

import trio

from opfs.clients.tool import run_tool
from opfs.errors import ApplyFailed

_FIRST_INODE = 256
"""Of every subvolume (BTRFS_FIRST_FREE_OBJECTID)."""
_TIMEOUT_S = 60.0


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
    doing = f"btrfs subvolume {verb}"
    command = ["btrfs", "subvolume", verb, *arguments]
    done = await run_tool(command, timeout_s=_TIMEOUT_S, doing=doing, install="btrfs-progs")
    if done.status != 0:
        raise ApplyFailed(f"{doing} failed: {done.words()}")
