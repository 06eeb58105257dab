"""Elements that need each other: written in any order, applied in the right one, and not deleted from under others."""

import itertools
import json

import pytest
import trio
import trio.testing
from commitpath import ALICE, delete, until, write

from opfs.commit.change import Change, Request
from opfs.core.names import ElementId
from opfs.core.standing import Kind
from opfs.errors import ApplyFailed, InvalidRequest, NoSpace, NotFound, Rejected
from opfs.ports import Dependency, Sighting

A, B, C = (ElementId("memory", name) for name in "abc")


async def settled(sequencer):
    """Nothing waits and nothing is under way."""
    await until(lambda: not sequencer.catalog.unsettled and not sequencer.in_flight_count)


def ops(path, element):
    return [event.op for event in path.events() if event.id == element]


@pytest.mark.parametrize("order", list(itertools.permutations("abc")), ids="".join)
async def test_documents_may_be_written_in_any_order(path, order):
    documents = {
        "a": {"size": 1},
        "b": {"size": 2, "after": "a"},
        "c": {"size": 3, "after": "b", "$after": ["memory/a"]},
    }
    async with path.started() as sequencer:
        for name in order:
            await sequencer.submit(write(name, **documents[name]))
        await settled(sequencer)
        assert [sequencer.status(id) for id in (A, B, C)] == ["committed"] * 3
    added = [summary for summary in path.plugin.applied if summary.startswith("add")]
    assert added == ["add a", "add b", "add c"]
    assert path.plugin.host["c"] == {"size": 3, "after": "b"}


async def test_what_waits_is_committed_and_says_so(path):
    async with path.started() as sequencer:
        block = await sequencer.submit(write("b", after="a", size=1))
        assert (block.height, path.plugin.host) == (1, {})
        assert json.loads(await sequencer.read_document(B)) == {"after": "a", "size": 1}
        assert sequencer.status(B) == "waiting for memory/a"
        await sequencer.submit(write("a", size=1))
        await settled(sequencer)
        assert path.plugin.host["b"] == {"after": "a", "size": 1}
    create, _, apply = path.events()
    assert create.plan == ({"step": "wait", "summary": "memory/a", "safety": "safe"},)
    assert (apply.op, apply.id, apply.actor["source"], apply.actor["command"]) == (
        "apply",
        B,
        "dependency",
        "memory/a is in place",
    )
    assert apply.content == create.content


async def test_the_set_of_what_waits_survives_a_restart(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("b", after="a"))
        await sequencer.submit(write("c", after="b"))
    (path.directory / "tips").unlink()
    async with path.started() as sequencer:
        assert {str(standing) for standing in sequencer.catalog.unsettled.values()} == {
            "waiting for memory/a",
            "waiting for memory/b",
        }
        await sequencer.submit(write("a"))
        await settled(sequencer)
    assert sorted(path.plugin.host) == ["a", "b", "c"]


async def test_what_came_while_opfs_was_down_is_seen_at_the_start(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("b", after="a"))
    path.plugin.host["a"] = {"size": 9}
    async with path.started() as sequencer:
        await settled(sequencer)
    assert path.events()[-1].actor["command"] == "opfs has started"
    assert path.plugin.host == {"a": {"size": 9}, "b": {"after": "a"}}


async def test_what_is_on_the_host_undeclared_is_not_waited_for(path):
    path.plugin.host["a"] = {"size": 9}
    async with path.started() as sequencer:
        await sequencer.submit(write("b", after="a"))
        assert sequencer.status(B) == "committed"
    assert path.plugin.host == {"a": {"size": 9}, "b": {"after": "a"}}


async def test_any_alternative_will_do(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("c", either=["a", "b"]))
        assert sequencer.status(C) == "waiting for memory/a or memory/b"
        await sequencer.submit(write("b"))
        await settled(sequencer)
    assert "c" in path.plugin.host


async def test_of_several_missing_ones_the_rest_is_named(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("c", after="a", **{"$after": ["memory/b"]}))
        assert sequencer.status(C) == "waiting for memory/a, memory/b"
        await sequencer.submit(write("a"))
        await until(lambda: sequencer.status(C) == "waiting for memory/b")
        await sequencer.submit(write("b"))
        await settled(sequencer)
    assert ops(path, C) == ["create", "apply"]


async def test_what_no_plugin_of_this_host_provides_is_not_waited_for(path):
    path.plugin.depends_on = lambda element, desired: [Dependency((ElementId("net", "br0"), ElementId("ovs", "br0")))]
    async with path.started() as sequencer:
        await sequencer.submit(write("a"))
        assert sequencer.status(A) == "committed"


