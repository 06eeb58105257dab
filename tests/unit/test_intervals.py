"""Blocks at intervals: what is acknowledged is durable and seen at once, and its block follows."""

import json
from dataclasses import replace

import pytest
import trio
from commitpath import ALICE, delete, until, write

import opfs.commit.sealing
from opfs.commit.chain import Outcome
from opfs.commit.change import Change, Request
from opfs.commit.step import Applied
from opfs.core.cadence import Cadence
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed, CommitUnknown, NoSpace, ReadOnly, Stale
from opfs.ports import FileAttributes

A, B, C = (ElementId("memory", name) for name in "abc")


@pytest.fixture
def path(path):
    path.cadence = Cadence("weekly")
    return path


def lines(path) -> int:
    return len((path.directory / "journal").read_bytes().splitlines())


async def test_a_write_is_seen_at_once_and_its_block_comes_later(path):
    async with path.started() as sequencer:
        before = sequencer.catalog.head
        assert await sequencer.submit(write("a", size=1)) == before
        assert path.plugin.host == {"a": {"size": 1}}
        assert json.loads(await sequencer.read_document(A)) == {"size": 1}
        assert (sequencer.status(A), sequencer.event_count, len(sequencer.pending)) == ("pending", 0, 1)
        assert path.events() == []
        block = await sequencer.seal()
        assert (block.height, sequencer.catalog.head) == (1, block)
        assert (sequencer.status(A), sequencer.event_count, len(sequencer.pending)) == ("committed", 1, 0)
        assert json.loads(await sequencer.read_document(A)) == {"size": 1}
        assert await sequencer.seal() == block
    assert [event.op for event in path.events()] == ["create"]


