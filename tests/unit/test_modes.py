"""What opfs does about an element: by the document's own word, else by the plugin's configuration; and imports."""

import json

import pytest
from commitpath import ALICE, delete, until, write

from opfs.commit.change import Change, Request
from opfs.core.meta import Mode
from opfs.core.names import ElementId
from opfs.core.rules import PluginRules
from opfs.errors import ApplyFailed, Rejected, Stale
from opfs.ports import Sighting

A, B = (ElementId("memory", name) for name in "ab")
OBSERVE = PluginRules(mode=Mode.OBSERVE)


def ops(path):
    return [event.op for event in path.events()]


async def test_observe_commits_and_leaves_the_host_alone(path):
    path.rules["memory"] = OBSERVE
    path.plugin.host["a"] = {"size": 9}
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("b", size=1, guarded=True, precious=True))
        assert sequencer.status(A) == "observed"
        await sequencer.submit(delete("b"))
        await sequencer.submit(delete("a"))
    assert (path.plugin.host, path.plugin.applied) == ({"a": {"size": 9}}, [])
    assert ops(path) == ["create", "create", "delete", "delete"]
    assert {event.plan[0]["step"] for event in path.events()} == {"observe"}


async def test_observe_records_how_the_host_differs(path):
    path.rules["memory"] = OBSERVE
    path.follows_drift = True
    path.plugin.host["a"] = {"size": 9}
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await until(lambda: sequencer.status(A) == "drifted: /size: wanted 1, found 9")
        path.plugin.host["a"]["size"] = 1
        await sequencer.submit(write("a", size=1))
        path.plugin.sighted.send_nowait(Sighting("a"))
        await until(lambda: sequencer.status(A) == "observed")
    assert ops(path) == ["create", "drift"]
    assert path.plugin.applied == []


async def test_nothing_is_corrected_that_is_only_observed(path):
    path.rules["memory"] = PluginRules(mode=Mode.OBSERVE, correct_drift=True)
    path.follows_drift = True
    path.plugin.host["a"] = {"size": 9}
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await until(lambda: sequencer.status(A).startswith("drifted"))
        await sequencer.submit(write("b", **{"$mode": "enforce"}))
    assert path.plugin.host == {"a": {"size": 9}, "b": {}}


@pytest.mark.parametrize("configured", list(Mode))
async def test_the_document_has_the_last_word(path, configured):
    path.rules["memory"] = PluginRules(mode=configured)
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1, **{"$mode": "observe"}))
        await sequencer.submit(write("b", size=1, **{"$mode": "enforce"}))
        assert path.plugin.host == {"b": {"size": 1}}
        await sequencer.submit(delete("a"))
        await sequencer.submit(delete("b"))
    assert path.plugin.host == {}


async def test_from_observing_to_enforcing_and_back(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1, **{"$mode": "observe"}))
        assert path.plugin.host == {}
        await sequencer.submit(write("a", size=1))
        assert path.plugin.host == {"a": {"size": 1}}
        assert sequencer.status(A) == "committed"
        await sequencer.submit(write("a", size=2, **{"$mode": "observe"}))
        assert path.plugin.host == {"a": {"size": 1}}
    path.rules["memory"] = OBSERVE
    async with path.started() as sequencer:
        await sequencer.submit(write("b", size=1))
    path.rules.clear()
    async with path.started() as sequencer:
        await sequencer.submit(write("b", size=1))
        assert sequencer.status(B) == "committed"
    assert path.plugin.host["b"] == {"size": 1}


async def test_what_is_only_observed_waits_for_nothing_and_is_waited_for(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", after="c", **{"$mode": "observe"}))
        assert sequencer.status(A) == "observed"
        await sequencer.submit(write("b", after="a"))
        assert sequencer.status(B) == "waiting for memory/a"
        await sequencer.submit(delete("a"))


# --- import


def importing(*changes):
    return Request(tuple(changes), ALICE, is_import=True)


async def test_what_is_there_is_imported_without_touching_it(path):
    path.plugin.host.update(a={"size": 1}, b={"after": "c"})
    async with path.started() as sequencer:
        changes = [Change(A, b'{"size": 1}'), Change(B, b'{"after": "c"}')]
        await sequencer.submit(importing(*changes))
        assert len(sequencer.blocks) == 2
        assert [sequencer.status(id) for id in (A, B)] == ["committed", "committed"]
        await sequencer.submit(importing(*changes))
        assert len(sequencer.blocks) == 2
    assert ops(path) == ["import", "import"]
    assert path.plugin.applied == []


async def test_what_is_not_there_is_not_imported(path):
    path.plugin.host["a"] = {"size": 1}
    async with path.started() as sequencer:
        with pytest.raises(Rejected, match="importing changes nothing: it would set size of a"):
            await sequencer.submit(importing(Change(A, b'{"size": 2}')))
        with pytest.raises(Rejected, match="it would add b"):
            await sequencer.submit(importing(Change(A, b'{"size": 1}'), Change(B, b"{}")))
        assert len(sequencer.blocks) == 1
    assert path.plugin.host == {"a": {"size": 1}}


# --- exact plans


async def plan(sequencer, name, **settings):
    return await sequencer.preview(write(name, **settings).changes[0], ALICE)


def exactly(preview, **settings):
    return Request((Change(preview.id, json.dumps(settings).encode(), expected_plan=preview.digest),), ALICE)


async def test_a_plan_is_carried_out_exactly(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        preview = await plan(sequencer, "a", size=2)
        assert (preview.op, preview.observed, [action.step for action in preview.actions]) == (
            "update",
            {"size": 1},
            ["set size"],
        )
        assert (path.plugin.host, len(sequencer.blocks)) == ({"a": {"size": 1}}, 2)
        await sequencer.submit(exactly(preview, size=2))
        assert path.plugin.host == {"a": {"size": 2}}
        assert (await plan(sequencer, "a", size=2)).op == "apply"


async def test_a_plan_of_a_world_that_moved_is_refused(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        preview = await plan(sequencer, "a", size=2)
        path.plugin.host["a"]["colour"] = "red"
        with pytest.raises(Stale, match="the host has changed, the plan is another"):
            await sequencer.submit(exactly(preview, size=2))
        del path.plugin.host["a"]["colour"]
        with pytest.raises(Stale, match="the plan was made: the plan is another"):
            await sequencer.submit(exactly(preview, size=3))
        await sequencer.submit(write("a", size=1, precious=False))
        with pytest.raises(Stale, match="the document has changed"):
            await sequencer.submit(exactly(preview, size=2))
        with pytest.raises(Stale):
            await sequencer.submit(
                Request((Change(A, b"{}", expected_plan="not a digest"),), ALICE),
            )


async def test_a_plan_tells_what_would_be_waited_for_and_what_left_alone(path):
    async with path.started() as sequencer:
        waiting = await plan(sequencer, "b", after="a")
        assert (waiting.waits_for, waiting.actions) == (("memory/a",), ())
        left = await plan(sequencer, "b", **{"$mode": "observe"})
        assert (left.is_observed, left.actions) == (True, ())
        await sequencer.submit(write("a"))
        with pytest.raises(Stale):
            await sequencer.submit(exactly(waiting, after="a"))


async def test_a_plan_may_not_have_opfs_own_steps(path, caplog):
    async with path.started() as sequencer:
        plan_of = path.plugin.plan

        def misleading(element, current, desired):
            diff = plan_of(element, current, desired)
            object.__setattr__(diff.actions[0], "step", "wait")
            return diff

        path.plugin.plan = misleading
        with pytest.raises(ApplyFailed, match="which is opfs' own"):
            await sequencer.submit(write("a"))