async def test_a_later_apply_that_fails_is_recorded_and_tried_again_by_a_rewrite(path):
    path.plugin.refuse_steps.add("set size")
    async with path.started() as sequencer:
        await sequencer.submit(write("b", after="a", size=1))
        await sequencer.submit(write("a"))
        await until(lambda: sequencer.status(B).startswith("failed"))
        assert "the backend refuses to set size" in sequencer.status(B)
        assert path.plugin.host == {"a": {}}
    assert (path.events()[-1].op, path.events()[-1].actor["source"]) == ("apply-failed", "dependency")
    async with path.started() as sequencer:
        assert sequencer.status(B).startswith("failed")
        await sequencer.submit(write("c", after="b"))
        assert sequencer.status(C) == "waiting for memory/b"
        path.plugin.refuse_steps.clear()
        await sequencer.submit(write("b", after="a", size=1))
        await settled(sequencer)
    assert ops(path, B) == ["create", "apply-failed", "apply"]
    assert sorted(path.plugin.host) == ["a", "b", "c"]


async def test_a_later_apply_that_would_destroy_something_waits_for_a_person(path):
    path.plugin.host["b"] = {"guarded": True}
    plan = path.plugin.plan

    def destructive(element, current, desired):
        return plan(element, current, None if element == "b" and current else desired)

    async with path.started() as sequencer:
        await sequencer.submit(write("b", after="a"))
        path.plugin.plan = destructive
        await sequencer.submit(write("a"))
        await until(lambda: sequencer.status(B).startswith("failed"))
        assert "confirm update memory/b" in sequencer.status(B)
    assert path.plugin.host["b"] == {"guarded": True}


async def test_a_full_pool_leaves_it_waiting(path, caplog):
    async with path.started() as sequencer:
        await sequencer.submit(write("b", after="a"))
        write_block = path.store.write_block

        def fail_for_b(name, writes, header, events, before_snapshot):
            if b'"op":"apply"' in events:
                raise NoSpace("the pool is full")
            write_block(name, writes, header, events, before_snapshot)

        path.store.write_block = fail_for_b
        await sequencer.submit(write("a"))
        await until(lambda: "goes on waiting" in caplog.text)
        assert (sequencer.status(B), path.plugin.host) == ("waiting for memory/a", {"a": {}})
        path.store.write_block = write_block
    async with path.started() as sequencer:
        await settled(sequencer)
    assert sorted(path.plugin.host) == ["a", "b"]


async def test_a_crash_in_a_later_apply_leaves_it_waiting(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("b", after="a", colour="red", size=1))
        path.plugin.hang_steps.add("set size")
        await sequencer.submit(write("a"))
        await path.plugin.hanging.wait()
    path.plugin.hang_steps.clear()
    async with path.started() as sequencer:
        await settled(sequencer)
    assert ops(path, B) == ["create", "apply-failed", "apply"]
    assert path.plugin.host["b"] == {"after": "a", "colour": "red", "size": 1}


async def test_a_writer_does_not_collide_with_a_later_apply(path, autojump_clock):
    async with path.started() as sequencer, trio.open_nursery() as nursery:
        await sequencer.submit(write("b", after="a", size=1))
        path.plugin.hang_steps.add("set size")
        path.plugin.apply_timeout_s = 0.2
        nursery.start_soon(sequencer.submit, write("a"))
        await path.plugin.hanging.wait()
        path.plugin.hang_steps.clear()
        await sequencer.submit(write("b", after="a", size=2))
        assert path.plugin.host["b"] == {"after": "a", "size": 2}
    assert ops(path, B) == ["create", "apply-failed", "update"]


