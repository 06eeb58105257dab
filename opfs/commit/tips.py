"""The last event of every element that ever was: derived from the chain, kept so that a start is instant.

A file of checksummed lines, appended without fsync: what a crash tears off is read again from the blocks,
because `next_seq` says up to which event the file is complete. Not the truth; deleting it costs one slow
start. Used by the sequencer only; `extend` keeps its lines until `flush`, which writes and so may block.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

from opfs.core.names import ElementId
from opfs.core.standing import DOCUMENT_OPS, IN_FORCE, Kind, Standing, standing_after

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from opfs.core.event import Event

log = logging.getLogger(__name__)

COMPACT_ABOVE_LINES = 10_000


@dataclass(frozen=True, slots=True)
class Version:
    """The event that gave an element its document: hash (hex), height of its block, user name of its actor."""

    event: str
    height: int
    author: str


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of one element's own chain: its last event's seq and hash (hex), block, actor's user name.

    `before` is the version of the document where the last event left the document as it was.
    """

    seq: int
    event: str
    height: int
    author: str
    standing: Standing = IN_FORCE
    before: Version | None = None

    @property
    def version(self) -> Version:
        return self.before or Version(self.event, self.height, self.author)


def tip_after(before: Tip | None, event: Event, height: int) -> Tip:
    """The tip once `event`, in the block of that height, follows `before`."""
    standing = standing_after(before.standing if before else None, event)
    kept = None if before is None or event.op in DOCUMENT_OPS else before.version
    return Tip(event.seq, event.hash, height, str(event.actor.get("user", "")), standing, kept)


class Tips:
    """Tips by element, in memory and in `path`."""

    def __init__(self, path: Path) -> None:
        """Read what the file has; a file that cannot be read or written is as good as none."""
        self._path = path
        self._tips: dict[ElementId, Tip] = {}
        self._unwritten: list[tuple[ElementId, Tip]] = []
        self._file: int | None = None
        self._size_bytes = 0
        self.next_seq = 0
        """Every event with a lower seq has been taken in."""
        try:
            self._load()
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._size_bytes = os.fstat(self._file).st_size
        except OSError as error:
            self._give_up(error)

    def get(self, id: ElementId) -> Tip | None:
        return self._tips.get(id)

    def extend(self, tips: Iterable[tuple[ElementId, Tip]]) -> None:
        """Take in the events of one block, in order of seq and following `next_seq` without a gap."""
        for id, tip in tips:
            if tip.seq != self.next_seq:
                raise ValueError(f"event {tip.seq} does not follow event {self.next_seq - 1}")
            self._tips[id] = tip
            self._unwritten.append((id, tip))
            self.next_seq += 1

    def flush(self) -> None:
        """Write what was taken in since the last flush.

        A failure fails nobody. On a full disk the next flush tries again; after any other error the file ends where
        it does, because a gap in it could not be told from a compacted part, and the next start reads the rest out
        of the blocks.
        """
        if self._file is None:
            self._unwritten.clear()
        if self._file is None or not self._unwritten:
            return
        data = b"".join(_line(id, tip) for id, tip in self._unwritten)
        try:
            if os.write(self._file, data) < len(data):
                os.ftruncate(self._file, self._size_bytes)
                return
            self._size_bytes += len(data)
            self._unwritten.clear()
            # After this line: the tips are in the page cache; a crash here loses lines at the end of the file;
            # repaired by load_chain, which reads the events from next_seq on out of the blocks.
        except OSError as error:
            if error.errno != errno.ENOSPC:
                self._give_up(error)

    def clear(self) -> None:
        """Forget everything, so that it can be read again from the chain."""
        self._tips.clear()
        self._unwritten.clear()
        self.next_seq = 0
        if self._file is not None:
            try:
                os.ftruncate(self._file, 0)
                self._size_bytes = 0
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            os.close(self._file)

    def _give_up(self, error: OSError) -> None:
        log.warning("the tips are not written any more: %s", error)
        self._unwritten.clear()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _load(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        good_bytes = line_count = 0
        for line in data.splitlines(keepends=True):
            record = _parse(line)
            if record is None or record[1].seq < self.next_seq:
                break
            id, tip = record
            self._tips[id] = tip
            self.next_seq = tip.seq + 1
            line_count += 1
            good_bytes += len(line)
        if good_bytes < len(data):
            os.truncate(self._path, good_bytes)
        if line_count > 2 * len(self._tips) + COMPACT_ABOVE_LINES:
            self._compact()

    def _compact(self) -> None:
        """Drop the lines of events that later ones of their element have replaced.

        The newest event of all is its element's tip, so the last line still tells `next_seq`.
        """
        lines = [_line(id, tip) for id, tip in sorted(self._tips.items(), key=lambda item: item[1].seq)]
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(b"".join(lines))
        # After this line: two files; a crash here leaves the old one in force; repaired by the next start, which
        # compacts anew.
        temporary.replace(self._path)


def _line(id: ElementId, tip: Tip) -> bytes:
    fields: list[object] = [tip.seq, id.plugin, id.element, tip.event, tip.height, tip.author]
    if tip.before is not None or tip.standing != IN_FORCE:
        fields.append([tip.standing.kind, tip.standing.detail])
        fields.append(tip.before and [tip.before.event, tip.before.height, tip.before.author])
    body = json.dumps(fields).encode()
    return b"%08x %s\n" % (crc32(body), body)


def _parse(line: bytes) -> tuple[ElementId, Tip] | None:
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % crc32(body):
        return None
    seq, plugin, element, event, height, author, *rest = json.loads(body)
    if not rest:
        return ElementId(plugin, element), Tip(seq, event, height, author)
    (kind, detail), before = rest
    standing = Standing(Kind(kind), detail)
    return ElementId(plugin, element), Tip(seq, event, height, author, standing, before and Version(*before))
