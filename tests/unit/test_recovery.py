"""A crash at each point of a request, played by stopping there: what the next start makes of it."""

import json
from dataclasses import replace

import pytest
import trio
from commitpath import CommitPath, delete, write

from opfs.commit.chain import load_chain
from opfs.commit.tips import Tips
from opfs.core.names import ElementId
from opfs.errors import CommitUnknown, IntegrityError, NoSpace, ReadOnly
from opfs.testing.log import MemoryLog

A = ElementId("memory", "a")


async def crash_in(path: CommitPath, request, hang_step: str) -> None:
    """Stop everything while the plugin is at `hang_step`; the host stays as it is then."""
    path.plugin.hang_steps.add(hang_step)
    path.plugin.hanging = trio.Event()
    async with path.started() as sequencer, trio.open_nursery() as nursery:
        nursery.start_soon(sequencer.submit, request)
        await path.plugin.hanging.wait()
        nursery.cancel_scope.cancel()
    path.plugin.hang_steps.clear()


async def test_nothing_had_begun(path):
    await crash_in(path, write("a", size=1), "add")
    async with path.started() as sequencer:
        assert sequencer.catalog.get(A) is None
    assert (path.plugin.host, path.events()) == ({}, [])


async def test_half_done_is_undone_and_recorded(path):
    await crash_in(path, write("a", colour="red", size=1), "set size")
    assert path.plugin.host == {"a": {"colour": "red"}}
    async with path.started() as sequencer:
        assert sequencer.catalog.get(A) is None
    assert path.plugin.host == {}
    (event,) = path.events()
    assert (event.op, event.actor["source"], event.actor["user"]) == ("apply-failed", "recovery", "alice")


async def test_done_but_not_committed_is_committed(path):
    await crash_in(path, write("a", colour="red", size=1), "set size")
    path.plugin.host["a"]["size"] = 1
    async with path.started() as sequencer:
        assert sequencer.catalog.get(A) is not None
    (event,) = path.events()
    assert (event.op, event.actor["source"]) == ("create", "recovery")


async def test_an_interrupted_delete(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
    await crash_in(path, delete("a"), "remove")
    del path.plugin.host["a"]
    async with path.started() as sequencer:
        assert sequencer.catalog.get(A) is None
    assert [event.op for event in path.events()] == ["create", "delete"]


async def test_recovery_happens_once(path):
    await crash_in(path, write("a", colour="red", size=1), "set size")
    for _ in range(3):
        async with path.started():
            pass
    assert len(path.events()) == 1


async def test_committed_intents_are_left_alone(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
    path.plugin.host["a"]["size"] = 9
    async with path.started():
        pass
    assert path.plugin.host == {"a": {"size": 9}}
    assert len(path.events()) == 1


async def test_a_half_written_layer_is_put_back(path, caplog):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("b", size=1))
    committed = dict(path.store.layer)
    half = path.store.layer.pop(A)
    stray = ElementId("memory", "c")
    path.store.layer[stray] = replace(half, id=stray)
    async with path.started() as sequencer:
        assert sorted(sequencer.catalog.elements("memory")) == ["a", "b"]
    assert path.store.layer == committed
    assert "restoring them" in caplog.text


@pytest.mark.parametrize("lost", ["tips", "journal"])
async def test_derived_files_may_be_lost(path, lost):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("a", size=2))
        entry = sequencer.catalog.get(A)
    (path.directory / lost).unlink()
    async with path.started() as sequencer:
        assert sequencer.catalog.get(A) == entry
        await sequencer.submit(write("a", size=3))
    assert [event.prev_event for event in path.events()] == [None, *(e.hash for e in path.events()[:-1])]


async def test_tips_of_a_longer_chain_are_not_believed(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("a", size=2))
    del path.store.blocks[max(path.store.blocks)]
    (path.directory / "journal").unlink()  # it would commit the lost block's change again, and rightly so
    path.log = MemoryLog()  # the log of the whole chain would refuse
    async with path.started() as sequencer:
        assert sequencer.catalog.get(A).height == 1
        await sequencer.submit(write("a", size=3))


async def test_a_chain_that_lost_a_block_which_was_signed_is_not_written_to(path, caplog):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("a", size=2))
    checkpoint = path.log.checkpoint()
    del path.store.blocks[max(path.store.blocks)]
    (path.directory / "journal").unlink()
    async with path.started() as sequencer:
        assert json.loads(await sequencer.read_document(A)) == {"size": 1}
        with pytest.raises(ReadOnly, match="it signed 3 blocks before, the chain has 2"):
            await sequencer.submit(write("a", size=3))
    assert path.log.checkpoint() == checkpoint
    assert "refuses to sign" in caplog.text


async def test_a_log_that_cannot_be_written_fails_no_commit_and_catches_up(path, caplog):
    async with path.started() as sequencer:
        path.log.refuse = NoSpace("the pool is full")
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("a", size=2))
        assert path.log.size == 1
        assert path.logbook.failure == "the pool is full"
        path.log.refuse = None
        await sequencer.submit(write("a", size=3))
        assert path.log.size == 4
        assert path.logbook.failure is None
    path.log = MemoryLog()
    async with path.started():
        assert path.log.size == 4
    assert [path.log.entry(name.height) for name in path.store.list_blocks()] == [
        path.store.read_header(name) for name in path.store.list_blocks()
    ]
    assert "behind the chain" in caplog.text


async def test_a_block_that_was_not_made_is_not_in_the_log(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        checkpoint = path.log.checkpoint()
        path.store.fail("snapshot", NoSpace("the pool is full"))
        with pytest.raises(NoSpace):
            await sequencer.submit(write("a", size=2))
        assert path.log.checkpoint() == checkpoint
        await sequencer.submit(write("a", size=3))
        assert [path.log.entry(number) for number in range(path.log.size)] == [
            path.store.read_header(name) for name in path.store.list_blocks()
        ]


async def test_a_block_whose_fate_is_unknown_is_logged_by_the_next_start(path, caplog):
    async with path.started() as sequencer:
        path.store.fail("snapshot", CommitUnknown("the device is gone"), persisted=True)
        with pytest.raises(CommitUnknown):
            await sequencer.submit(write("a", size=1))
        assert path.log.size == 1
    async with path.started():
        assert path.log.size == 2
    assert "the device is gone" in caplog.text


async def test_a_log_of_another_chain_of_the_same_length_is_refused(path, caplog):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
    path.log = MemoryLog()
    path.log.append([b"another", b"history"], 0)
    async with path.started() as sequencer:
        with pytest.raises(ReadOnly, match="its entry 1 is not the header of block"):
            await sequencer.submit(write("a", size=2))
    assert "refuses to sign" in caplog.text


async def test_a_head_with_anothers_header_is_refused(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("a", size=2))
    first, last = sorted(path.store.blocks)[1:]
    whole = path.store.blocks[last]
    path.store.blocks[last] = path.store.blocks[first]
    tips = Tips(path.directory / "tips")
    with pytest.raises(IntegrityError, match="holds the header of block"):
        load_chain(path.store, tips, "test.example/opfs", 0)
    tips.close()
    path.store.blocks[last] = whole
