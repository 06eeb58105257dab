"""Tell the kernel that a committed document changed, where it may hold the old one.

It knows no documents, only keys of nodes. `changed` is for the trio thread and never waits; the notifications
are sent by `run` from a worker thread, because the kernel may make them wait for a request to be answered
that this daemon is answering.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pyfuse3
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from opfs.fuse.inodes import Inodes
    from opfs.vfs.node import NodeKey

log = logging.getLogger(__name__)


class Invalidator:
    """Queues inodes whose pages and attributes the kernel must drop; each at most once."""

    def __init__(self, inodes: Inodes, notify: Callable[[int], None] = pyfuse3.invalidate_inode) -> None:
        self._inodes = inodes
        self._notify = notify
        self._pending: set[int] = set()
        self._wake = trio.Event()

    def changed(self, key: NodeKey) -> None:
        """The file of `key` has other content or attributes than before."""
        number = self._inodes.number_of(key)
        if number is None:
            return
        policy = self._inodes.node(number).cache
        if policy.keep_pages or policy.attr_timeout_s > 0 or self._inodes.is_open(number):
            self._pending.add(number)
            self._wake.set()

    async def run(self) -> None:
        """Send the notifications until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            batch, self._pending = self._pending, set()
            await trio.to_thread.run_sync(self._notify_all, batch)

    def _notify_all(self, numbers: set[int]) -> None:
        for number in numbers:
            try:
                self._notify(number)
            except FileNotFoundError:
                pass  # the kernel forgot the inode in the meantime
            except OSError as error:
                log.info("the kernel took no notice of inode %d: %s", number, error)
