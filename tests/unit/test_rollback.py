"""Rollback in memory: what goes back, in which order, what is refused, and that it is one block or none."""

from __future__ import annotations

import json

import pytest
import trio
from commitpath import ALICE, delete, until, write
from goingback import running

from opfs.commit.change import Change, Request
from opfs.core.going_back import Scope, split_when
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed, IntegrityError, InvalidRequest, NotFound, Rejected, Stale
from opfs.ports import FileAttributes
from opfs.testing.memoryhost import MemoryPlugin

A, B, C = (ElementId("memory", name) for name in "abc")


async def test_the_whole_host_goes_back_in_one_block_that_names_its_source(path):
    async with running(path) as world:
        await world.put("a", size=1)
        source = await world.put("b", size=1)
        await world.put("a", size=2)
        await world.sequencer.submit(delete("b"))
        await world.put("c", size=3)
        path.plugin.applied.clear()
        made = await world.back_to(source.height)
        assert path.plugin.host == {"a": {"size": 1}, "b": {"size": 1}}
        assert made.height == 6
        assert world.done() == [("a", "update"), ("b", "create"), ("c", "delete")]
        assert {event.message for event in path.events()[-3:]} == {f"rollback to block 2 ({source})"}
        assert path.plugin.applied == ["set size of a", "add b", "set size of b", "remove c"]
        # the state is the same state: byte for byte what the source commits to
        headers = [json.loads(path.store.read_header(block)) for block in (source, made)]
        assert headers[0]["state_root"] == headers[1]["state_root"]


async def test_what_is_as_it_was_is_left_out_and_nothing_to_do_is_no_block(path):
    async with running(path) as world:
        await world.put("a", size=1)
        await world.put("b", size=1)
        await world.put("b", size=2)
        path.plugin.applied.clear()
        await world.back_to(2)
        assert world.done() == [("b", "update")]
        assert path.plugin.applied == ["set size of b"]
        head = world.sequencer.catalog.head
        assert await world.back_to(2) == head
        assert (await world.plan(2)).views == ()
        assert world.sequencer.blocks[-1] == head


async def test_only_what_is_named_goes_back(path):
    async with running(path) as world:
        for name in "abc":
            await world.put(name, size=1)
        for name in "abc":
            await world.put(name, size=2)
        await world.back_to(3, Scope.parse(["memory/a", "memory/c"]))
        assert path.plugin.host == {"a": {"size": 1}, "b": {"size": 2}, "c": {"size": 1}}
        await world.back_to(3, Scope.parse(["memory"]))
        assert path.plugin.host["b"] == {"size": 1}
        with pytest.raises(NotFound, match="memory/nobody was not there"):
            await world.back_to(3, Scope.parse(["memory/a", "memory/nobody"]))
        with pytest.raises(NotFound, match="nothing was not there"):
            await world.back_to(3, Scope.parse(["nothing"]))


async def test_needed_elements_come_first_and_go_last(path):
    async with running(path) as world:
        await world.put("z", size=1)
        source = await world.put("a", after="z")
        await world.sequencer.submit(delete("a"))
        await world.sequencer.submit(delete("z"))
        await world.put("m", size=1)
        await world.put("b", after="m")
        path.plugin.applied.clear()
        plan = await world.plan(source.height)
        assert [(view.id.element, view.op) for view in plan.views] == [
            ("z", "create"), ("a", "create"), ("b", "delete"), ("m", "delete"),
        ]  # fmt: skip
        assert path.plugin.applied == []
        await world.back_to(source.height)
        assert path.plugin.applied == [
            "add z", "set size of z", "add a", "set after of a", "remove b", "remove m",
        ]  # fmt: skip
        assert [entry.standing.kind for entry in map(world.sequencer.catalog.get, (A,))] == ["committed"]


async def test_one_that_needs_no_longer_what_goes_is_no_obstacle_to_the_plan(path):
    async with running(path) as world:
        source = await world.put("a", size=1)
        await world.put("m", size=1)
        await world.put("a", size=1, after="m")
        plan = await world.plan(source.height)
        assert [(view.id.element, view.op) for view in plan.views] == [("a", "update"), ("m", "delete")]
        await world.back_to(source.height, expected_plan=plan.digest)
        assert path.plugin.host == {"a": {"size": 1}}


async def test_a_failure_in_the_middle_undoes_all_of_it(path):
    async with running(path) as world:
        await world.put("a", size=1)
        await world.put("b", colour="red")
        source = await world.put("c", size=1)
        await world.put("a", size=2)
        await world.put("b", colour="blue")
        await world.sequencer.submit(delete("c"))
        before = {name: dict(found) for name, found in path.plugin.host.items()}
        root = json.loads(path.store.read_header(world.sequencer.catalog.head))["state_root"]
        path.plugin.refuse_steps = {"set colour"}
        with pytest.raises(ApplyFailed, match=r"refuses to set colour.*done before that.*everything was undone"):
            await world.back_to(source.height)
        assert path.plugin.host == before
        assert {op for _, op in world.done()} == {"apply-failed"}
        assert json.loads(path.store.read_header(world.sequencer.catalog.head))["state_root"] == root
        path.plugin.refuse_steps = set()
        await world.back_to(source.height)
        assert path.plugin.host == {"a": {"size": 1}, "b": {"colour": "red"}, "c": {"size": 1}}


