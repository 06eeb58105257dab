"""A plugin that keeps the trio thread to itself is interrupted there: everybody else is served, the writer is told."""

import re
import signal
import threading
import time

import pytest
import trio
from commitpath import CommitPath, write

from opfs.commit import foreign, interrupting, validation
from opfs.commit.following import Follower
from opfs.core.rules import PluginRules
from opfs.errors import ApplyFailed, ApplyTimeout
from opfs.ports import Capabilities
from opfs.testing.memoryhost import MemoryPlugin

TOLD = "kept everybody waiting"


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(foreign, "REST_S", 0.0)
    commit_path = CommitPath(tmp_path)
    yield commit_path
    assert commit_path.findings() == []


@pytest.fixture
def stuck(monkeypatch):
    """Functions that never return. Little time is given to them alone, from within, and to nothing before or after."""

    def given_little_time(function):
        def hurried(*_, **__):
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.01, 0.01)
            monkeypatch.setattr(interrupting, "LOOK_EVERY_S", 0.01)
            monkeypatch.setattr(interrupting, "LIMIT_S", 0.02)
            try:
                return function()
            finally:
                given_time(monkeypatch)

        return hurried

    return {name: given_little_time(function) for name, function in STUCK.items()}


def loop():
    while True:
        pass


def swallow():
    while True:
        try:
            raise ValueError
        except Exception:
            continue


STUCK = {
    "loop": loop,
    "swallow": swallow,
    "sleep": lambda: time.sleep(1e6),
    "pattern": lambda: re.match(r"(a+)+$", "a" * 60 + "b"),
}


def given_time(monkeypatch):
    monkeypatch.setattr(interrupting, "LIMIT_S", 10.0)
    monkeypatch.setattr(interrupting, "LOOK_EVERY_S", 0.5)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.5, 0.5)


@pytest.mark.parametrize("how", ["loop", "sleep", "swallow", "pattern"])
@pytest.mark.parametrize("method", ["check", "plan", "compare", "depends_on"])
async def test_a_function_that_never_returns(path, stuck, monkeypatch, caplog, method, how):
    async with path.started() as sequencer:
        original = getattr(path.plugin, method)
        setattr(path.plugin, method, stuck[how])
        with pytest.raises(ApplyFailed, match=TOLD):
            await sequencer.submit(write("a", size=1))
        setattr(path.plugin, method, original)
        given_time(monkeypatch)
        assert sequencer.failsafe.reason is None
        await sequencer.submit(write("a", size=1))
        assert path.plugin.host["a"] == {"size": 1}


@pytest.mark.parametrize("method", ["observe", "apply"])
async def test_a_task_that_lets_nobody_else_run(path, stuck, monkeypatch, caplog, method):
    async def block(*arguments, **options):
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, int)
            nursery.start_soon(in_a_task_of_its_own)

    async def in_a_task_of_its_own():
        await trio.lowlevel.checkpoint()
        stuck["loop"]()

    async with path.started() as sequencer:
        original = getattr(path.plugin, method)
        setattr(path.plugin, method, block)
        with pytest.raises(ApplyFailed, match=TOLD):
            await sequencer.submit(write("a", size=1))
        setattr(path.plugin, method, original)
        given_time(monkeypatch)
        await sequencer.submit(write("a", size=1))
        assert path.plugin.host["a"] == {"size": 1}


async def test_it_is_left_alone_for_a_while(path, stuck, monkeypatch, caplog):
    monkeypatch.setattr(foreign, "REST_S", 1e6)
    async with path.started() as sequencer:
        path.plugin.plan = stuck["loop"]
        with pytest.raises(ApplyTimeout, match=TOLD) as told:
            await sequencer.submit(write("a", size=1))
        del path.plugin.plan
        given_time(monkeypatch)
        assert "left alone" in told.value.hint
        with pytest.raises(ApplyTimeout, match=r"the plugin memory had to be interrupted a moment ago"):
            await sequencer.submit(write("a", size=1))
    assert path.plugin.host == {}


async def test_what_it_had_done_is_undone(path, stuck, monkeypatch, caplog):
    monkeypatch.setattr(foreign, "REST_S", 1e6)
    apply = path.plugin.apply

    async def block(action):
        if action.step == "set size":
            stuck["loop"]()
        return await apply(action)

    async with path.started() as sequencer:
        path.plugin.apply = block
        with pytest.raises(ApplyTimeout, match=r"did set colour of a\. everything was undone"):
            await sequencer.submit(write("a", colour="red", size=1))
    assert path.plugin.host == {}


@pytest.mark.parametrize("is_slow", [False, True])
async def test_a_check_that_asks_a_program_keeps_nobody_waiting(path, is_slow):
    path.plugin.capabilities = Capabilities(watch=True, slow_check=is_slow)
    threads = []
    path.plugin.check = lambda *_: threads.append(threading.current_thread() is threading.main_thread())
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
    assert threads[0] is not is_slow


async def test_a_long_document_whose_check_never_ends(path, monkeypatch):
    monkeypatch.setattr(validation, "CHECK_TIMEOUT_S", 0.01)
    release = threading.Event()
    long = write("a", after="x" * validation.INLINE_BYTES)
    async with path.started() as sequencer:
        path.plugin.check = lambda *_: release.wait()
        try:
            with pytest.raises(ApplyTimeout, match=r"memory/a: .* was still checking the document"):
                await sequencer.submit(long)
        finally:
            release.set()
        del path.plugin.check
        await sequencer.submit(write("b", size=1))
    assert path.plugin.host == {"b": {"size": 1}}


async def test_a_watch_is_begun_again(stuck, monkeypatch, caplog, autojump_clock, nursery):
    monkeypatch.setattr(foreign, "REST_S", 0.0)
    plugin, again = MemoryPlugin(), trio.Event()
    watches = iter([stuck["loop"], again.set])

    async def watch(report):
        await trio.lowlevel.checkpoint()
        next(watches)()
        given_time(monkeypatch)
        await trio.sleep_forever()

    async def look(*_):
        await trio.lowlevel.checkpoint()

    plugin.watch = watch
    nursery.start_soon(Follower(plugin, PluginRules(), look, lambda _: None).run)
    await again.wait()
    assert f"memory cannot watch: memory: the plugin memory {TOLD}" in caplog.text


async def test_other_tasks_are_not_to_blame(path, monkeypatch):
    """What opfs or another task does meanwhile is not the plugin's, however long it takes."""
    in_apply, go_on = trio.Event(), trio.Event()
    apply = path.plugin.apply

    async def slow(action):
        in_apply.set()
        await go_on.wait()
        return await apply(action)

    path.plugin.apply = slow
    async with path.started() as sequencer, trio.open_nursery() as nursery:
        nursery.start_soon(sequencer.submit, write("a", size=1))
        await in_apply.wait()
        monkeypatch.setattr(interrupting, "LIMIT_S", 0.01)
        monkeypatch.setattr(interrupting, "LOOK_EVERY_S", 0.01)
        time.sleep(0.6)  # noqa: ASYNC251  one look may be under way at the old pace
        given_time(monkeypatch)
        go_on.set()
    assert path.plugin.host["a"] == {"size": 1}
