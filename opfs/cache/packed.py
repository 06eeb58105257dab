"""A packed file with a hash index: bytes by key, in append-only segments, bounded in size.

What is asked for again survives: when the size is reached, the oldest segment goes, and of its records those that were
read since they came into it move to the newest, as many as half a segment holds (the second chance of a clock). The
outcome depends on the order of the calls alone. Nothing here ever raises for what the disk does: what cannot be read
was never there, what cannot be written is not kept. After a crash an older record may be found under a key, so a key
has to say all that its value depends on.

Concurrency: thread-safe. `get` takes no lock; `put`, `clear` and `check` take one.
"""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from opfs.cache.segment import ENTRY_BYTES, HEADER_BYTES, MAGIC, Record, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEGMENTS = 8
"""How many segments the whole size is cut into: what is dropped at once is an eighth."""
_MAX_COST_US = (1 << 32) - 1
_NAME = re.compile(r"[0-9]{8}\.(pack|index)\Z")


@dataclass(slots=True)
class Counts:
    """What happened since the start. Under several threads a count may miss a few."""

    hits: int = 0
    misses: int = 0
    puts: int = 0
    evictions: int = 0
    """Records that made room for others."""
    damaged: int = 0
    """Records that were not what was put, or could not be read: misses, each counted as one too."""
    refused: int = 0
    """Records that were not kept: too large, no room, or the disk failed."""
    saved_us: int = 0
    """What the hits would have taken to work out."""


