"""The life of a write on the commit path: what is answered, what is in the chain, what is on the host."""

import json
import threading

import pytest
import trio
import trio.lowlevel
from commitpath import ALICE, delete, write

from opfs.commit.change import Change, Request
from opfs.core.names import ElementId
from opfs.errors import (
    ApplyFailed,
    ApplyTimeout,
    Busy,
    CommitUnknown,
    IntegrityError,
    InvalidRequest,
    NoSpace,
    NotFound,
    ReadOnly,
    Rejected,
    Stale,
)
from opfs.ports import FileAttributes

A, B = ElementId("memory", "a"), ElementId("memory", "b")


async def test_a_write_is_applied_and_becomes_a_block(path):
    async with path.started() as sequencer:
        assert [block.height for block in sequencer.blocks] == [0]
        block = await sequencer.submit(write("a", "first", colour="red", size=1))
        assert path.plugin.host == {"a": {"colour": "red", "size": 1}}
        assert (block, block.height) == (sequencer.catalog.head, 1)
        assert json.loads(await sequencer.read_document(A)) == {"colour": "red", "size": 1}
    (event,) = path.events()
    assert (event.op, event.message, event.prev_event, event.actor["user"]) == ("create", "first", None, "alice")
    assert [step["step"] for step in event.plan] == ["add", "set colour", "set size"]


async def test_update_and_delete_follow_the_elements_own_chain(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("a", size=2))
        await sequencer.submit(delete("a"))
        await sequencer.submit(write("a", size=3))
    events = path.events()
    assert [event.op for event in events] == ["create", "update", "delete", "create"]
    assert [event.prev_event for event in events] == [None, *(event.hash for event in events[:-1])]


async def test_bytes_already_there_are_no_new_block_but_set_the_time(path):
    async with path.started() as sequencer:
        block = await sequencer.submit(write("a", size=1))
        attributes = FileAttributes(0o600, 1, 1, 99)
        again = Request((Change(A, b'{"size": 1}', attributes),), ALICE)
        assert await sequencer.submit(again) == block
        assert sequencer.catalog.get(A).attributes == attributes
        assert path.store.layer[A].attributes == attributes


