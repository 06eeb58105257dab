"""What a refusal resembles, over the real commit path and the real index: found, private, bounded, and late."""

from __future__ import annotations

import errno
import json
import threading

import pytest
import trio

from opfs.commit import precedents as module
from opfs.commit.derive import index_blocks
from opfs.commit.described import describe_event, record_event
from opfs.commit.precedents import QUEUE_LENGTH, Precedents
from opfs.core.precedent import Kind
from opfs.errors import NotFound, OpfsError
from opfs.index.history import SqliteHistory
from opfs.index.store import SqliteIndex
from opfs.testing.embedder import WordHashEmbedder


class Seeing:
    """`Precedents` of a world, over an index and a history that are brought up to the chain when asked."""

    def __init__(self, world, directory, embedder=None):
        self.world = world
        self.index = SqliteIndex(directory / "index", embedder or WordHashEmbedder())
        self.history = SqliteHistory(directory / "index")
        self.precedents = Precedents(
            self.index,
            self.history,
            world.sequencer,
            world.refusals,
            self.last_event,
            lambda uid, gid, pid: frozenset({gid}),
            self.catch_up,
        )
        world.refusals.on_refused = self.precedents.consider

    def last_event(self, id):
        return next((event.hash for event in reversed(self.world.events()) if event.id == id), None)

    async def catch_up(self):
        store = self.world.store
        index_blocks(store, self.index, describe_event, None, store.list_blocks())
        index_blocks(store, self.history, record_event, None, store.list_blocks())
        while self.index.embed(1000):
            pass

    async def of_newest(self):
        """What the newest refusal resembles."""
        with trio.fail_after(30):
            while (newest := self.world.refusals.recent(None)[-1]).seen is None:  # noqa: ASYNC110
                await trio.sleep(0.001)
        return newest.seen