async def test_circles_are_refused(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", after="c"))
        await sequencer.submit(write("b", after="a"))
        with pytest.raises(InvalidRequest, match="memory/c needs memory/b needs memory/a needs memory/c"):
            await sequencer.submit(write("c", after="b"))
        assert sequencer.catalog.get(C) is None
        await sequencer.submit(write("c", either=["b", "d"]))
        with pytest.raises(InvalidRequest, match="could never be in place"):
            await sequencer.submit(
                Request((Change(C, b'{"after": "d"}'), Change(ElementId("memory", "d"), b'{"after": "c"}')), ALICE)
            )
    async with path.started() as sequencer:
        with pytest.raises(InvalidRequest, match="could never be in place"):
            await sequencer.submit(write("c", after="b"))


async def test_what_others_need_is_not_deleted(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a"))
        await sequencer.submit(write("b", after="a"))
        with pytest.raises(Rejected, match="memory/a is needed by memory/b"):
            await sequencer.submit(delete("a"))
    async with path.started() as sequencer:
        with pytest.raises(Rejected, match="needed by memory/b"):
            await sequencer.submit(delete("a"))
        with pytest.raises(Rejected, match="needed by memory/b"):
            await sequencer.submit(Request((Change(A, None), Change(C, b"{}")), ALICE))
        await sequencer.submit(write("b"))
        await sequencer.submit(delete("a"))
    assert path.plugin.host == {"b": {}}


async def test_an_alternative_lets_go(path):
    async with path.started() as sequencer:
        for name in "ab":
            await sequencer.submit(write(name))
        await sequencer.submit(write("c", either=["a", "b"]))
        await sequencer.submit(delete("a"))
        with pytest.raises(Rejected, match="memory/b is needed by memory/c"):
            await sequencer.submit(delete("b"))


async def test_waiting_elements_hold_nothing_back(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a"))
        await sequencer.submit(write("b", after="a", **{"$after": ["memory/c"]}))
        await sequencer.submit(delete("a"))
        await sequencer.submit(delete("b"))
        assert not sequencer.catalog.unsettled
    assert path.plugin.host == {}


async def test_one_request_is_brought_in_order(path):
    changes = (Change(C, b'{"after": "b"}'), Change(B, b'{"after": "a"}'), Change(A, b"{}"))
    async with path.started() as sequencer:
        await sequencer.submit(Request(changes, ALICE))
        assert [s for s in path.plugin.applied if s.startswith("add")] == ["add a", "add b", "add c"]
        assert len(sequencer.blocks) == 2
        path.plugin.applied.clear()
        await sequencer.submit(Request((Change(A, None), Change(B, None), Change(C, None)), ALICE))
        assert path.plugin.applied == ["remove c", "remove b", "remove a"]
    assert path.plugin.host == {}


async def test_one_request_may_wait_in_part(path):
    changes = (Change(C, b'{"after": "b"}'), Change(B, b'{"after": "d"}'), Change(A, b"{}"))
    async with path.started() as sequencer:
        await sequencer.submit(Request(changes, ALICE))
        assert [sequencer.status(id) for id in (A, B, C)] == [
            "committed",
            "waiting for memory/d",
            "waiting for memory/b",
        ]
        assert path.plugin.host == {"a": {}}


async def test_a_crash_in_a_request_that_waits_in_part(path):
    changes = (Change(B, b'{"after": "d"}'), Change(A, b'{"size": 1}'))
    path.plugin.hang_steps.add("set size")
    async with path.started() as sequencer, trio.open_nursery() as nursery:
        nursery.start_soon(sequencer.submit, Request(changes, ALICE))
        await path.plugin.hanging.wait()
        nursery.cancel_scope.cancel()
    path.plugin.hang_steps.clear()
    path.plugin.host["a"]["size"] = 1
    async with path.started() as sequencer:
        assert (sequencer.status(A), sequencer.status(B)) == ("committed", "waiting for memory/d")
    assert path.plugin.host == {"a": {"size": 1}}


@pytest.mark.parametrize("answer", [None, [None], [Dependency(("net/br0",))], KeyError("a bug")], ids=str)
async def test_a_bug_in_depends_on_is_the_plugins(path, answer, caplog):
    async with path.started() as sequencer:

        def broken(element, desired):
            if isinstance(answer, Exception):
                raise answer
            return answer

        path.plugin.depends_on = broken
        with pytest.raises(ApplyFailed, match="the plugin memory has a bug"):
            await sequencer.submit(write("a"))
        del path.plugin.depends_on
        await sequencer.submit(write("a"))
        assert sequencer.failsafe.reason is None


async def test_a_backend_that_cannot_say_is_waited_for(path, caplog):
    observe = path.plugin.observe

    async def broken(elements, *, desired=None):
        if "a" in (elements or ()):
            raise ApplyFailed("the backend is away")
        return await observe(elements, desired=desired)

    async with path.started() as sequencer:
        path.plugin.observe = broken
        await sequencer.submit(write("b", after="a"))
        assert sequencer.catalog.unsettled[B].kind is Kind.WAITING
    assert "the backend is away" in caplog.text


async def test_a_slip_in_after_is_refused_with_its_spot(path):
    async with path.started() as sequencer:
        with pytest.raises(InvalidRequest, match="did you mean memory/a") as caught:
            await sequencer.submit(Request((Change(B, b'{\n  "$after": ["memroy/a"]}'),), ALICE))
        assert (caught.value.location.line, caught.value.location.column) == (2, 14)
        with pytest.raises(NotFound):
            await sequencer.submit(delete("b"))


async def test_a_thousand_in_the_worst_order(path):
    names = [str(number) for number in range(1000)]
    async with path.started() as sequencer:
        async with trio.open_nursery() as nursery:
            for name in reversed(names):
                document = {} if name == "0" else {"after": "0"}
                nursery.start_soon(sequencer.submit, write(name, **document))
        await settled(sequencer)
        assert len(path.plugin.host) == 1000
        assert len(sequencer.blocks) < 200


async def test_what_a_thousand_wait_for_is_looked_for_once(path):
    path.follows_drift = True
    async with path.started() as sequencer:
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(sequencer.submit, write(str(number), after="a"))
        await until(lambda: len(sequencer.catalog.unsettled) == 300 and not sequencer.in_flight_count)
        path.plugin.observe_count = 0
        path.plugin.sighted.send_nowait(Sighting(None))
        await until(lambda: path.plugin.observe_count)
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked()
        assert path.plugin.observe_count < 250
        path.plugin.host["a"] = {}
        path.plugin.sighted.send_nowait(Sighting("a"))
        await settled(sequencer)
