"""The reserve: the last of the pool's room is kept for deletes and for what opfs itself records.

Whoever stores something new asks first: a document, a draft, a refused document. Below a mark the answer is NoSpace,
long before the file system says it, while deletes, failures, drift and recovery go on. Where others filled the file
system to its last byte, ballast is dropped once, which makes room for more deletes; it is taken up again when there
is room. Nothing here is durable, and after a restart everything is measured anew.

The kernel counts what is written only when it writes it back, so what was asked for since is added up here, and the
file system is synced before anybody is refused because of it. Trio thread; what may block goes to a worker thread.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from opfs.errors import NoSpace

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

SYNC_PAUSE_S = 1.0
"""So often at most the file system is synced for writers who are refused, to see whether there is room again."""

_NEARLY_BYTES = 64 << 10
_AFTER_REFUSAL_BYTES = 16 << 20
"""What the kernel counts as free goes up and down by about so much while it writes back."""


class Room(Protocol):
    """What a file system has left, in bytes; each kind counts the unallocated rest for itself."""

    @property
    def total_bytes(self) -> int: ...
    @property
    def free_data_bytes(self) -> int: ...
    @property
    def free_metadata_bytes(self) -> int: ...


class Ballast(Protocol):
    """Room that is taken and can be given back; the methods block and say whether they did it."""

    @property
    def is_filled(self) -> bool: ...
    def fill(self) -> bool: ...
    def drop(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Marks:
    """What is kept of each kind, in bytes.

    btrfs refuses new files with about 11 MiB of metadata left where nodes have 16 KiB, and a delete takes up to a
    quarter of a MiB, so that 24 MiB are good for dozens of deletes. Of data more than the ballast is kept, so that
    what dropping it gives back is for deletes alone.
    """

    data_bytes: int
    metadata_bytes: int

    @classmethod
    def of(cls, total_bytes: int) -> Marks:
        share = total_bytes // 64
        return cls(min(max(share, 16 << 20), 256 << 20), min(max(share, 24 << 20), 256 << 20))


class Reserve:
    """Guards the last room of one pool."""

    def __init__(self, measure: Callable[[], Room], sync: Callable[[], None], ballast: Ballast) -> None:
        self._measure = measure
        self._sync = sync
        self._ballast = ballast
        self._has_ballast = False
        self._has_refused = False
        self._asked_bytes = 0
        self._synced_s = -SYNC_PAUSE_S
        self._turn = trio.Lock()

    @property
    def is_reached(self) -> bool:
        """Whether only the reserve is left, or so little more that hardly a document goes in."""
        return not self._leaves(_NEARLY_BYTES, margin_bytes=_AFTER_REFUSAL_BYTES if self._has_refused else 0)

    def prepare(self) -> None:
        """Take up the ballast, where there is room for it; blocking, at start."""
        self._has_ballast = self._ballast.is_filled or (not self.is_reached and self._ballast.fill())

    async def require_room(self, size_bytes: int = 0) -> None:
        """Return when so many bytes more still leave the reserve; raises NoSpace."""
        if self._leaves(self._asked_bytes + size_bytes):
            self._admit(size_bytes)
            return
        async with self._turn:
            if self._asked_bytes or trio.current_time() >= self._synced_s + SYNC_PAUSE_S:
                await trio.to_thread.run_sync(self._sync)
                self._asked_bytes = 0
                self._synced_s = trio.current_time()
        if not self._leaves(size_bytes):
            self._has_refused = True
            raise NoSpace(
                "the pool is full: what is left is kept for deletes",
                hint="delete documents or drafts that are not needed, or make the pool larger",
            )
        self._admit(size_bytes)

    def _admit(self, size_bytes: int) -> None:
        self._has_refused = False
        self._asked_bytes += size_bytes

    async def give_way(self) -> bool:
        """Make room for a delete that met a full file system; False where there is nothing left to give."""
        async with self._turn:
            if not self._has_ballast:
                return False
            log.warning("the pool is full to its last byte: the ballast is dropped")
            self._has_ballast = False
            return await trio.to_thread.run_sync(self._ballast.drop)

    async def restore(self) -> None:
        """Take up ballast that was dropped, once there is room for it and the reserve."""
        if not self._has_ballast and self._leaves(BALLAST_BYTES):
            async with self._turn:
                self._has_ballast = await trio.to_thread.run_sync(self._ballast.fill)

    def _leaves(self, size_bytes: int, *, margin_bytes: int = 0) -> bool:
        """Whether so much data still leaves the reserve, and the margin of either kind."""
        room = self._measure()
        marks = Marks.of(room.total_bytes)
        return (
            room.free_data_bytes - size_bytes >= marks.data_bytes + margin_bytes
            and room.free_metadata_bytes >= marks.metadata_bytes + margin_bytes
        )


BALLAST_BYTES = 16 << 20
"""Twice what the ballast takes, so that taking it up does not reach the reserve."""
