"""/events: one JSON line for every event, oldest first, as a log file that grows; /events@41 begins at number 41.

An event is in there as soon as it is in a block. Where blocks are made at intervals, /events@pending has those that
are durable and in no block yet, as they are when it is opened: the same lines, but for the name of the block, which is
null. Their numbers are final, so whoever has seen one knows it again in /events. No line of /events ever changes.

A line is the event as the chain holds it, and the name of its block before. Everybody sees the events of documents
that he might read when they happened: the stream is another for every user and set of groups, as is its inode.
It only grows, so positions stay: also over a restart of the daemon. At the end a read returns nothing, as in a file
on a disk, and poll(2) always says that it can be read; who follows looks again (`tail -f`, `opfs events --follow`).

Nothing is kept for a reader. For each user the position of every `STRETCH`th event is, from which a read finds its
lines; they come from the blocks, checked. Trio thread; the database and the blocks are read in worker threads.
"""

from __future__ import annotations

import json
import re
import stat
import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from opfs.core.event import event_line, pending_line
from opfs.errors import Busy, IntegrityError, NotFound, ReadOnly
from opfs.vfs.generated import GeneratedFile, is_writing
from opfs.vfs.node import Attributes, File, Handle
from opfs.vfs.permission import READ, may

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opfs.core.event import Event
    from opfs.core.names import BlockName
    from opfs.ports import FileAttributes, History
    from opfs.vfs.node import Caller, NodeKey
    from opfs.vfs.permission import Groups

EVENTS = "events"
PENDING_EVENTS = "events@pending"
STRETCH = 256
MAX_STREAMS = 256
MAX_KEPT_BYTES = 4 << 20
_SINCE = re.compile(r"events@(0|[1-9]\d{0,14})\Z", re.ASCII)


class Historian(Protocol):
    """Keeps the history up with the chain."""

    async def wait_current(self) -> None:
        """Return when every event committed before the call is in the history."""
        ...


class BlockLines:
    """The lines of blocks' events, with the newest read kept. Blocking; any thread."""

    def __init__(self, block_at: Callable[[int], BlockName], read_events: Callable[[BlockName], bytes]) -> None:
        self._block_at = block_at
        self._read_events = read_events
        self._kept: OrderedDict[int, tuple[int, Sequence[bytes], int]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def line(self, height: int, seq: int) -> bytes:
        """Raises IntegrityError or NotFound."""
        with self._lock:
            found = self._kept.get(height)
        if found is None:
            found = self._load(height)
        first, lines, _ = found
        if not first <= seq < first + len(lines):
            raise IntegrityError(f"block {height} has no event {seq}", hint="opfs verify names what was changed")
        return lines[seq - first]

    def _load(self, height: int) -> tuple[int, Sequence[bytes], int]:
        name = self._block_at(height)
        content = self._read_events(name)
        encoded = content.split(b"\n")[:-1]
        first = int(json.loads(encoded[0])["seq"]) if encoded else 0
        loaded = first, [event_line(name, event) for event in encoded], len(content)
        with self._lock:
            if height not in self._kept:
                self._kept[height] = loaded
                self._kept_bytes += len(content)
            while self._kept_bytes > MAX_KEPT_BYTES and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1][2]
        return loaded


