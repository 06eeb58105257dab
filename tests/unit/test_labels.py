"""Labels: what is given, moved and taken away, and that it is the same however it is read."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from commitpath import CommitPath, write

from opfs.commit import labels as labels_module
from opfs.commit.derive import Deriver
from opfs.commit.described import describe_event, record_event
from opfs.commit.labels import Labels
from opfs.core.actor import Actor
from opfs.core.event import decode_events
from opfs.core.label import check_label, is_label, label_id, label_of
from opfs.errors import InvalidRequest, NotFound, ReadOnly
from opfs.index.history import SqliteHistory

ROOT = Actor(uid=0, user="root")


class World:
    """A commit path with a history beside it."""

    def __init__(self, directory):
        self.path = CommitPath(directory)
        self.history = SqliteHistory(directory / "index")
        self.reads = 0

    def _events_of(self, height):
        self.reads += 1
        return decode_events(self.path.store.read_events(self.path.store.list_blocks()[height]))

    @asynccontextmanager
    async def started(self):
        async with self.path.started() as self.sequencer, trio.open_nursery() as nursery:
            self.historian = Deriver(
                self.path.store, self.history, self.sequencer, record_event, called="history", yields_to_writers=False
            )
            nursery.start_soon(self.historian.run)
            yield self.new_labels()
            nursery.cancel_scope.cancel()

    def new_labels(self):
        return Labels(self.history, self.historian, self.sequencer, self._events_of)

    @property
    def head(self):
        return self.sequencer.blocks[-1]


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.history.close()
    assert world.path.findings() == []


async def test_a_label_is_an_event_and_stays_over_a_restart(world):
    async with world.started() as labels:
        assert await labels.all() == {}
        await world.sequencer.submit(write("a", size=1))
        block = world.head
        await labels.add("good", block, ROOT, "it worked")
        assert await labels.current() == {"good": block}
    event = world.path.events()[-1]
    assert (str(event.id), event.op, event.message, event.content) == ("opfs/label.good", "label", "it worked", None)
    async with world.started() as labels:
        label = (await labels.all())["good"]
        assert (label.block, label.message, label.user) == (block, "it worked", "root")


async def test_a_list_of_events_says_what_a_label_was_given_to(world):
    async with world.started() as labels:
        await world.sequencer.submit(write("a", size=1))
        block = world.head
        await labels.add("good", block, ROOT, "it worked")
        await labels.remove("good", ROOT)
    blocks = world.path.store.list_blocks()
    told = [
        describe_event(world.path.store, event, name, blocks[name.height - 1]).summary
        for name in blocks[-2:]
        for event in decode_events(world.path.store.read_events(name))
    ]
    assert told == [f"label: it worked; {block}", "unlabel"]


@pytest.mark.parametrize("max_followed", [0, 5_000], ids=["looked up", "followed"])
async def test_a_label_moves_and_goes_however_it_is_read(world, monkeypatch, max_followed):
    monkeypatch.setattr(labels_module, "MAX_FOLLOWED", max_followed)
    monkeypatch.setattr(labels_module, "_PAGE", 2)
    async with world.started() as labels:
        blocks = []
        for size in range(6):
            await world.sequencer.submit(write("a", size=size))
            blocks.append(world.head)
            await labels.add("newest", blocks[-1], ROOT)
            await labels.add(f"n{size}", blocks[-1], ROOT)
            if size % 2:
                await labels.remove(f"n{size}", ROOT)
            assert (await labels.current())["newest"] == blocks[-1]
            assert await labels.all() == await world.new_labels().all()
        assert await labels.current() == {"newest": blocks[5], "n0": blocks[0], "n2": blocks[2], "n4": blocks[4]}


async def test_what_did_not_change_is_not_read_again(world):
    async with world.started() as labels:
        for number in range(20):
            await labels.add(f"n{number}", world.head, ROOT)
        assert len(await labels.all()) == 20
        world.reads = 0
        for size in range(5):
            await world.sequencer.submit(write("a", size=size))
            assert len(await labels.all()) == 20
        assert world.reads == 0


async def test_what_is_refused_makes_no_block(world):
    async with world.started() as labels:
        head = world.head
        with pytest.raises(NotFound, match="there is no label 'nothing'"):
            await labels.remove("nothing", ROOT)
        with pytest.raises(InvalidRequest):
            await labels.add("yesterday", head, ROOT)
        world.sequencer.failsafe.enter("the disk is gone")
        with pytest.raises(ReadOnly):
            await labels.add("good", head, ROOT)
        assert world.head == head


async def test_many_at_once_are_all_there(world):
    async with world.started() as labels:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(labels.add, f"n{number}", world.head, ROOT)
                nursery.start_soon(labels.all)
        assert sorted(await labels.all()) == [f"n{number}" for number in range(10)]


@pytest.mark.parametrize("name", ["before-upgrade", "v1.2", "A", "x" * 64, "deadbeef-", "good_one", "Headless"])
def test_names_that_can_be_labels(name):
    check_label(name)
    assert label_of(label_id(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "", "1", "beef", "DEADBEEF", "now", "yesterday", "Yesterday", "HEAD", "2026-11-03", "a_day_ago", "x" * 65, "-x",
        "a b", "a/b", "..", "a\n", "ümlaut", "@",
    ],
)  # fmt: skip
def test_names_that_cannot(name):
    assert not is_label(name)
    with pytest.raises(InvalidRequest):
        check_label(name)
