"""Taking a pool apart after a test; never used on a pool that anybody wants to keep. Blocking."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from opfs.btrfs import ioctl
from opfs.btrfs.tree import open_directory

if TYPE_CHECKING:
    from pathlib import Path


def delete_tree(path: Path) -> None:
    """Remove a directory with the subvolumes in it, read-only snapshots included."""
    for directory, names, _ in os.walk(path, topdown=False):
        fd = open_directory(directory)
        try:
            for name in names:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if found.st_ino == ioctl.SUBVOLUME_ROOT_INODE:
                    ioctl.delete_subvolume(fd, name)
        finally:
            os.close(fd)
    shutil.rmtree(path)