class Stream:
    """What one user sees, as bytes with positions. Blocking; any thread."""

    def __init__(self, history: History, lines: BlockLines, uid: int, gids: frozenset[int]) -> None:
        self._history = history
        self._lines = lines
        self._reader = uid, gids
        self._lock = threading.Lock()
        self._numbers = array("q", [0])
        self._offsets = array("q", [0])
        """The stretches in which there is a line, and where the first of each begins."""
        self._end_seq = 0
        self._end = 0
        self._time_ns = 0
        self._begins: dict[int, int] = {}

    def grow(self) -> tuple[int, int]:
        """Take in what is new; returns the size in bytes and the time of the newest event, 0 where there is none."""
        with self._lock:
            count = self._history.indexed_count
            # a history that is being made again has fewer for a while: the stream stays as it was
            if count > self._end_seq:
                found = self._history.stretches(self._end_seq, count, *self._reader, length=STRETCH)
                for stretch in found:
                    if stretch.number > self._numbers[-1]:
                        self._numbers.append(stretch.number)
                        self._offsets.append(self._end)
                    self._end += stretch.size
                    self._time_ns = max(self._time_ns, stretch.time_ns)
                self._end_seq = count
            return self._end, self._time_ns

    def position_of(self, seq: int) -> int | None:
        """Where the first event from number `seq` on begins; None where the stream has not come that far."""
        if (known := self._begins.get(seq)) is not None:
            return known
        self.grow()
        with self._lock:
            if seq > self._end_seq:
                return None
            self._require_whole()
            place = bisect_right(self._numbers, seq // STRETCH) - 1
            first, offset = self._numbers[place] * STRETCH, self._offsets[place]
        offset += sum(line.size for line in self._history.lines(first, seq, *self._reader))
        if len(self._begins) >= MAX_STREAMS:
            self._begins.clear()
        self._begins[seq] = offset
        return offset

    def read(self, offset: int, size: int) -> bytes:
        """The bytes at `offset`, fewer than `size` only at the end."""
        end, _ = self.grow()
        with self._lock:
            place = bisect_right(self._offsets, offset) - 1
            numbers, position = self._numbers[place:], self._offsets[place]
            end_seq = self._end_seq
            self._require_whole()
        wanted = min(offset + size, end)
        found = []
        for number in numbers:
            if position >= wanted:
                break
            first = number * STRETCH
            for line in self._history.lines(first, min(first + STRETCH, end_seq), *self._reader):
                start, position = position, position + line.size
                if position <= offset or start >= wanted:
                    continue
                text = self._lines.line(line.height, line.seq)
                if len(text) != line.size:
                    raise IntegrityError(f"event {line.seq} is not as long as the history has it")
                found.append(text[max(0, offset - start) : wanted - start])
        return b"".join(found)

    def _require_whole(self) -> None:
        if self._history.indexed_count < self._end_seq:
            raise Busy("the history is being made again from the blocks", hint="try again in a moment")


@dataclass(frozen=True, slots=True)
class Spot:
    """A stream from one event on."""

    stream: Stream
    since: int

    def status(self) -> tuple[int, int]:
        size, time_ns = self.stream.grow()
        begin = self.stream.position_of(self.since) if self.since else 0
        return (0 if begin is None else size - begin), time_ns

    def read(self, offset: int, size: int) -> bytes:
        begin = self.stream.position_of(self.since) if self.since else 0
        return b"" if begin is None else self.stream.read(begin + offset, size)


class Streams:
    """The names /events, /events@N and /events@pending, and the streams of everybody who reads them. Trio thread.

    `pending` gives the events that are in no block yet, oldest first, and whose document each tells of; None where
    every event has its block at once, so that there is nothing to list.
    """

    def __init__(
        self,
        history: History,
        historian: Historian,
        lines: BlockLines,
        groups: Groups,
        time_ns: int,
        pending: Callable[[], Sequence[tuple[Event, FileAttributes]]] | None = None,
    ) -> None:
        self._pending = pending
        self._history = history
        self._lines = lines
        self._groups = groups
        self._streams: OrderedDict[tuple[int, frozenset[int]], Stream] = OrderedDict()
        self.historian = historian
        self.time_ns = time_ns
        """Shown for a stream without events."""

    @property
    def listed(self) -> Sequence[str]:
        return (EVENTS,) if self._pending is None else (EVENTS, PENDING_EVENTS)

    def find(self, name: str, caller: Caller) -> File | None:
        """The caller's file of that name, None for any other name; raises NotFound for a number that is none."""
        if name == PENDING_EVENTS:
            return GeneratedFile((name,), self._tell_pending, time_ns=self.time_ns)
        match = _SINCE.match(name)
        if name != EVENTS and match is None:
            if name.startswith(f"{EVENTS}@"):
                raise NotFound(f"{name} is not {EVENTS}@ and the number of an event", hint="e.g. events@41")
            return None
        since = int(match[1]) if match else 0
        uid, gids = self._identity(caller)
        return EventsFile((name, f"uid {uid}, groups {' '.join(map(str, sorted(gids)))}"), self, since)

    async def _tell_pending(self, caller: Caller) -> bytes:
        """Everything that is not in /events by now: what is in a block is there before this answers."""
        await self.historian.wait_current()
        told = self._pending() if self._pending is not None else ()
        return b"".join(pending_line(event.encode()) for event, file in told if may(caller, READ, file, self._groups))

    def spot(self, caller: Caller, since: int) -> Spot:
        identity = self._identity(caller)
        stream = self._streams.get(identity)
        if stream is None:
            stream = self._streams[identity] = Stream(self._history, self._lines, *identity)
            if len(self._streams) > MAX_STREAMS:
                self._streams.popitem(last=False)
        self._streams.move_to_end(identity)
        return Spot(stream, since)

    def _identity(self, caller: Caller) -> tuple[int, frozenset[int]]:
        """Root sees everything, whatever groups a process of his has."""
        return (0, frozenset()) if caller.uid == 0 else (caller.uid, frozenset(self._groups(caller)))


@dataclass(slots=True)
class EventsFile(File):
    """One user's stream from one event on."""

    streams: Streams
    since: int

    @property
    def shown(self) -> NodeKey:
        return self.key[:1]

    async def attributes(self, caller: Caller) -> Attributes:
        size, time_ns = await trio.to_thread.run_sync(self.streams.spot(caller, self.since).status)
        newest_ns = time_ns or self.streams.time_ns
        return Attributes(
            mode=stat.S_IFREG | 0o444, size=size, atime_ns=newest_ns, mtime_ns=newest_ns, ctime_ns=newest_ns
        )

    async def open(self, flags: int, caller: Caller) -> Handle:
        """What was committed before is there."""
        if is_writing(flags):
            raise ReadOnly("events are only read")
        await self.streams.historian.wait_current()
        return EventsHandle(self.streams.spot(caller, self.since), direct_io=True)


@dataclass(slots=True, eq=False)
class EventsHandle(Handle):
    """An open stream, of whoever opened it."""

    spot: Spot

    async def read(self, offset: int, size: int) -> bytes:
        return await trio.to_thread.run_sync(self.spot.read, offset, size)
