"""Ballast: a file that only takes up room, so that there is some to give back when the pool is full of data.

btrfs keeps a reserve for metadata by itself and none for data, and without room for data not even a short file can
be written, so that a delete could not be journaled. What is given back is free once the transaction is committed.

Concurrency: one thread at a time. Blocking.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from opfs.btrfs import ioctl

if TYPE_CHECKING:
    from pathlib import Path

SIZE_BYTES = 8 << 20
"""A hundred deletes of the largest documents, or thousands of ordinary ones, journaled with what they delete."""


class Ballast:
    """The file at `path`; its content is never looked at. Methods raise nothing: they say whether they did it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def is_filled(self) -> bool:
        """Whether the room is taken, perhaps by an earlier run."""
        with suppress(OSError):
            return os.stat(self._path, follow_symlinks=False).st_size >= SIZE_BYTES
        return False

    def fill(self) -> bool:
        """Take the room; False where there is not enough of it."""
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, SIZE_BYTES)
            except OSError:
                os.ftruncate(descriptor, 0)
                return False
            finally:
                os.close(descriptor)
            return True
        return False

    def drop(self) -> bool:
        """Give the room back, free for use on return; False where there was none to give."""
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_size == 0:
                    return False
                os.ftruncate(descriptor, 0)
                ioctl.sync_filesystem(descriptor)
            finally:
                os.close(descriptor)
            return True
        return False
