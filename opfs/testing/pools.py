"""Copying a pool for a test and taking it apart afterwards; never used on one that anybody wants to keep. Blocking."""

from __future__ import annotations

import os
import shutil
import stat
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


def clone_pool(source: Path, target: Path) -> None:
    """Make `target` the same pool as `source`, which nobody uses; both on one btrfs. Blocks stay read-only snapshots.

    Raises OSError.
    """
    target.mkdir(mode=0o700)
    root, source_root = open_directory(str(target)), open_directory(str(source))
    try:
        for name in sorted(os.listdir(source_root)):
            found = os.stat(name, dir_fd=source_root, follow_symlinks=False)
            if found.st_ino == ioctl.SUBVOLUME_ROOT_INODE:
                _clone_subvolume(name, source_root, root)
            elif stat.S_ISDIR(found.st_mode):
                shutil.copytree(source / name, target / name)
            else:
                shutil.copy2(source / name, target / name)
    finally:
        os.close(root)
        os.close(source_root)


def _clone_subvolume(name: str, source_parent: int, parent: int) -> None:
    """One subvolume and the snapshots in it, which a snapshot of it shows as empty directories."""
    source = open_directory(name, source_parent)
    try:
        read_only = ioctl.is_read_only(source)
        ioctl.create_snapshot(source, parent, name, read_only=read_only)
        if read_only:
            return
        made = open_directory(name, parent)
        try:
            for inner in os.listdir(source):
                if os.stat(inner, dir_fd=source, follow_symlinks=False).st_ino == ioctl.SUBVOLUME_ROOT_INODE:
                    os.rmdir(inner, dir_fd=made)
                    _clone_subvolume(inner, source, made)
        finally:
            os.close(made)
    finally:
        os.close(source)