async def test_a_lie_is_found_and_undone(path):
    async with running(path) as world:
        source = await world.put("a", size=1)
        await world.put("a", size=2)
        path.plugin.lie_steps = {"set size"}
        with pytest.raises(ApplyFailed, match="not as it should be afterwards"):
            await world.back_to(source.height)
        assert path.plugin.host == {"a": {"size": 2}}


async def test_a_document_that_is_not_valid_any_more_stops_it_or_is_skipped(path):
    async with running(path) as world:
        await world.put("a", size=1)
        source = await world.put("b", size=9)
        await world.put("a", size=2)
        await world.put("b", size=3)
        schema = json.loads(json.dumps(path.plugin.schema))
        schema["properties"]["size"]["maximum"] = 5
        path.plugin.schema = schema
        world.sequencer.validator._rules.clear()
        path.plugin.applied.clear()
        with pytest.raises(InvalidRequest, match="memory/b"):
            await world.plan(source.height)
        with pytest.raises(InvalidRequest, match="memory/b"):
            await world.back_to(source.height)
        assert path.plugin.applied == []
        plan = await world.plan(source.height, skip_refused=True)
        assert list(plan.skipped) == [B]
        await world.back_to(source.height, skip_refused=True, expected_plan=plan.digest)
        assert path.plugin.host == {"a": {"size": 1}, "b": {"size": 3}}


async def test_an_element_whose_plugin_is_gone_stops_it(path):
    other = MemoryPlugin()
    other.name = "other"
    path.plugins["other"] = other
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(Request((Change(ElementId("other", "x"), b'{"size": 1}'),), ALICE))
        await sequencer.submit(Request((Change(ElementId("other", "x"), None),), ALICE))
        await sequencer.submit(write("a", size=2))
    del path.plugins["other"]
    async with running(path) as world:
        with pytest.raises(InvalidRequest, match="other/x: there is no plugin 'other'"):
            await world.back_to(2)
        await world.back_to(2, skip_refused=True)
        assert path.plugin.host == {"a": {"size": 1}}


async def test_what_destroys_must_be_confirmed_all_of_it_and_protection_holds(path):
    async with running(path) as world:
        source = await world.put("a", size=1)
        await world.put("b", guarded=True)
        await world.put("c", guarded=True)
        plan = await world.plan(source.height)
        assert [view.safety for view in plan.views] == ["destructive", "destructive"]
        confirmations = world.sequencer.confirmations
        confirmations.grant("delete", B, ALICE.uid)
        with pytest.raises(Rejected, match="memory/c: this destroys something"):
            await world.back_to(source.height)
        confirmations.grant("delete", C, ALICE.uid)  # the other one is not used up
        await world.back_to(source.height)
        assert path.plugin.host == {"a": {"size": 1}}
        await world.put("p", precious=True)
        for attempt in (world.plan, world.back_to):
            with pytest.raises(Rejected, match="memory/p is protected"):
                await attempt(source.height)


async def test_it_is_exactly_the_plan_that_was_shown(path):
    async with running(path) as world:
        source = await world.put("a", size=1)
        await world.put("a", size=2)
        plan = await world.plan(source.height)
        path.plugin.host["a"]["size"] = 7
        with pytest.raises(Stale, match="changed since the plan was made"):
            await world.back_to(source.height, expected_plan=plan.digest)
        assert path.plugin.host == {"a": {"size": 7}}
        plan = await world.plan(source.height)
        await world.put("b", size=1)
        with pytest.raises(Stale):
            await world.back_to(source.height, expected_plan=plan.digest)


async def test_a_document_comes_back_as_whose_it_was(path):
    async with running(path) as world:
        private = FileAttributes(0o600, 1000, 1000, 5)
        source = await world.sequencer.submit(Request((Change(A, b'{"size": 1}', private),), ALICE))
        await world.sequencer.submit(delete("a"))
        await world.back_to(source.height)
        found = world.sequencer.catalog.get(A).attributes
        assert (found.mode, found.uid, found.gid) == (0o600, 1000, 1000)
        assert found.mtime_ns > 5


async def test_a_history_that_lies_is_not_believed(path):
    async with running(path) as world:
        await world.put("a", size=1)
        source = await world.put("b", size=1)
        await world.put("a", size=2)
        await world.plan(source.height)
        world.history._events.pop(0)
        world.history._events.insert(0, world.history._events[0])
        with pytest.raises(IntegrityError, match="does not have the documents of block"):
            await world.back_to(source.height)


