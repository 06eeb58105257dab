"""What people are told of events that are in no block yet, or that share one."""

from __future__ import annotations

import pytest
from commitpath import delete, write

from opfs.commit.described import describe_event, record_event
from opfs.core.cadence import Cadence


@pytest.fixture
def path(path):
    path.cadence = Cadence("weekly")
    return path


async def test_the_page_says_what_is_pending(path):
    path.cadence = Cadence("hourly", "light")
    async with path.started() as sequencer:
        rule = "hourly, or when 10% of the elements have changed (light load)"
        assert sequencer.sealing.describe(sequencer._chain) == (f"nothing; blocks: {rule}",)
        for number in range(20):
            await sequencer.submit(write(f"e{number}", size=1))
        await sequencer.seal()
        await sequencer.submit(write("e1", size=2))
        told, due = sequencer.sealing.describe(sequencer._chain)
        since = sequencer.pending.events[0].time[:19]
        assert told == f"events: 1, elements: 1, since {since}Z, durable in the journal"
        assert due == f"next block: {since[:11]}{int(since[11:13]) + 1:02}:00:00Z ({rule}), or at once: opfs commit"


async def test_where_every_write_has_its_block_the_page_says_nothing(path):
    path.cadence = Cadence()
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        assert sequencer.sealing.describe(sequencer._chain) == ()


async def test_events_that_share_a_block_are_told_by_their_plans(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("b", size=1))
        before = await sequencer.seal()
        await sequencer.submit(write("a", size=2))
        await sequencer.submit(write("a", "why", size=2, colour="red"))
        await sequencer.submit(write("b", size=5))
        await sequencer.submit(write("c", size=1))
        await sequencer.submit(delete("c"))
        name = await sequencer.seal()
    told = [describe_event(path.store, event, name, before) for event in path.events()[2:]]
    assert [event.summary for event in told] == [
        "set size of a", "set colour of a", "size 1 \N{RIGHTWARDS ARROW} 5", "add c; set size of c", "remove c",
    ]  # fmt: skip
    assert "why" in told[1].text
    assert "red" not in told[0].text
    sizes = [record_event(path.store, event, name, before).size for event in path.events()[2:]]
    assert sizes == [0, len(b'{"size": 2, "colour": "red"}'), len(b'{"size": 5}'), 0, 0]
