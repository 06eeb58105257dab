"""Finding the block that somebody means."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from commitpath import CommitPath, write

from opfs.commit.timeline import Timeline
from opfs.core.header import BlockHeader
from opfs.core.names import BlockName
from opfs.core.timestamp import NS_PER_S, format_time, parse_time
from opfs.errors import InvalidRequest, NotFound


class Fixed:
    def __init__(self, now_ns: int) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        return self._now_ns


@pytest.fixture
def path(tmp_path):
    path = CommitPath(tmp_path)

    async def make_blocks() -> None:
        async with path.started() as sequencer:
            for size in range(5):
                path.clock.now += 3600 * NS_PER_S
                await sequencer.submit(write("a", size=size))

    trio.run(make_blocks)
    return path


@pytest.fixture
def timeline(path):
    return Timeline(path.store.list_blocks, path.store.read_header, Fixed(path.clock.now))


def test_heights_hashes_and_names(path, timeline):
    blocks = path.store.list_blocks()
    full = timeline.header(blocks[3]).hash
    for text in ("3", "00000003", str(blocks[3]), f"00000003-{full[:20]}", full, full[:13], blocks[3].short_hash):
        assert timeline.find(text) == blocks[3]
    assert timeline.events_end(blocks[-1]) == 5


def test_a_time_is_the_block_that_was_head(path, timeline):
    blocks = path.store.list_blocks()
    times = [timeline.time_ns(block) for block in blocks]
    for block, time_ns, following in zip(blocks, times, [*times[1:], times[-1] + 10**18], strict=True):
        assert timeline.find(format_time(time_ns)) == block
        assert timeline.find(format_time(following - 1)) == block
    assert timeline.find("now") == blocks[-1]
    assert timeline.find("2 hours ago") == blocks[3]


def test_what_is_not_there_is_said(path, timeline):
    with pytest.raises(NotFound, match="there is 0 to 5"):
        timeline.find("6")
    with pytest.raises(NotFound, match="no block yet; the first: 2027-01-15T"):
        timeline.find("yesterday")
    with pytest.raises(NotFound, match="does not begin with"):
        timeline.find("00000003-ffffffffffff")
    with pytest.raises(NotFound, match="begin with"):
        timeline.find(f"{path.store.list_blocks()[2].short_hash}0000")


def test_an_ambiguous_hash_asks_for_more(path):
    header = path.store.read_header(path.store.list_blocks()[0])
    blocks = [BlockName(0, "abcd00000001"), BlockName(1, "abcd00000002")]
    timeline = Timeline(lambda: blocks, lambda name: header, Fixed(0))
    with pytest.raises(InvalidRequest, match="write more digits: 00000000-abcd00000001, 00000001-abcd00000002"):
        timeline.find("abcd")
    assert timeline.find("abcd00000002") == blocks[1]


def test_ten_thousand_blocks_take_some_reads_of_headers(path):
    header = BlockHeader.decode(path.store.read_header(path.store.list_blocks()[0]))
    start_ns, reads = parse_time(header.time), []

    def read(name: BlockName) -> bytes:
        reads.append(name)
        return replace(header, height=name.height, time=format_time(start_ns + name.height * NS_PER_S)).encode()

    blocks = [BlockName(height, f"{height:012x}") for height in range(10_000)]
    timeline = Timeline(lambda: blocks, read, Fixed(start_ns + 9_000 * NS_PER_S))
    assert timeline.find("1 hour ago").height == 5400
    assert len(reads) <= 16