async def test_the_same_document_over_a_drifted_host_is_applied_again(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        path.plugin.host["a"]["size"] = 7
        await sequencer.submit(write("a", size=1))
        assert path.plugin.host == {"a": {"size": 1}}
    assert [event.op for event in path.events()] == ["create", "apply"]


async def test_a_rename_is_a_create_and_a_delete_in_one_block(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(Request((Change(B, b'{"size": 1}'), Change(A, None)), ALICE))
        assert path.plugin.host == {"b": {"size": 1}}
        assert len(sequencer.blocks) == 3
    assert [(str(event.id), event.op) for event in path.events()[1:]] == [
        ("memory/b", "create"),
        ("memory/a", "delete"),
    ]


async def test_writers_that_arrive_while_a_block_is_made_share_the_next(path, monkeypatch):
    disk = threading.Event()
    write_block = path.store.write_block

    def wait_for_the_disk(*arguments):
        disk.wait(30)
        write_block(*arguments)

    async with path.started() as sequencer:
        monkeypatch.setattr(path.store, "write_block", wait_for_the_disk)
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(sequencer.submit, write(str(number), size=number))
            while len(path.plugin.applied) < 200:
                await trio.lowlevel.checkpoint()
            disk.set()
        assert len(path.plugin.host) == 100
        assert len(sequencer.blocks) <= 4
    assert [event.seq for event in path.events()] == list(range(100))


async def test_the_chains_time_never_goes_back(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        path.clock.now -= 10**18
        await sequencer.submit(write("a", size=2))
    first, second = path.events()
    assert second.time == first.time


REFUSED = {
    "unknown key": (b'{"colr": "red"}', InvalidRequest, "colour"),
    "wrong type": (b'{"size": "big"}', InvalidRequest, "integer"),
    "the plugin's own check": (b'{\n  "colour": "invisible"}', InvalidRequest, "nobody could see"),
    "not JSON": (b"{colour: red}", InvalidRequest, "double quotes"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
async def test_a_bad_document_changes_nothing(path, case):
    content, error, text = REFUSED[case]
    async with path.started() as sequencer:
        with pytest.raises(error, match=text) as caught:
            await sequencer.submit(Request((Change(A, content),), ALICE))
        assert caught.value.location is not None
        if "invisible" in content.decode():
            assert (caught.value.location.line, caught.value.location.column) == (2, 13)
        assert (len(sequencer.blocks), path.plugin.applied) == (1, [])


async def test_what_policy_refuses(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", precious=True))
        await sequencer.submit(write("b", guarded=True))
        with pytest.raises(Rejected, match="protected"):
            await sequencer.submit(delete("a"))
        with pytest.raises(Rejected, match="confirm delete memory/b"):
            await sequencer.submit(delete("b"))
        sequencer.confirmations.grant("delete", B, 0)
        with pytest.raises(Rejected):
            await sequencer.submit(delete("b"))
        sequencer.confirmations.grant("delete", B, ALICE.uid)
        await sequencer.submit(delete("b"))
        with pytest.raises(NotFound):
            await sequencer.submit(delete("b"))
        with pytest.raises(NotFound, match="installed are: memory"):
            await sequencer.submit(Request((Change(ElementId("nothing", "a"), b"{}"),), ALICE))
        path.plugin.unavailable = "apt-get install memory"
        with pytest.raises(Rejected, match="apt-get install memory"):
            await sequencer.submit(write("c"))
        assert path.plugin.host == {"a": {"precious": True}}


async def test_a_confirmation_is_used_once_and_grows_old(path):
    async with path.started() as sequencer:
        for _ in range(2):
            await sequencer.submit(write("b", guarded=True))
            sequencer.confirmations.grant("delete", B, ALICE.uid)
            await sequencer.submit(delete("b"))
        await sequencer.submit(write("b", guarded=True))
        with pytest.raises(Rejected):
            await sequencer.submit(delete("b"))
        sequencer.confirmations.grant("delete", B, ALICE.uid)
        path.clock.now += 301 * 10**9
        with pytest.raises(Rejected):
            await sequencer.submit(delete("b"))


async def test_a_write_based_on_an_old_event_is_stale(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        base = sequencer.catalog.get(A).last_event
        await sequencer.submit(write("a", base_event=base, size=2))
        with pytest.raises(Stale, match="changed by alice in block 2"):
            await sequencer.submit(write("a", base_event=base, size=3))
        await sequencer.submit(delete("a"))
        with pytest.raises(Stale, match="deleted"):
            await sequencer.submit(write("a", base_event=base, size=3))


@pytest.mark.parametrize("fault", ["refuse_steps", "lie_steps"])
async def test_a_failed_apply_is_undone_reported_and_recorded(path, fault):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", colour="red", size=1))
        getattr(path.plugin, fault).add("set size")
        with pytest.raises(ApplyFailed, match="everything was undone") as caught:
            await sequencer.submit(write("a", colour="blue", size=2))
        assert "did set colour of a" in str(caught.value)
        assert path.plugin.host == {"a": {"colour": "red", "size": 1}}
        assert json.loads(await sequencer.read_document(A)) == {"colour": "red", "size": 1}
    assert [event.op for event in path.events()] == ["create", "apply-failed"]
    assert path.events()[0].content == path.events()[1].content


async def test_what_cannot_be_undone_is_said(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", colour="red", size=1))
        path.plugin.refuse_steps.add("set size")

        async def break_after_the_first(action, apply=path.plugin.apply):
            result = await apply(action)
            path.plugin.refuse_steps.add("set colour")
            return result

        path.plugin.apply = break_after_the_first
        with pytest.raises(ApplyFailed, match="NOT undone: memory/a: the backend refuses to set colour"):
            await sequencer.submit(write("a", colour="blue", size=2))
    assert "NOT undone" in path.events()[-1].message


async def test_a_request_of_two_changes_is_undone_as_a_whole(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        path.plugin.refuse_steps.add("set colour")
        with pytest.raises(ApplyFailed, match="everything was undone"):
            await sequencer.submit(Request((Change(A, b'{"size": 2}'), Change(B, b'{"colour": "red"}')), ALICE))
        assert path.plugin.host == {"a": {"size": 1}}
        assert json.loads(await sequencer.read_document(A)) == {"size": 1}
        assert sequencer.catalog.get(B) is None
    assert [(str(event.id), event.op) for event in path.events()[1:]] == [
        ("memory/a", "apply-failed"),
        ("memory/b", "apply-failed"),
    ]


@pytest.mark.parametrize("method", ["check", "observe", "plan", "checkpoint", "apply", "compare"])
async def test_a_bug_in_a_plugin_is_the_plugins_failure(path, caplog, method):
    async with path.started() as sequencer:

        def broken(*_, **__):
            raise KeyError("a bug")

        setattr(path.plugin, method, broken)
        with pytest.raises((ApplyFailed, InvalidRequest), match="has a bug"):
            await sequencer.submit(write("a", size=1))
        delattr(path.plugin, method)
        assert sequencer.failsafe.reason is None
        await sequencer.submit(write("b", size=1))


@pytest.mark.parametrize("method", ["observe", "checkpoint", "apply"])
async def test_a_plugin_that_hangs_is_stopped(path, method, autojump_clock):
    path.plugin.apply_timeout_s = 0.02

    async def hang(*_, **__):
        await trio.sleep_forever()

    async with path.started() as sequencer:
        setattr(path.plugin, method, hang)
        with pytest.raises(ApplyTimeout, match="was stopped"):
            await sequencer.submit(write("a", size=1))
        delattr(path.plugin, method)
        await sequencer.submit(write("a", size=1))
        assert path.plugin.host == {"a": {"size": 1}}


async def test_a_second_writer_of_one_element_is_told_so(path, autojump_clock):
    path.plugin.hang_steps.add("set size")
    path.plugin.apply_timeout_s = 0.05
    async with path.started() as sequencer, trio.open_nursery() as nursery:

        async def hang():
            with pytest.raises(ApplyTimeout, match="was stopped"):
                await sequencer.submit(write("a", size=1))

        nursery.start_soon(hang)
        await path.plugin.hanging.wait()
        with pytest.raises(Busy):
            await sequencer.submit(write("a", size=2))
        await sequencer.submit(write("b", colour="red"))
    assert [(str(event.id), event.op) for event in path.events()] == [
        ("memory/b", "create"),
        ("memory/a", "apply-failed"),
    ]


async def test_a_writer_that_is_told_to_wait_gets_its_event_later(path, autojump_clock):
    path.reply_timeout_s = 0.02
    path.plugin.hang_steps.add("set size")
    path.plugin.apply_timeout_s = 0.1
    async with path.started() as sequencer:
        with pytest.raises(ApplyTimeout, match="its outcome will be an event"):
            await sequencer.submit(write("a", size=1))
        await sequencer.drain()
    assert [event.op for event in path.events()] == ["apply-failed"]


async def test_an_element_waits_for_what_it_depends_on(path):
    path.plugin.apply_timeout_s = 5
    async with path.started() as sequencer, trio.open_nursery() as nursery:
        nursery.start_soon(sequencer.submit, write("a", size=1))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(sequencer.submit, write("b", after="a"))
    assert path.plugin.applied.index("set size of a") < path.plugin.applied.index("add b")


async def test_no_space_fails_the_batch_and_undoes_it(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        path.store.fail("snapshot", NoSpace("the pool is full"))
        with pytest.raises(NoSpace, match="everything was undone"):
            await sequencer.submit(write("a", size=2))
        assert path.plugin.host == {"a": {"size": 1}}
        await sequencer.submit(write("a", size=3))
    assert [event.op for event in path.events()] == ["create", "update"]


async def test_an_unknown_outcome_stops_all_writes(path, caplog):
    async with path.started() as sequencer:
        path.store.fail("snapshot", CommitUnknown("EIO"), persisted=True)
        with pytest.raises(CommitUnknown):
            await sequencer.submit(write("a", size=1))
        with pytest.raises(ReadOnly, match="restart opfs to recover"):
            await sequencer.submit(write("b", size=1))
        assert sequencer.catalog.get(A) is None
    async with path.started() as sequencer:
        assert sequencer.catalog.get(A) is not None


async def test_a_tampered_document_is_not_handed_out(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
    block = path.store.blocks[sequencer.catalog.head]
    async with path.started() as sequencer:
        document = block.documents[A]
        tampered = type(document)(A, b'{"size": 2}', document.attributes)
        path.store.blocks[sequencer.catalog.head] = type(block)(block.header, block.events, {A: tampered})
        with pytest.raises(IntegrityError):
            await sequencer.read_document(A)
        path.store.blocks[sequencer.catalog.head] = block