class PackedFile:
    """Records below `directory`, at most `max_bytes` on disk; 0 keeps nothing."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Take up what is there; what is not readable is removed."""
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = max_bytes // SEGMENTS
        self._lock = threading.Lock()
        self.counts = Counts()
        self.epoch = 0
        """How often everything was forgotten: what was worked out before must not be put after."""
        self.is_paused = False
        """Whether nothing is kept for now, because the disk has no room."""
        self._segments: tuple[Segment, ...] = tuple(self._load()) if max_bytes else ()
        """Newest first; replaced as a whole, so that a reader sees one or the other."""
        with self._lock:
            self._make_room(0)

    # --- using -----------------------------------------------------------------------------------------

    def get(self, key: bytes) -> Record | None:
        """What was put under these 32 bytes, if it is still there and unharmed."""
        for segment in self._segments:
            place = segment.places.get(key)
            if place is None:
                continue
            try:
                record = segment.read(key, place)
            except OSError:
                record = None
            if record is None:
                segment.places.pop(key, None)
                self.counts.damaged += 1
                break
            segment.used.add(key)
            self.counts.hits += 1
            self.counts.saved_us += record.cost_us
            return record
        if self._max_bytes:
            self.counts.misses += 1
        return None

    def put(self, key: bytes, payload: bytes | memoryview, cost_us: int = 0, *, epoch: int | None = None) -> bool:
        """Keep bytes under a key, in place of what was there; False where they are not kept.

        With `epoch`, only if nothing was forgotten since that was the epoch.
        """
        cost_us = max(0, min(cost_us, _MAX_COST_US))
        with self._lock:
            is_wanted = not self.is_paused and epoch in (None, self.epoch) and self._fits(len(payload))
            kept = is_wanted and self._append(key, payload, cost_us)
        if kept:
            self.counts.puts += 1
        elif self._max_bytes:
            self.counts.refused += 1
        return kept

    def clear(self) -> None:
        """Forget everything; the files are gone on return, though not their bytes from the device."""
        with self._lock:
            self._forget()

    def close(self) -> None:
        """Let go of the files; what is asked for afterwards is not there."""
        with self._lock:
            self._segments = ()
            self._max_bytes = 0

    # --- looking ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return sum(len(segment.places) for segment in self._segments)

    @property
    def disk_bytes(self) -> int:
        return sum(segment.disk_bytes for segment in self._segments)

    @property
    def max_bytes(self) -> int:
        return self._max_bytes

    def stats(self) -> dict[str, int]:
        return {"entries": len(self), "bytes": self.disk_bytes, "max_bytes": self._max_bytes, **asdict(self.counts)}

    def check(self) -> tuple[int, int]:
        """Read every record: how many are well, and how many were not and are forgotten now."""
        well = damaged = 0
        for segment in self._segments:
            for key, place in list(segment.places.items()):
                try:
                    is_well = segment.read(key, place) is not None
                except OSError:
                    is_well = False
                well += is_well
                if not is_well:
                    segment.places.pop(key, None)
                    damaged += 1
        return well, damaged

    def look_again(self) -> bool:
        """Begin anew where somebody removed files under us, so that their room is free; whether that was so."""
        with self._lock:
            if all(segment.is_linked for segment in self._segments):
                return False
            self._forget()
            return True

    # --- the segments; the lock is held ----------------------------------------------------------------

    def _fits(self, length: int) -> bool:
        return HEADER_BYTES + length + ENTRY_BYTES + len(MAGIC) <= self._segment_bytes

    def _append(self, key: bytes, payload: bytes | memoryview, cost_us: int) -> bool:
        needed = HEADER_BYTES + len(payload) + ENTRY_BYTES
        try:
            if self._segments and not self._segments[0].is_linked:
                self._forget()
            self._make_room(needed)
            if not self._segments or self._segments[0].disk_bytes + needed > self._segment_bytes:
                self._begin_segment()
                self._make_room(needed)
            segment = self._segments[0]
            segment.append(key, payload, cost_us)
        except OSError:
            return False
        segment.used.discard(key)
        for older in self._segments[1:]:
            older.places.pop(key, None)
        return True

    def _begin_segment(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = self._segments[0].number + 1 if self._segments else 1
        self._segments = (Segment(self._directory, number, create=True), *self._segments)

    def _make_room(self, needed: int) -> None:
        while self._segments and self.disk_bytes + needed > self._max_bytes:
            *kept, oldest = self._segments
            survivors = list(_survivors(oldest, self._segment_bytes // 2)) if kept else []
            self._segments = tuple(kept)
            oldest.unlink()
            self.counts.evictions += len(oldest.places) - len(survivors)
            for key, record in survivors:
                if not self._move(key, record):
                    self.counts.evictions += 1

    def _move(self, key: bytes, record: Record) -> bool:
        """Into the newest segment, whose size this may exceed by half a segment; the sum stays below the limit."""
        try:
            self._segments[0].append(key, record.payload, record.cost_us)
        except OSError:
            return False
        return True

    def _forget(self) -> None:
        self.epoch += 1
        for segment in self._segments:
            segment.unlink()
        self._segments = ()
        _sweep(self._directory, frozenset())

    def _load(self) -> Iterator[Segment]:
        """The segments that can be read, newest first, of each key the newest record; all else is swept away."""
        found: list[Segment] = []
        seen: set[bytes] = set()
        for number in sorted(_numbers(self._directory), reverse=True):
            try:
                segment = Segment(self._directory, number, create=False)
            except OSError:
                continue
            for key in segment.places.keys() & seen:
                del segment.places[key]
            seen.update(segment.places)
            found.append(segment)
        _sweep(self._directory, frozenset(segment.number for segment in found))
        return iter(found)


def _survivors(segment: Segment, budget: int) -> Iterator[tuple[bytes, Record]]:
    """The records that were used, in the order in which they came, as far as the budget goes."""
    used = segment.used.copy()
    for key, place in list(segment.places.items()):
        if key not in used:
            continue
        try:
            record = segment.read(key, place)
        except OSError:
            continue
        if record is None:
            continue
        budget -= HEADER_BYTES + ENTRY_BYTES + len(record.payload)
        if budget < 0:
            return
        yield key, record


def _numbers(directory: Path) -> set[int]:
    return {int(name[:8]) for name in _names(directory) if name.endswith(".index")}


def _names(directory: Path) -> list[str]:
    """Of the files of segments; whatever else lies there is none of ours."""
    try:
        return [name for name in os.listdir(directory) if _NAME.match(name)]
    except OSError:
        return []


def _sweep(directory: Path, numbers: frozenset[int]) -> None:
    """Remove the files of all segments but these."""
    for name in _names(directory):
        if int(name[:8]) not in numbers:
            with suppress(OSError):
                os.unlink(directory / name)
