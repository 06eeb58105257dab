"""Change a pool behind the daemon's back, as root can, and put everything back afterwards."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opfs.btrfs.ioctl import SUBVOL_RDONLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SUBVOL_SETFLAGS = 0x4008941A  # BTRFS_IOC_SUBVOL_SETFLAGS, linux/btrfs.h


def _set_read_only(block: Path, value: bool) -> None:
    fd = os.open(block, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, _SUBVOL_SETFLAGS, struct.pack("=Q", SUBVOL_RDONLY if value else 0))
    finally:
        os.close(fd)


@contextmanager
def writable(block: Path) -> Iterator[None]:
    """What `btrfs property set -ts BLOCK ro false` does, for a while."""
    _set_read_only(block, False)
    try:
        yield
    finally:
        _set_read_only(block, True)


def _rewrite(path: Path, content: bytes) -> None:
    """Overwrite in place: same inode, owner and mode."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


@contextmanager
def changed(path: Path, change: Callable[[bytes], bytes], block: Path | None = None) -> Iterator[None]:
    """A file with other bytes; `block` is the snapshot that it is in."""
    before = path.read_bytes()
    after = change(before)
    assert after != before
    with _in(block):
        _rewrite(path, after)
    try:
        yield
    finally:
        with _in(block):
            _rewrite(path, before)


@contextmanager
def renamed(path: Path, to: Path, block: Path | None = None) -> Iterator[None]:
    """A file or a whole block under another name."""
    with _in(block):
        path.rename(to)
    try:
        yield
    finally:
        with _in(block):
            to.rename(path)


@contextmanager
def swapped(one: Path, other: Path) -> Iterator[None]:
    """Two blocks under each other's names."""
    aside = one.with_name("aside")

    def swap() -> None:
        one.rename(aside)
        other.rename(one)
        aside.rename(other)

    swap()
    try:
        yield
    finally:
        swap()


@contextmanager
def _in(block: Path | None) -> Iterator[None]:
    if block is None:
        yield
        return
    with writable(block):
        yield


def flip(data: bytes, position: int = -2) -> bytes:
    """One bit of it is another."""
    position %= len(data)
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
