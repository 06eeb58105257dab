"""Whether a path of the host may be given to a container, as its root or as a mount; blocking.

LXC, as root, opens the path by name, some time after it was looked at. So it is not enough that no link is on
the way now: nobody but root may be able to put one there.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_volume(path: str, forbidden: Sequence[str]) -> bool:
    """Whether `path`, which is to be mounted, is a file and no directory.

    Raises ApplyFailed where it is neither, where a link or somebody else's directory is on the way, and where
    it overlaps a tree of opfs', whatever that tree is called here.
    """
    steps = path.split("/")[1:]
    above, walked = os.stat("/"), ""
    for step in steps:
        walked = f"{walked}/{step}"
        try:
            status = os.stat(walked, follow_symlinks=False)
        except OSError as error:
            hint = f"mkdir -p {path}" if isinstance(error, FileNotFoundError) else ""
            raise ApplyFailed(f"{path} cannot be mounted: {walked}: {error.strerror}", hint=hint) from error
        if stat.S_ISLNK(status.st_mode):
            raise ApplyFailed(f"{path} leads through the link {walked}", hint=f"name {os.path.realpath(path)} itself")
        is_loose = bool(above.st_mode & _OTHERS_WRITE)
        is_sticky = bool(above.st_mode & stat.S_ISVTX) and status.st_uid == 0
        if above.st_uid != 0 or (is_loose and not is_sticky):
            whose = os.path.dirname(walked)
            raise ApplyFailed(f"{path} can be swapped by whoever may write in {whose}", hint="root alone, for a mount")
        above = status
    for tree in map(os.path.realpath, forbidden):
        if path == tree or path.startswith(tree + "/") or tree.startswith(path.rstrip("/") + "/"):
            raise ApplyFailed(f"{path} and opfs' own {tree} overlap", hint="mount a directory beside it")
    if stat.S_ISDIR(above.st_mode):
        return False
    if stat.S_ISREG(above.st_mode):
        return True
    raise ApplyFailed(f"{path} is neither a directory nor a plain file")


def check_root(path: str) -> None:
    """Raise ApplyFailed unless `path` is a directory, reached without links, with a whole system in it."""
    real = os.path.realpath(path)
    if real != path:
        raise ApplyFailed(f"the root {path} leads through a link to {real}", hint="name the directory itself")
    if not os.path.isdir(path):
        raise ApplyFailed(f"the root {path} is not a directory")
    if not has_init(path):
        raise ApplyFailed(f"the root {path} has no /sbin/init", hint="give a directory with a whole system in it")


def has_init(root: str) -> bool:
    """Whether there is something to start, which may be a link that only leads somewhere from inside."""
    if os.path.lexists(os.path.join(root, "sbin/init")):
        return True
    # /sbin itself may be a link to usr/sbin.
    return os.path.islink(os.path.join(root, "sbin")) and os.path.lexists(os.path.join(root, "usr/sbin/init"))
