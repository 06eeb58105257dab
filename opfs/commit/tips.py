"""The last event of every element that ever was: derived from the chain, kept so that a start is instant.

A file of checksummed lines, appended without fsync: what a crash tears off is read again from the blocks,
because `next_seq` says up to which event the file is complete. Not the truth; deleting it costs one slow
start. Used by the sequencer only; `extend` keeps its lines until `flush`, which writes and so may block.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

from opfs.core.names import ElementId

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


log = logging.getLogger(__name__)

COMPACT_ABOVE_LINES = 10_000


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of one element's own chain: its last event's seq and hash (hex), block, actor's user name."""

    seq: int
    event: str
    height: int
    author: str


class Tips:
    """Tips by element, in memory and in `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tips: dict[ElementId, Tip] = {}
        self._unwritten: list[tuple[ElementId, Tip]] = []
        self._is_broken = False
        self.next_seq = 0
        """Every event with a lower seq has been taken in."""
        self._load()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

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

        A failure fails nobody: the file ends there, because a gap in it could not be told from a compacted
        part, and the next start reads the rest out of the blocks.
        """
        tips, self._unwritten = self._unwritten, []
        if self._is_broken:
            return
        # After this line: the tips are in the page cache; a crash here or before loses lines at the end of the
        # file; repaired by load_chain, which reads the events from next_seq on out of the blocks.
        data = b"".join(_line(id, tip) for id, tip in tips)
        try:
            self._is_broken = os.write(self._file, data) < len(data)
        except OSError as error:
            log.warning("the tips are not written any more: %s", error)
            self._is_broken = True

    def clear(self) -> None:
        """Forget everything, so that it can be read again from the chain."""
        os.ftruncate(self._file, 0)
        self._tips.clear()
        self._unwritten.clear()
        self.next_seq = 0

    def close(self) -> None:
        self.flush()
        os.close(self._file)

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
        # After this line: two files; a crash here leaves the old one in place; the next start writes anew.
        temporary.replace(self._path)


def _line(id: ElementId, tip: Tip) -> bytes:
    body = json.dumps([tip.seq, id.plugin, id.element, tip.event, tip.height, tip.author]).encode()
    return b"%08x %s\n" % (crc32(body), body)


def _parse(line: bytes) -> tuple[ElementId, Tip] | None:
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % crc32(body):
        return None
    seq, plugin, element, event, height, author = json.loads(body)
    return ElementId(plugin, element), Tip(seq, event, height, author)
