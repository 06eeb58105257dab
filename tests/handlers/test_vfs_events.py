"""The stream of events against the same lines simply joined, for readers of every kind and at any position."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.commit.pending import NOBODYS
from opfs.core.event import Event, decode_events, encode_events, event_line
from opfs.core.names import BlockName, ElementId
from opfs.errors import Busy, IntegrityError, NotFound
from opfs.ports import FileAttributes, RecordedEvent
from opfs.testing.history import MemoryHistory
from opfs.vfs.events import STRETCH, BlockLines, Stream, Streams
from opfs.vfs.node import Caller

IDS = [ElementId("noop", name) for name in ("a", "b", "c")]
READERS = [(0, frozenset()), (1000, frozenset({1000, 7})), (1001, frozenset({1001}))]


class Chain:
    """Blocks of `per_block` events each; every third event is of a document for everybody, its owner or its group."""

    def __init__(self, count: int, per_block: int) -> None:
        self.history, self.count, self.reads = MemoryHistory(), 0, 0
        self.per_block = per_block
        self.blocks: dict[int, list[bytes]] = {}
        self.grow(count)

    def grow(self, count: int) -> None:
        for seq in range(self.count, self.count + count):
            id, height = IDS[seq % 3], seq // self.per_block
            event = Event(seq, id, "update", None, None, "2026-11-03T00:00:00.000000000Z", {}, "x" * (seq * 7 % 90))
            encoded = event.encode()
            self.blocks.setdefault(height, []).append(encoded)
            attributes = FileAttributes((0o644, 0o600, 0o640)[seq % 3], 1000, 7, 0)
            size = len(event_line(self.name(height), encoded))
            record = RecordedEvent(
                seq, height, id, "update", None, 10 + seq, 0, "", "", attributes, event.hash, line_size=size
            )
            self.history.append([record])
        self.count += count

    def name(self, height: int) -> BlockName:
        return BlockName(height, "0123456789ab")

    def read_events(self, name: BlockName) -> bytes:
        self.reads += 1
        return encode_events(tuple(Event.decode(line) for line in self.blocks[name.height]))

    def expected(self, uid: int, gids: frozenset[int], since: int = 0) -> bytes:
        lines = self.history.lines(since, self.count, uid, gids)
        every = [event_line(self.name(h), line) for h in sorted(self.blocks) for line in self.blocks[h]]
        return b"".join(every[line.seq] for line in lines)

    def stream(self, uid: int, gids: frozenset[int]) -> Stream:
        return Stream(self.history, BlockLines(self.name, self.read_events), uid, gids)


def read_all(stream: Stream, size: int) -> bytes:
    found = b""
    while data := stream.read(len(found), size):
        found += data
    return found


@pytest.mark.parametrize("reader", READERS)
def test_what_is_read_in_pieces_is_every_line_that_the_reader_may_see(reader):
    chain = Chain(3 * STRETCH + 5, per_block=7)
    expected = chain.expected(*reader)
    assert read_all(chain.stream(*reader), 10_000) == expected
    assert chain.stream(*reader).grow() == (len(expected), chain.count + 9 if reader[0] != 1001 else 10 + 771)


@given(st.integers(0, 120_000), st.integers(1, 3000), st.sampled_from(READERS), st.integers(1, 300))
def test_any_piece_is_where_it_belongs(offset, size, reader, step):
    chain = Chain(STRETCH - 3, per_block=5)
    stream = chain.stream(*reader)
    stream.grow()
    chain.grow(step)
    assert stream.read(offset, size) == chain.expected(*reader)[offset : offset + size]


@given(st.integers(0, 2 * STRETCH + 3), st.sampled_from(READERS))
def test_a_stream_begins_at_any_event(since, reader):
    chain = Chain(2 * STRETCH, per_block=11)
    position = chain.stream(*reader).position_of(since)
    if since > chain.count:
        assert position is None
    else:
        assert chain.expected(*reader)[position:] == chain.expected(*reader, since)


def test_events_that_come_are_at_the_end_and_blocks_are_read_once():
    chain = Chain(40, per_block=10)
    stream = chain.stream(*READERS[0])
    before = read_all(stream, 500)
    assert chain.reads == 4
    chain.grow(10)
    assert stream.read(len(before), 100_000) == chain.expected(*READERS[0])[len(before) :]
    assert chain.reads == 5


def test_a_history_that_is_being_made_again_is_not_the_end():
    chain = Chain(40, per_block=10)
    stream = chain.stream(*READERS[0])
    size, _ = stream.grow()
    chain.history.clear()
    assert stream.grow()[0] == size
    with pytest.raises(Busy, match="made again"):
        stream.read(0, 100)
    with pytest.raises(Busy, match="made again"):
        stream.position_of(3)


def test_a_line_of_another_length_than_the_history_has_is_refused():
    chain = Chain(4, per_block=2)
    chain.blocks[1] = [line.replace(b'"message":"', b'"message":"!') for line in chain.blocks[1]]
    with pytest.raises(IntegrityError, match="not as long"):
        chain.stream(*READERS[0]).read(0, 100_000)


class Current:
    async def wait_current(self) -> None:
        """Everything is there."""


async def test_everybody_has_a_file_of_his_own_and_root_one_whatever_his_groups():
    chain = Chain(30, per_block=3)
    groups = {0: {0}, 1000: {1000, 7}, 1001: {1001}}
    lines = BlockLines(chain.name, chain.read_events)
    streams = Streams(chain.history, Current(), lines, lambda caller: groups[caller.uid], 99)
    root, owner, other = (Caller(uid, uid, 1) for uid in groups)
    files = {uid: streams.find("events", caller) for uid, caller in ((0, root), (1000, owner), (1001, other))}
    assert len({file.key for file in files.values()}) == 3
    assert {file.shown for file in files.values()} == {("events",)}
    for uid, caller in ((0, root), (1000, owner), (1001, other)):
        handle = await files[uid].open(0, caller)
        expected = chain.expected(uid, frozenset(groups[uid]))
        assert await handle.read(0, 1 << 20) == expected
        assert (await files[uid].attributes(caller)).size == len(expected)
    groups[0] = {0, 7}
    assert streams.find("events", root).key == files[0].key


def test_names_that_are_no_streams():
    streams = Streams(MemoryHistory(), Current(), None, lambda caller: (), 0)
    caller = Caller(0, 0, 1)
    assert streams.find("status", caller) is None
    for name in ("events@", "events@x", "events@-1", "events@01", "events@1.5", "events@" + "9" * 30):
        with pytest.raises(NotFound, match="number of an event"):
            streams.find(name, caller)


async def test_what_is_pending_is_told_to_those_who_may_read_its_document():
    chain = Chain(4, per_block=2)
    first, second = decode_events(chain.read_events(chain.name(1)))
    told = [(first, FileAttributes(0o640, 1000, 7, 0)), (second, NOBODYS)]
    groups = {0: (), 1000: (), 1001: (7,), 1002: ()}
    streams = Streams(
        chain.history, Current(), BlockLines(chain.name, chain.read_events), lambda c: groups[c.uid], 0, lambda: told
    )
    assert streams.listed == ("events", "events@pending")
    for uid, count in ((0, 2), (1000, 1), (1001, 1), (1002, 0)):
        caller = Caller(uid, uid, 1)
        handle = await streams.find("events@pending", caller).open(0, caller)
        lines = (await handle.read(0, 1 << 20)).splitlines()
        assert lines == [b'{"block":null,' + event.encode()[1:] for event, _ in told[:count]]