async def test_a_rollback_is_undone_by_another(path):
    async with running(path) as world:
        await world.put("a", size=1)
        await world.put("a", size=2)
        await world.put("b", size=3)
        await world.back_to(1)
        assert path.plugin.host == {"a": {"size": 1}}
        await world.back_to(3)
        assert path.plugin.host == {"a": {"size": 2}, "b": {"size": 3}}
        await world.back_to(0)
        assert path.plugin.host == {}


async def test_one_that_a_crash_cuts_short_is_undone_at_the_next_start(path):
    async with running(path) as world:
        await world.put("a", size=1)
        source = await world.put("b", colour="red")
        await world.put("a", size=2)
        await world.put("b", colour="blue")
        before = {name: dict(found) for name, found in path.plugin.host.items()}
        path.plugin.hang_steps = {"set colour"}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.back_to, source.height)
            await path.plugin.hanging.wait()
            assert path.plugin.host["a"] == {"size": 1}  # half of it is done
            nursery.cancel_scope.cancel()
        # the path stops here with the request under way, as a daemon does that is killed
    path.plugin.hang_steps = set()
    async with running(path) as world:
        assert path.plugin.host == before
        assert {(event.op, event.actor["source"]) for event in path.events()[-2:]} == {("apply-failed", "recovery")}
        await world.back_to(source.height)
        assert path.plugin.host == {"a": {"size": 1}, "b": {"colour": "red"}}


async def write_many(world, count, **settings):
    changes = [
        Change(ElementId("memory", f"e{number}"), json.dumps({"size": number, **settings}).encode())
        for number in range(count)
    ]
    return await world.sequencer.submit(Request(tuple(changes), ALICE))


async def test_many_are_observed_together_and_worked_on_side_by_side(path):
    async with running(path) as world:
        source = await write_many(world, 200)
        await write_many(world, 200, colour="red")
        observed, most, now = path.plugin.observe_count, 0, 0
        apply = path.plugin.apply

        async def count(action):
            nonlocal most, now
            now += 1
            most = max(most, now)
            try:
                return await apply(action)
            finally:
                now -= 1

        path.plugin.apply = count
        made = await world.back_to(source.height)
        assert made.height == source.height + 2
        assert path.plugin.host == {f"e{number}": {"size": number} for number in range(200)}
        assert path.plugin.observe_count - observed == 1 + 200  # once for the plan, and each is verified
        assert 1 < most <= 32


async def test_many_that_fail_in_the_middle_are_all_undone(path):
    async with running(path) as world:
        source = await write_many(world, 200)
        await write_many(world, 100, colour="red")
        await world.sequencer.submit(write("e150", size=1, colour="red"))
        before = {name: dict(found) for name, found in path.plugin.host.items()}
        apply, seen = path.plugin.apply, []

        async def break_down(action):
            seen.append(action.element)
            if len(seen) == 50:
                raise ApplyFailed("the backend is tired")
            return await apply(action)

        path.plugin.apply = break_down
        with pytest.raises(ApplyFailed, match=r"tired.*everything was undone"):
            await world.back_to(source.height)
        assert path.plugin.host == before
        assert len(set(seen)) < 101  # what had not begun is not begun any more


async def test_of_many_needed_ones_still_come_first(path):
    async with running(path) as world:
        await write_many(world, 20)
        source = await write_many(world, 100, after="z")
        assert source  # they wait for z, which is not there
        await world.put("z", size=0)
        await until(lambda: len(path.plugin.host) == 101)
        all_there = world.sequencer.catalog.head
        await world.back_to(0)
        assert path.plugin.host == {}
        assert path.plugin.applied[-1] == "remove z"
        path.plugin.applied.clear()
        await world.back_to(all_there.height)
        assert path.plugin.applied[0] == "add z"
        assert len(path.plugin.host) == 101


@pytest.mark.parametrize(
    ("words", "when", "rest"),
    [
        ("41", "41", []),
        ("41 lxc/100 net", "41", ["lxc/100", "net"]),
        ("2 hours ago lxc", "2 hours ago", ["lxc"]),
        ("a week ago", "a week ago", []),
        ("yesterday lxc/100", "yesterday", ["lxc/100"]),
        ("before-upgrade net/br0", "before-upgrade", ["net/br0"]),
        ("00000041-9f86d081884c", "00000041-9f86d081884c", []),
        ("2026-11-03T14:00 lxc", "2026-11-03T14:00", ["lxc"]),
    ],
)
def test_when_is_told_from_what(words, when, rest):
    assert split_when(words.split()) == (when, rest)


@pytest.mark.parametrize("words", ["", "lxc/100", "-1", "//"])
def test_what_names_no_block_is_refused(words):
    with pytest.raises(InvalidRequest, match="a block, a time or a label"):
        split_when(words.split())
