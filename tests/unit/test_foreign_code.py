"""Plugins are foreign code: whatever one of their functions does, the writer is told, and opfs goes on."""

import pytest
import trio
from commitpath import delete, write

from opfs.core.action import Action, Checkpoint, Kind, StateDiff
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed, ApplyTimeout

A = ElementId("memory", "a")


@pytest.fixture
def path(path, autojump_clock):
    path.plugin.apply_timeout_s = 0.1
    return path


async def works_again(path, sequencer):
    assert sequencer.failsafe.reason is None
    await sequencer.submit(write("z", size=1))
    assert path.plugin.host["z"] == {"size": 1}


NOT_AN_ACTION = StateDiff("memory", ("not an action",))
GARBAGE = {
    "observe": [None, ["a"], {"a": "not a document"}],
    "plan": [None, "plan", NOT_AN_ACTION],
    "compare": [None, 7, ["not a difference", NotImplemented]],
    "checkpoint": ["not a checkpoint"],
    "apply": [None, "done"],
}


@pytest.mark.parametrize(
    ("method", "answer"), [(method, answer) for method, answers in GARBAGE.items() for answer in answers], ids=str
)
async def test_nonsense_is_the_plugins_failure(path, caplog, method, answer):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", colour="red"))
        original = getattr(path.plugin, method)

        async def later(*_, **__):
            await trio.lowlevel.checkpoint()
            return answer

        nonsense = later if method in ("observe", "apply", "checkpoint") else lambda *_, **__: answer
        setattr(path.plugin, method, nonsense)
        with pytest.raises(ApplyFailed):
            await sequencer.submit(write("a", colour="red", size=1))
        setattr(path.plugin, method, original)
        await works_again(path, sequencer)


async def test_a_bug_in_is_protected(path, caplog):
    async with path.started() as sequencer:
        await sequencer.submit(write("a"))
        path.plugin.is_protected = lambda *_: {}["a bug"]
        with pytest.raises(ApplyFailed, match="has a bug"):
            await sequencer.submit(delete("a"))
        del path.plugin.is_protected
        assert sequencer.catalog.get(A) is not None
        await works_again(path, sequencer)


class OddlyMade(ApplyFailed):
    def __init__(self, code, words):
        super().__init__(f"{words} ({code})")


async def test_an_error_of_the_plugins_own_class(path):
    async with path.started() as sequencer:
        apply = path.plugin.apply

        async def refuse(action):
            if action.step == "set size":
                raise OddlyMade(7, "the backend says no")
            return await apply(action)

        path.plugin.apply = refuse
        with pytest.raises(ApplyFailed, match=r"the backend says no \(7\)\. done before that: .*everything was undone"):
            await sequencer.submit(write("a", size=1))
        path.plugin.apply = apply
        await works_again(path, sequencer)


@pytest.mark.parametrize("method", ["rollback", "release"])
async def test_an_undo_that_hangs_is_stopped_and_told(path, caplog, method):
    async def hang(*_):
        await trio.sleep_forever()

    async def nothing(*_):
        await trio.lowlevel.checkpoint()

    async def mark(element):
        await trio.lowlevel.checkpoint()
        return Checkpoint("1", "memory", element)

    path.plugin.checkpoint, path.plugin.rollback, path.plugin.release = mark, nothing, nothing
    setattr(path.plugin, method, hang)
    path.plugin.refuse_steps.add("set size")
    async with path.started() as sequencer:
        told = (
            r"NOT undone: memory/a: .*was still at work"
            if method == "rollback"
            else "NOT undone: memory/a: memory/a is not as"
        )
        with pytest.raises(ApplyFailed, match=told):
            await sequencer.submit(write("a", size=1))
        del path.plugin.checkpoint
        path.plugin.refuse_steps.clear()
        await works_again(path, sequencer)


async def test_a_hang_that_has_done_its_work_is_undone(path):
    apply = path.plugin.apply

    async def late(action):
        result = await apply(action)
        if action.step == "set size":
            path.plugin.apply = apply
            await trio.sleep_forever()
        return result

    path.plugin.apply = late
    async with path.started() as sequencer:
        await sequencer.submit(write("a", colour="red"))
        with pytest.raises(ApplyTimeout, match=r"done before that: did set colour of a\. everything was undone"):
            await sequencer.submit(write("a", colour="blue", size=1))
        assert path.plugin.host == {"a": {"colour": "red"}}
        await works_again(path, sequencer)


async def test_text_without_utf8_is_recorded_all_the_same(path):
    apply = path.plugin.apply

    async def refuse(action):
        if action.step == "set size":
            raise ApplyFailed("no such file: \udcff\udcfe" + "x" * 10_000)
        return await apply(action)

    path.plugin.apply = refuse
    async with path.started() as sequencer:
        with pytest.raises(ApplyFailed):
            await sequencer.submit(write("a", size=1))
        assert path.events()[-1].message.startswith("no such file: ??xxx")


async def test_a_plan_with_text_without_utf8_is_the_plugins_failure(path, caplog):
    path.plugin.plan = lambda element, current, desired: StateDiff(
        "memory", (Action(Kind.CREATE, element, "add", "add \udcff"),)
    )
    async with path.started() as sequencer:
        with pytest.raises(ApplyFailed):
            await sequencer.submit(write("a"))
        del path.plugin.plan
        await works_again(path, sequencer)