async def test_several_events_of_one_element_share_a_block_in_their_order(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", "first", size=1))
        await sequencer.submit(write("a", "second", size=2))
        await sequencer.submit(write("b", size=1))
        await sequencer.submit(delete("b"))
        await sequencer.submit(Request((Change(C, b'{"size": 2}'), Change(A, None)), ALICE))
        assert sorted(sequencer.catalog.elements("memory")) == ["c"]
        await sequencer.seal()
        assert len(sequencer.blocks) == 2
    events = path.events()
    assert [(event.id.element, event.op) for event in events] == [
        ("a", "create"), ("a", "update"), ("b", "create"), ("b", "delete"), ("c", "create"), ("a", "delete"),
    ]  # fmt: skip
    assert [event.seq for event in events] == list(range(6))
    assert [events[1].prev_event, events[5].prev_event] == [events[0].hash, events[1].hash]
    assert list(path.store.layer) == [C]


async def test_after_a_kill_everything_acknowledged_is_in_a_block(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("b", size=1))
        await sequencer.seal()
        await sequencer.submit(write("a", size=2))
        await sequencer.submit(delete("b"))
        acknowledged = list(sequencer.pending.events)
    assert path.store.layer.keys() == {A, B}
    async with path.started() as sequencer:
        assert len(sequencer.blocks) == 3
        assert json.loads(await sequencer.read_document(A)) == {"size": 2}
        assert sequencer.catalog.get(B) is None
        assert lines(path) == 0
    assert path.events()[2:] == acknowledged


async def test_a_start_without_intervals_makes_the_block_too(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
    path.cadence = Cadence()
    async with path.started() as sequencer:
        assert (len(sequencer.blocks), len(sequencer.pending)) == (2, 0)
        await sequencer.submit(write("a", size=2))
        assert len(sequencer.blocks) == 3


async def test_a_crash_after_the_block_makes_no_second_one(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.seal()
        assert lines(path) == 2  # what was intended, and what came of it
    async with path.started() as sequencer:
        assert len(sequencer.blocks) == 2


@pytest.mark.parametrize("step", ["document", "events", "header", "snapshot"])
@pytest.mark.parametrize("persisted", [False, True])
async def test_a_crash_while_the_block_is_made(path, caplog, step, persisted):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        path.store.fail(step, CommitUnknown("EIO"), persisted=persisted)
        with pytest.raises(CommitUnknown):
            await sequencer.seal()
        with pytest.raises(ReadOnly):
            await sequencer.submit(write("b", size=1))
        assert json.loads(await sequencer.read_document(A)) == {"size": 1}
    async with path.started() as sequencer:
        assert json.loads(await sequencer.read_document(A)) == {"size": 1}
        assert len(sequencer.blocks) == 2


async def test_a_journal_that_is_torn_loses_nothing_that_anybody_was_told_of(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        told = (path.directory / "journal").read_bytes()
        await sequencer.submit(write("b", size=1))
    whole = (path.directory / "journal").read_bytes()
    (path.directory / "journal").write_bytes(whole[: len(told) + 50])
    path.plugin.host.pop("b")
    async with path.started() as sequencer:
        assert sorted(sequencer.catalog.elements("memory")) == ["a"]
        await sequencer.submit(write("c", size=1))
    async with path.started() as sequencer:
        assert sorted(sequencer.catalog.elements("memory")) == ["a", "c"]


async def test_a_change_that_was_applied_and_not_acknowledged_is_recovered_after_those_that_were(path):
    path.plugin.apply_timeout_s = 30
    async with path.started() as sequencer, trio.open_nursery() as nursery:
        await sequencer.submit(write("a", size=1))
        path.plugin.hang_steps.add("set size")
        nursery.start_soon(sequencer.submit, write("a", size=2))
        await path.plugin.hanging.wait()
        nursery.cancel_scope.cancel()
    path.plugin.hang_steps.clear()
    path.plugin.host["a"]["size"] = 2
    async with path.started() as sequencer:
        assert json.loads(await sequencer.read_document(A)) == {"size": 2}
    assert [(event.op, event.actor["source"]) for event in path.events()] == [
        ("create", "mount"),
        ("update", "recovery"),
    ]


async def test_a_journal_of_a_longer_chain_stops_writing(path, caplog):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.seal()
        newest = sequencer.catalog.head
        await sequencer.submit(write("a", size=2))
    path.store.blocks.pop(newest)
    (path.directory / "tips").unlink()
    path.log = type(path.log)()
    async with path.started() as sequencer:
        # the journal has both, so it makes both again
        assert json.loads(await sequencer.read_document(A)) == {"size": 2}
        await sequencer.submit(write("b", size=1))
        await sequencer.seal()
        newest = sequencer.catalog.head
        await sequencer.submit(write("c", size=1))
    journal = (path.directory / "journal").read_bytes()
    (path.directory / "journal").write_bytes(b"".join(journal.splitlines(keepends=True)[-1:]))
    path.store.blocks.pop(newest)
    path.store.layer.pop(B)
    (path.directory / "tips").unlink()
    path.log = type(path.log)()
    async with path.started() as sequencer:
        with pytest.raises(ReadOnly, match="does not follow the chain"):
            await sequencer.submit(write("d", size=1))


async def test_what_is_stale_or_fails_is_so_while_pending(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        base = sequencer.catalog.get(A).last_event
        await sequencer.submit(write("a", base_event=base, size=2))
        with pytest.raises(Stale, match="by alice in block 1, still to be made"):
            await sequencer.submit(write("a", base_event=base, size=3))
        path.plugin.refuse_steps.add("set size")
        with pytest.raises(ApplyFailed, match="everything was undone"):
            await sequencer.submit(write("a", size=4))
        assert json.loads(await sequencer.read_document(A)) == {"size": 2}
        await sequencer.seal()
    assert [event.op for event in path.events()] == ["create", "update", "apply-failed"]


async def test_an_element_that_waits_is_applied_when_what_it_needs_is_acknowledged(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("b", after="a"))
        assert sequencer.status(B) == "pending, waiting for memory/a"
        await sequencer.submit(write("a", size=1))
        await until(lambda: sequencer.status(B) == "pending")
        assert len(sequencer.blocks) == 1
    assert "b" in path.plugin.host


async def test_drift_is_pending_too(path):
    path.follows_drift = True
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        path.plugin.host["a"]["size"] = 7
        path.drift._followers["memory"].mark("a")
        await until(lambda: sequencer.status(A).startswith("pending, drifted"))
        assert [event.op for event in sequencer.pending.events] == ["create", "drift"]


async def test_bytes_that_are_there_already_are_no_event(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("a", size=1))
        assert len(sequencer.pending) == 1


async def test_attributes_of_a_pending_document_are_durable(path):
    attributes = FileAttributes(0o600, 7, 8, 99)
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.set_attributes(A, attributes)
        assert sequencer.catalog.get(A).attributes == attributes
        assert A not in path.store.layer
    async with path.started() as sequencer:
        assert sequencer.catalog.get(A).attributes == attributes
        assert path.store.layer[A].attributes == attributes


async def test_what_asks_for_a_block_gets_one_with_all_that_is_pending(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        own = ElementId("opfs", "label.x")
        outcome = Outcome(own, "label", None, None, ALICE.to_json(), changes_document=False)
        block = await sequencer.record(Request((Change(own, None),), ALICE), Applied((outcome,)))
        assert (block.height, len(sequencer.pending)) == (1, 0)
        await sequencer.submit(write("b", size=1))
        block = await sequencer.submit(replace(write("c", size=1), wants_block=True))
        assert (block.height, len(sequencer.pending)) == (3, 0)
    assert [event.op for event in path.events()] == ["create", "label", "create", "create"]


async def test_enough_changes_make_a_block_before_the_interval_ends(path):
    path.cadence = Cadence("weekly", "normal")
    async with path.started() as sequencer:
        for number in range(40):
            await sequencer.submit(write(f"e{number}", size=1))
        await sequencer.seal()
        blocks = len(sequencer.blocks)
        for number in range(5):
            await sequencer.submit(write(f"e{number}", size=2))
            await sequencer.submit(write(f"e{number}", size=3))
        assert (len(sequencer.blocks), len(sequencer.pending)) == (blocks, 10)
        await sequencer.submit(write("e5", size=2))  # 6 of 40 are 15 %
        assert (len(sequencer.blocks), len(sequencer.pending)) == (blocks + 1, 0)


async def test_the_end_of_an_interval_makes_a_block(path):
    path.cadence = Cadence("every-1-minutes")
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        path.clock.now += 61 * 10**9
        sequencer.sealing.note(sequencer._chain)
        await until(lambda: len(sequencer.blocks) == 2)


async def test_the_journal_does_not_grow_beyond_its_bounds(path, monkeypatch):
    monkeypatch.setattr(opfs.commit.sealing, "MAX_PENDING_EVENTS", 3)
    monkeypatch.setattr("opfs.commit.journal.TRUNCATE_ABOVE_BYTES", 1)
    async with path.started() as sequencer:
        for number in range(12):
            await sequencer.submit(write("a", size=number + 1))
            assert len(sequencer.pending) <= 3
            assert lines(path) <= 8
        assert len(sequencer.blocks) == 4


async def test_a_stop_makes_a_block(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.drain()
        assert (len(sequencer.blocks), len(sequencer.pending)) == (2, 0)


async def test_a_full_pool_keeps_what_is_pending_and_undoes_what_is_not_acknowledged(path, caplog, monkeypatch):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        monkeypatch.setattr(opfs.commit.sealing, "MAX_PENDING_EVENTS", 1)
        path.store.fail("snapshot", NoSpace("the pool is full"))
        with pytest.raises(NoSpace, match="everything was undone"):
            await sequencer.submit(write("a", size=2))
        assert (len(sequencer.pending), path.plugin.host) == (1, {"a": {"size": 1}})
        path.store.fail("snapshot", NoSpace("the pool is full"))
        with pytest.raises(NoSpace) as caught:
            await sequencer.seal()
        assert "undone" not in str(caught.value)
        await sequencer.drain()
        assert len(sequencer.pending) == 0
    assert [event.op for event in path.events()] == ["create"]


async def test_a_start_in_a_full_pool_shows_what_is_pending_and_tries_again(path, caplog):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
    path.store.fail("snapshot", NoSpace("the pool is full"))
    async with path.started() as sequencer:
        assert (sequencer.status(A), len(sequencer.blocks)) == ("pending", 1)
        assert lines(path) > 0
    async with path.started() as sequencer:
        assert (sequencer.status(A), len(sequencer.blocks)) == ("committed", 2)


async def test_no_room_in_the_journal_fails_the_write_and_undoes_it(path, monkeypatch):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        keep = type(sequencer._blocks._journal).keep

        async def full(journal, record):
            raise NoSpace("the pool has no room for the journal")

        monkeypatch.setattr(type(sequencer._blocks._journal), "keep", full)
        with pytest.raises(NoSpace, match="everything was undone"):
            await sequencer.submit(write("a", size=2))
        assert path.plugin.host == {"a": {"size": 1}}
        monkeypatch.setattr(type(sequencer._blocks._journal), "keep", keep)
        await sequencer.submit(write("a", size=3))
    async with path.started() as sequencer:
        assert json.loads(await sequencer.read_document(A)) == {"size": 3}
    assert [event.op for event in path.events()] == ["create", "update"]


async def test_time_never_goes_back_while_pending(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        path.clock.now -= 10**18
        await sequencer.submit(write("a", size=2))
        await sequencer.seal()
    first, second = path.events()
    assert second.time == first.time


async def test_many_writers_at_once(path):
    async with path.started() as sequencer:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(sequencer.submit, write(str(number), size=number))
        assert len(sequencer.pending) == 100
        assert [event.seq for event in sequencer.pending.events] == list(range(100))
    async with path.started() as sequencer:
        assert (len(sequencer.blocks), sequencer.catalog.count()) == (2, 100)


async def test_what_is_appended_behind_a_torn_line_is_found(path, caplog):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
    with (path.directory / "journal").open("ab") as journal:
        journal.write(b"0badcafe {")
    path.store.fail("snapshot", NoSpace("the pool is full"))  # so the journal is not emptied
    async with path.started() as sequencer:
        await sequencer.submit(write("b", size=1))
        assert len(sequencer.pending) == 2
    async with path.started() as sequencer:
        assert sorted(sequencer.catalog.elements("memory")) == ["a", "b"]
