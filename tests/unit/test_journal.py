"""The intent journal: durable intents come back whole, torn ones do not, writers share a sync."""

import errno
import os

import pytest
import trio
import trio.testing

from opfs.commit.change import Change
from opfs.commit.journal import Journal
from opfs.commit.journaled import Acknowledged, AcknowledgedBatch, IntendedChange, Intent, NewAttributes
from opfs.core.action import Action, Checkpoint, Kind, Safety
from opfs.core.event import Event
from opfs.core.names import ElementId
from opfs.errors import CommitUnknown, NoSpace
from opfs.ports import FileAttributes


def make_intent(number: int, content: bytes | None = b'{"a": 0.5}') -> Intent:
    action = Action(Kind.MODIFY, "100", "set-memory", "memory 1 → 2", Safety.DISRUPTIVE, ("memory",), {"to": 2})
    change = Change(ElementId("lxc", str(number)), content, FileAttributes(0o640, 1, 2, 3))
    checkpoint = Checkpoint("id", "lxc", str(number), {"path": "x"})
    return Intent((IntendedChange(change, "ab" * 32, {"memory": 0.5}, checkpoint, (action,)),), {"uid": 0}, "why")


async def test_intents_come_back_as_they_were(tmp_path):
    journal = Journal(tmp_path / "journal")
    written = [make_intent(1), make_intent(2, None), make_intent(3, b"\xff{}")]
    for intent in written:
        await journal.append(intent)
    journal.close()
    again = Journal(tmp_path / "journal")
    assert list(again.load()) == written
    again.reset()
    assert list(again.load()) == []
    again.close()


async def test_a_torn_line_is_no_intent(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path)
    await journal.append(make_intent(1))
    whole = path.stat().st_size
    await journal.append(make_intent(2))
    journal.close()
    for size in range(whole, path.stat().st_size):
        torn = tmp_path / "torn"
        torn.write_bytes(path.read_bytes()[:size])
        reopened = Journal(torn)
        assert [intent.changes[0].change.id.element for intent in reopened.load()] == ["1"]
        reopened.close()


async def test_writers_that_wait_share_a_sync(tmp_path, monkeypatch):
    syncs = []
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    journal = Journal(tmp_path / "journal")
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(journal.append, make_intent(number))
    assert len(journal.load()) == 50
    assert len(syncs) <= 2
    journal.close()


@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, NoSpace), (errno.EIO, CommitUnknown)])
async def test_every_writer_of_a_failed_sync_is_told(tmp_path, monkeypatch, number, expected):
    def fail(_):
        raise OSError(number, os.strerror(number))

    journal = Journal(tmp_path / "journal")
    monkeypatch.setattr(os, "fdatasync", fail)
    told = []

    async def append(number):
        try:
            await journal.append(make_intent(number))
        except expected as error:
            told.append(error)

    async with trio.open_nursery() as nursery:
        for writer in range(5):
            nursery.start_soon(append, writer)
    assert len(told) == 5
    journal.close()


async def test_a_full_journal_is_emptied_only_when_nothing_is_open(tmp_path, monkeypatch):
    monkeypatch.setattr("opfs.commit.journal.TRUNCATE_ABOVE_BYTES", 1)
    journal = Journal(tmp_path / "journal")
    await journal.append(make_intent(1))
    await journal.append(make_intent(2))
    assert len(journal.load()) == 2
    journal.settle()
    journal.settle()
    await journal.append(make_intent(3))
    assert [intent.changes[0].change.id.element for intent in journal.load()] == ["3"]
    journal.close()


def make_batch(number: int) -> AcknowledgedBatch:
    event = Event(number, ElementId("lxc", "100"), "update", None, None, "2026-11-03T00:00:00.000000000Z", {"uid": 0})
    return AcknowledgedBatch((Acknowledged(event, True, b"\xff{}", FileAttributes(0o640, 1, 2, 3)),))


async def test_events_come_back_as_they_were(tmp_path):
    journal = Journal(tmp_path / "journal")
    written = [make_batch(1), make_intent(1), NewAttributes(ElementId("lxc", "100"), FileAttributes(0o600, 4, 5, 6))]
    await journal.keep(written[0])
    await journal.append(written[1])
    await journal.keep(written[2])
    journal.close()
    again = Journal(tmp_path / "journal")
    assert list(again.load()) == written
    again.close()


async def test_what_is_in_no_block_is_kept_and_what_is_sealed_does_not_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr("opfs.commit.journal.TRUNCATE_ABOVE_BYTES", 1)
    journal = Journal(tmp_path / "journal")
    for number in range(5):
        await journal.keep(make_batch(number))
        assert not await journal.forget_settled()
        await journal.append(make_intent(number))
        journal.settle()
        assert len(journal.load()) == 2
        journal.sealed()
    assert await journal.forget_settled()
    assert journal.load() == []
    journal.close()


async def test_nothing_is_forgotten_that_was_written_while_others_waited(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal")
    forgotten = []

    async def forget():
        forgotten.append(await journal.forget_settled())

    async with trio.open_nursery() as nursery, journal._syncing:
        for work in (
            lambda: journal.append(make_intent(1)),
            forget,
            lambda: journal.append(make_intent(2)),
            forget,
            lambda: journal.keep(make_batch(3)),
        ):
            nursery.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
    assert forgotten == [False, False]
    assert len(journal.load()) == 3
    journal.close()


async def test_an_event_that_there_is_no_room_for_is_not_there(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal")
    await journal.keep(make_batch(1))
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:20]))
    with pytest.raises(NoSpace):
        await journal.keep(make_batch(2))
    monkeypatch.undo()
    await journal.keep(make_batch(3))
    assert journal.load() == [make_batch(1), make_batch(3)]
    journal.close()
