"""Ask the kernel to forget names that nobody will ask for again: queries, and moments as people write them.

Any name below /search is one, so there are as many as anybody cares to think of. The kernel keeps each that it has
seen, also those it must ask for anew every time, until its memory is short; and what it keeps this daemon has to know.
So beyond `MAX_FLEETING` of them those looked up longest ago are taken out of the kernel, which then forgets them here
(FUSE_NOTIFY_INVAL_ENTRY; fs/fuse/dir.c, fuse_reverse_inval_entry). What is open stays, and so does a directory in which
something was looked up lately.

The notifications are sent from a worker thread: each waits for the look-ups that are under way in its directory, and
these are answered by the trio thread.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pyfuse3
import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opfs.fuse.inodes import Inodes

log = logging.getLogger(__name__)


class Crowd:
    """Keeps the number of fleeting inodes bounded while `run` is running."""

    def __init__(self, inodes: Inodes, forget: Callable[[int, bytes], None] = pyfuse3.invalidate_entry) -> None:
        self._inodes = inodes
        self._forget = forget
        self._wake = trio.Event()
        inodes.on_crowd = self._crowded

    def _crowded(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Send the notifications until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await trio.to_thread.run_sync(self._forget_all, self._inodes.take_surplus())

    def _forget_all(self, entries: Sequence[tuple[int, bytes]]) -> None:
        for parent, name in entries:
            try:
                self._forget(parent, name)
            except FileNotFoundError:
                pass  # the kernel forgot it in the meantime
            except OSError as error:
                log.info("the kernel keeps %r: %s", name, error)
