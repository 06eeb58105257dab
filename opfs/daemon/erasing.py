"""The command that erases a version, and the corners of the pool that no block is in.

Wires, and knows where else in the pool a document may lie: drafts, rejected documents, what a plugin keeps, databases
that were set aside. `PoolRemains` blocks; everything else is for the trio thread.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from opfs.commit.erasure import Eraser
from opfs.core.canonical import hash_bytes
from opfs.core.erasure import parse_version
from opfs.errors import AccessDenied, InvalidRequest, OpfsError, PoolError
from opfs.fuse.caller import identify
from opfs.vfs.ctl import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opfs.btrfs.pool import Pool
    from opfs.btrfs.store import BtrfsSnapshotStore
    from opfs.core.event import Event
    from opfs.core.names import BlockName
    from opfs.daemon.parts import Parts
    from opfs.vfs.node import Caller

log = logging.getLogger(__name__)

MARK = "erasing"
"""The file in @log that is there while something is being erased."""
_LARGEST_BYTES = 64 << 20
"""No document is larger."""
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class PoolRemains:
    """`opfs.commit.erasure.Remains` of a pool."""

    def __init__(self, pool: Pool, snapshots: BtrfsSnapshotStore, forget: Callable[[], None]) -> None:
        """`forget` empties the cache, removes its snapshots, and makes whoever quotes documents forget; for good."""
        self._forget = forget
        self._mark = pool.subvolume("@log") / MARK
        self._drafts, self._index = pool.subvolume("@drafts"), pool.subvolume("@index")
        self._snapshots = snapshots

    def mark(self) -> None:
        try:
            self._mark.touch(mode=0o600)
            self._snapshots.sync()
        except OSError as error:
            raise PoolError(f"{self._mark} cannot be made: {error.strerror}") from error

    def is_marked(self) -> bool:
        return self._mark.exists()

    def unmark(self) -> None:
        self._mark.unlink(missing_ok=True)

    def remove_copies(self, content: bytes) -> None:
        for path in _files(self._drafts):
            if _hash_of(path) == content:
                path.unlink(missing_ok=True)
        for path in self._index.glob("*.damaged*"):
            path.unlink(missing_ok=True)
        self._forget()

    def trim(self) -> str:
        # once more: answers may have been kept until the index was made again
        self._forget()
        try:
            self._snapshots.trim()
        except OpfsError as error:
            log.warning("what was erased is freed, not overwritten: %s", error)
            return f"the bytes are freed, and stay on the device until it uses their place again: {error}"
        return ""


def make_eraser(
    parts: Parts,
    block_at: Callable[[int], BlockName],
    events_of: Callable[[int], Sequence[Event]],
    alone: trio.Lock,
) -> Eraser:
    """The eraser of one pool."""

    def forget() -> None:
        parts.caretaker.forget()
        trio.from_thread.run_sync(parts.refusals.forget_seen)

    return Eraser(
        parts.store,
        parts.sequencer,
        parts.history,
        parts.historian,
        parts.meaning,
        parts.journal,
        PoolRemains(parts.pool, parts.snapshots, forget),
        block_at,
        events_of,
        alone,
    )


def make_erase(eraser: Eraser) -> Command:
    """`erase`: a version, and why."""

    async def run(words: Sequence[str], caller: Caller) -> str:
        if not words:
            raise InvalidRequest("erase takes a version", hint="write: erase lxc/100@41 why")
        if caller.uid != 0:
            raise AccessDenied("only root may erase")
        id, height = parse_version(words[0])
        left = await eraser.erase(id, height, identify(caller), " ".join(words[1:]))
        return f"{left}\n" if left else ""

    return Command("erase", "erase lxc/100@41", "destroy what block 41 made of an element, everywhere", run)


def _files(directory: Path) -> Iterator[Path]:
    for top, _, names in os.walk(directory):
        for name in names:
            yield Path(top, name)


def _hash_of(path: Path) -> bytes | None:
    """None of what is no file, or is too large to be a document."""
    try:
        with os.fdopen(os.open(path, _OPEN_FILE), "rb") as file:
            return hash_bytes(file.read()) if os.fstat(file.fileno()).st_size <= _LARGEST_BYTES else None
    except OSError:
        return None