@pytest.fixture
async def seeing(world, tmp_path):
    seeing = Seeing(world, tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(seeing.precedents.run)
        yield seeing
        nursery.cancel_scope.cancel()
    seeing.index.close()
    seeing.history.close()


async def put(process, name, expected=None, **document):
    """Write a document; `expected` is the class of its refusal."""
    content = json.dumps(document).encode()
    if expected is None:
        await process.redirect(f"memory/{name}.json", content)
        return
    with pytest.raises(expected):
        await process.redirect(f"memory/{name}.json", content)


def told(seen):
    return [(each.kind, each.element, each.height, each.path) for each in seen]


async def test_the_nearest_accepted_change_and_where_its_document_is(seeing, shell):
    await put(shell, "sea", colour="blue", size=9)
    await put(shell, "rose", colour="red", size=1)
    await put(shell, "sky", colour="blue", size=100)
    await put(shell, "tulip", OpfsError, colour="red", size=-1)
    seen = await seeing.of_newest()
    assert told(seen) == [(Kind.ACCEPTED, "memory/rose", 2, "history/memory/rose/2.json")]
    assert seen[0].summary == "colour red, size 1"
    assert (seen[0].op, seen[0].actor) == ("create", "root")
    assert b"accepted memory/rose in block 2" in seeing.world.refusals.documents("memory")[0].reason


async def test_a_failure_is_not_its_own_precedent_but_the_next_ones(seeing, shell):
    seeing.world.sequencer.plugins["memory"].refuse_steps.add("set size")
    await put(shell, "rose", OpfsError, colour="red", size=1)
    assert await seeing.of_newest() == ()
    await put(shell, "tulip", OpfsError, colour="red", size=2)
    assert told(await seeing.of_newest()) == [(Kind.FAILED, "memory/rose", 1, "")]
    seeing.world.sequencer.plugins["memory"].refuse_steps.clear()
    await put(shell, "rose", colour="red")
    seeing.world.sequencer.plugins["memory"].refuse_steps.add("set size")
    await put(shell, "rose", OpfsError, colour="red", size=3)
    assert told(await seeing.of_newest())[:2] == [
        (Kind.ACCEPTED, "memory/rose", 3, "history/memory/rose/3.json"),
        (Kind.FAILED, "memory/rose", 1, ""),
    ]
    assert told(await seeing.of_newest())[2:] == [(Kind.FOLLOWED, "memory/rose", 3, "history/memory/rose/3.json")]


async def test_a_delete_resembles_deletes(seeing, shell):
    await put(shell, "rose", colour="red")
    await put(shell, "tulip", colour="red", precious=True)
    await shell.unlink("memory/rose.json")
    with pytest.raises(OpfsError):
        await shell.unlink("memory/tulip.json")
    assert told(await seeing.of_newest()) == [(Kind.ACCEPTED, "memory/rose", 3, "")]


async def test_a_document_that_cannot_be_read_resembles_the_last_of_its_element(seeing, shell):
    await put(shell, "rose", colour="red")
    await put(shell, "tulip", colour="yellow")
    with pytest.raises(OpfsError):
        await shell.redirect("memory/rose.json", b'{"colour": yellow}')
    assert told(await seeing.of_newest()) == [(Kind.ACCEPTED, "memory/rose", 1, "history/memory/rose/1.json")]


async def test_nobody_is_told_of_what_he_may_not_read(seeing, shell, alice):
    await shell.redirect("memory/violet.json", b'{"colour": "ultraviolet", "size": 7}', mode=0o600)
    await put(shell, "weed", colour="green")
    await shell.set("memory/weed.json", uid=1000)
    await put(shell, "weed", colour="brown")
    await put(alice, "weed", OpfsError, colour="ultraviolet", size=-7)
    assert {each.element for each in await seeing.of_newest()} == {"memory/weed"}
    await put(shell, "orchid", OpfsError, colour="ultraviolet", size=-7)
    assert {each.element for each in await seeing.of_newest()} == {"memory/violet"}


async def test_what_another_document_would_not_have_changed_is_not_looked_at(seeing, shell):
    await put(shell, "rose", colour="red")
    seeing.world.sequencer.failsafe.enter("a test")
    await put(shell, "rose", OpfsError, colour="blue")
    assert await seeing.of_newest() == ()
    assert seeing.world.errors() == [errno.errorcode[errno.EROFS]]


async def test_only_so_many_are_looked_at_and_a_burst_delays_nobody(world, shell, tmp_path):
    seeing = Seeing(world, tmp_path)
    for number in range(QUEUE_LENGTH + 3):
        await put(shell, "rose", OpfsError, size=-number - 1)
    assert [refusal.seen for refusal in world.refusals.recent(None)] == [()] * 3 + [None] * QUEUE_LENGTH
    seeing.index.close()
    seeing.history.close()


class NoModel(WordHashEmbedder):
    def embed(self, texts):
        raise NotFound("the model is not there", hint="opfs model fetch")


async def test_without_a_model_the_elements_own_last_change_is_nearest(world, shell, tmp_path):
    seeing = Seeing(world, tmp_path, NoModel())
    seeing.index.embed = lambda limit: 0
    await put(shell, "rose", colour="red", size=1)
    await put(shell, "tulip", colour="red", size=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(seeing.precedents.run)
        await put(shell, "rose", OpfsError, colour="red", size=-2)
        assert told(await seeing.of_newest()) == [(Kind.ACCEPTED, "memory/rose", 1, "history/memory/rose/1.json")]
        nursery.cancel_scope.cancel()
    seeing.index.close()
    seeing.history.close()


async def test_what_takes_too_long_is_given_up(seeing, shell, monkeypatch):
    monkeypatch.setattr(module, "TIME_LIMIT_S", 0.02)
    release = threading.Event()
    monkeypatch.setattr(seeing.index, "changes", lambda **_: release.wait(30) and [])
    monkeypatch.setattr(seeing.index, "fused", lambda *_, **__: release.wait(30) and [])
    await put(shell, "rose", OpfsError, size=-1)
    assert await seeing.of_newest() == ()
    release.set()


async def test_an_index_that_fails_leaves_the_refusal_as_it_is(seeing, shell, monkeypatch, caplog):
    caplog.set_level("INFO")

    def damaged(*_, **__):
        raise OpfsError("the index is damaged")

    monkeypatch.setattr(seeing.index, "fused", damaged)
    await put(shell, "rose", OpfsError, size=-1)
    assert await seeing.of_newest() == ()
    assert "the index is damaged" in caplog.text
