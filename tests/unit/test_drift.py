"""Drift: seen where the backend reports and where it must be asked, recorded once, corrected where configured."""

import pytest
import trio
import trio.testing
from commitpath import delete, until, write

from opfs.commit import drift as drift_module
from opfs.commit import following
from opfs.commit.described import describe_event
from opfs.commit.live import Live
from opfs.core.meta import Mode
from opfs.core.names import ElementId
from opfs.core.rules import PluginRules
from opfs.core.standing import Kind
from opfs.errors import ApplyFailed, ApplyTimeout, NoSpace
from opfs.ports import Capabilities, Sighting

A, B = (ElementId("memory", name) for name in "ab")
FAST = PluginRules(poll_interval_s=0.1)


@pytest.fixture
def path(path):
    path.follows_drift = True
    return path


@pytest.fixture(params=["watched", "polled"])
def tell(request, path):
    """Tells opfs of a change the way the backend can; the change itself is the test's."""
    if request.param == "watched":
        path.rules["memory"] = PluginRules(poll_interval_s=0)
        return lambda element: path.plugin.sighted.send_nowait(Sighting(element, "uid 1000, pid 7 (ip)"))
    path.rules["memory"] = FAST
    path.plugin.capabilities = Capabilities(watch=False)
    return lambda element: None


def ops(path):
    return [event.op for event in path.events()]


async def looked_again(path):
    """Return after a whole look that began after the call: the second at the latest."""
    for _ in range(2):
        observed = path.plugin.observe_count
        path.plugin.sighted.send_nowait(Sighting(None))
        await until(lambda before=observed: path.plugin.observe_count > before)


async def test_a_change_by_somebody_else_becomes_an_event_once(path, tell):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1, colour="red"))
        path.plugin.host["a"]["size"] = 7
        tell("a")
        await until(lambda: sequencer.status(A) == "drifted: /size: wanted 1, found 7")
        tell("a")
        path.plugin.host["a"]["colour"] = "blue"
        tell("a")
        await until(lambda: "colour" in sequencer.status(A))
        assert [report.id for report in path.drift.current()] == [A]
        assert path.drift.of(B) is None
    _, first, second = path.events()
    assert (first.op, first.message, first.content, first.actor["source"]) == (
        "drift",
        "/size: wanted 1, found 7",
        path.events()[0].content,
        "drift",
    )
    assert second.message == '/colour: wanted "red", found "blue"; /size: wanted 1, found 7'
    if path.rules["memory"] is not FAST:
        assert first.actor["command"] == "uid 1000, pid 7 (ip)"


async def test_drift_that_is_gone_shows_and_would_be_news(path, tell):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        for _ in range(2):
            path.plugin.host["a"]["size"] = 7
            tell("a")
            await until(lambda: sequencer.status(A).startswith("drifted"))
            path.plugin.host["a"]["size"] = 1
            tell("a")
            await until(lambda: sequencer.status(A) == "committed")
            assert path.drift.current() == []
    assert ops(path) == ["create", "drift", "drift"]


async def test_what_is_on_record_is_not_recorded_again_after_a_restart(path, tell):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("b", size=1))
        path.plugin.host["a"]["size"] = 7
        tell("a")
        await until(lambda: sequencer.status(A).startswith("drifted"))
        (report,) = path.drift.current()
    (path.directory / "tips").unlink()
    async with path.started() as sequencer:
        assert sequencer.status(A).startswith("drifted")
        del path.plugin.host["b"]["size"]
        tell("b")
        await until(lambda: sequencer.status(B).startswith("drifted"))
        again = path.drift.of(A)
        assert (again.text, again.culprit) == (report.text, report.culprit)
        assert again.since_ns
    assert [(event.op, str(event.id)) for event in path.events()[2:]] == [("drift", "memory/a"), ("drift", "memory/b")]
    path.plugin.host["a"]["size"] = 1
    async with path.started() as sequencer:
        await until(lambda: sequencer.status(A) == "committed")


async def test_an_element_that_vanished_has_drifted(path, tell):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        del path.plugin.host["a"]
        tell("a")
        await until(lambda: sequencer.status(A) == 'drifted: /: wanted {"size": 1}, found nothing')
        await sequencer.submit(write("a", size=1))
        assert sequencer.status(A) == "committed"
        await sequencer.submit(delete("a"))
        assert path.drift.current() == []
    assert ops(path) == ["create", "drift", "apply", "delete"]


async def test_our_own_changes_are_no_drift(path):
    path.plugin.hang_steps.add("set size")
    async with path.started() as sequencer, trio.open_nursery() as nursery:
        await sequencer.submit(write("a", colour="red"))
        nursery.start_soon(sequencer.submit, write("a", colour="blue", size=1))
        await path.plugin.hanging.wait()
        assert path.plugin.host["a"]["colour"] == "blue"
        await looked_again(path)
        assert sequencer.status(A) == "committed"
        path.plugin.host["a"]["size"] = 1
        nursery.cancel_scope.cancel()
    assert ops(path) == ["create"]


async def test_a_change_in_the_shadow_of_our_own_is_seen_afterwards(path):
    done, gate = trio.Event(), trio.Event()
    apply, compare = path.plugin.apply, path.plugin.compare

    async def slow(action):
        result = await apply(action)
        done.set()
        await gate.wait()
        return result

    async with path.started() as sequencer:
        await sequencer.submit(write("a", colour="red"))
        await sequencer.submit(write("b", colour="red"))
        path.plugin.apply = slow
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sequencer.submit, write("b", colour="red", size=1))
            await done.wait()
            path.plugin.host["b"]["colour"] = "green"
            path.plugin.sighted.send_nowait(Sighting("b"))
            await looked_again(path)
            # what was seen by verifying may be older than the change
            path.plugin.compare = lambda element, desired, observed: ()
            gate.set()
        path.plugin.compare = compare
        await until(lambda: sequencer.status(B) == 'drifted: /colour: wanted "red", found "green"')


async def test_where_configured_the_document_is_applied_again(path, tell):
    path.rules["memory"] = PluginRules(correct_drift=True, poll_interval_s=path.rules["memory"].poll_interval_s)
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        path.plugin.host["a"]["size"] = 7
        tell("a")
        await until(lambda: len(path.events()) == 3 and sequencer.status(A) == "committed")
        assert path.plugin.host["a"]["size"] == 1
    assert ops(path) == ["create", "drift", "apply"]
    assert path.events()[-1].actor["source"] == "drift"


async def test_a_correction_that_fails_says_so_and_is_not_repeated(path):
    path.rules["memory"] = PluginRules(correct_drift=True)
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("b"))
        path.plugin.host["a"]["size"] = 7
        path.plugin.refuse_steps.add("set size")
        path.plugin.sighted.send_nowait(Sighting("a"))
        await until(lambda: sequencer.status(A).startswith("failed"))
        await looked_again(path)
        assert path.plugin.host["a"]["size"] == 7
        path.plugin.refuse_steps.clear()
        await sequencer.submit(write("a", size=1))
        assert sequencer.status(A) == "committed"
    assert ops(path) == ["create", "create", "drift", "apply-failed", "apply"]


async def test_a_waiting_element_is_applied_when_what_it_needs_comes_by_itself(path, tell):
    async with path.started() as sequencer:
        await sequencer.submit(write("b", after="a"))
        await until(lambda: path.plugin.observe_count >= 2)
        path.plugin.host["a"] = {}
        tell("a")
        await until(lambda: sequencer.status(B) == "committed")
    assert path.events()[-1].actor["command"] == "memory was looked at"
    assert ops(path) == ["create", "apply"]


async def test_waiting_and_failed_elements_have_not_drifted(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("b", after="a"))
        await looked_again(path)
        assert sequencer.catalog.unsettled[B].kind is Kind.WAITING
    assert ops(path) == ["create"]


async def test_a_watch_that_breaks_is_begun_again(path, caplog, monkeypatch):
    monkeypatch.setattr(following, "FIRST_RETRY_S", 0.01)
    watch = path.plugin.watch
    breaks = iter([ApplyFailed("the bus went away"), KeyError("a bug"), None])

    async def breaking(report):
        error = next(breaks, "none left")
        if error != "none left":
            if error is not None:
                raise error
            return
        await watch(report)

    path.plugin.watch = breaking
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        path.plugin.host["a"]["size"] = 7
        await until(lambda: sequencer.status(A).startswith("drifted"))
        await until(lambda: "stopped watching" in caplog.text)
    for told in ("the bus went away", "has a bug in its watch", "stopped watching"):
        assert told in caplog.text


async def test_a_backend_that_cannot_be_looked_at_is_named(path, caplog):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))

        async def away(elements, *, desired=None):
            raise ApplyFailed("the backend is away")

        path.plugin.observe = away
        path.plugin.sighted.send_nowait(Sighting("a"))
        await until(path.drift.failures)
        assert path.drift.failures() == {"memory": "the backend is away"}
        del path.plugin.observe
        path.plugin.sighted.send_nowait(Sighting("a"))
        await until(lambda: not path.drift.failures())
    assert "the backend is away" in caplog.text


@pytest.mark.parametrize("method", ["observe", "compare"])
async def test_a_bug_of_the_plugin_stops_nothing(path, caplog, method):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))

        def broken(*_, **__):
            raise KeyError("a bug")

        setattr(path.plugin, method, broken)
        path.plugin.sighted.send_nowait(Sighting("a"))
        await until(path.drift.failures)
        delattr(path.plugin, method)
        path.plugin.host["a"]["size"] = 7
        path.plugin.sighted.send_nowait(Sighting("a"))
        await until(lambda: sequencer.status(A).startswith("drifted"))
        assert sequencer.failsafe.reason is None
    assert "a bug" in caplog.text


async def test_one_element_that_cannot_be_compared_hides_no_other(path, caplog):
    compare = path.plugin.compare

    def broken(element, desired, observed):
        return {}["a bug"] if element == "a" else compare(element, desired, observed)

    async with path.started() as sequencer:
        for name in "ab":
            await sequencer.submit(write(name, size=1))
            path.plugin.host[name]["size"] = 7
        path.plugin.compare = broken
        path.plugin.sighted.send_nowait(Sighting(None))
        await until(lambda: sequencer.status(B).startswith("drifted"))
        assert "memory/a: the plugin memory has a bug" in path.drift.failures()["memory"]


async def test_drift_that_could_not_be_recorded_is_looked_at_again(path, caplog, monkeypatch):
    monkeypatch.setattr(drift_module, "RETRY_S", 0.01)
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        path.store.fail("snapshot", NoSpace("the pool is full"))
        path.plugin.host["a"]["size"] = 7
        path.plugin.sighted.send_nowait(Sighting("a"))
        await until(lambda: sequencer.status(A).startswith("drifted"))
    assert "is not recorded: the pool is full" in caplog.text


async def test_a_plugin_whose_observations_prove_nothing_has_no_drift(path):
    path.plugin.capabilities = Capabilities(supports_verification=False, watch=True)
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        before = path.plugin.observe_count
        path.plugin.host.clear()
        path.plugin.sighted.send_nowait(Sighting(None))
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked()
        assert (sequencer.status(A), path.plugin.observe_count) == ("committed", before)


async def test_an_editor_that_is_open_meanwhile_is_not_stale(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        base = sequencer.catalog.get(A).last_event
        path.plugin.host["a"]["size"] = 7
        path.plugin.sighted.send_nowait(Sighting("a"))
        await until(lambda: sequencer.status(A).startswith("drifted"))
        await sequencer.submit(write("a", base_event=base, size=2))
        assert sequencer.status(A) == "committed"
        assert sequencer.catalog.get(A).author == "alice"
    assert ops(path) == ["create", "drift", "update"]


async def test_a_thousand_that_drift_at_once_share_blocks(path):
    async with path.started() as sequencer:
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(sequencer.submit, write(str(number), size=1))
        before = len(sequencer.blocks)
        for found in path.plugin.host.values():
            found["size"] = 2
        path.plugin.sighted.send_nowait(Sighting(None))
        await until(lambda: len(sequencer.catalog.unsettled) == 1000)
        assert len(sequencer.blocks) - before < 200
        assert len(path.drift.current()) == 1000


# --- what readers of the host get


async def test_what_is_there_now(path):
    path.follows_drift = False
    async with path.started() as sequencer:
        live = Live(sequencer, timeout_s=5)
        await sequencer.submit(write("a", size=1))
        path.plugin.host["a"]["size"] = 7
        path.plugin.host["b"] = {"colour": "red"}
        look = await live.look(A)
        assert (look.content, look.desired, look.observed) == (b'{"size": 1}', {"size": 1}, {"size": 7})
        assert [str(difference) for difference in look.differences] == ["/size: wanted 1, found 7"]
        assert (await live.look(B)).observed == {"colour": "red"}
        assert (await live.look(B)).differences == ()
        assert await live.observe_all("memory") == {"a": {"size": 7}, "b": {"colour": "red"}}
        assert await live.undeclared("memory") == {"b": {"colour": "red"}}
        assert set(await live.look_all("memory")) == {"a"}


async def test_a_reader_of_the_host_does_not_wait_for_ever(path):
    path.follows_drift = False
    async with path.started() as sequencer:

        async def hang(elements, *, desired=None):
            await trio.sleep_forever()

        path.plugin.observe = hang
        with pytest.raises(ApplyTimeout, match=r"within 0\.05 s"):
            await Live(sequencer, timeout_s=0.05).look(A)


async def test_modes_are_no_business_of_a_reader(path):
    path.follows_drift = False
    path.rules["memory"] = PluginRules(mode=Mode.OBSERVE)
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        assert (await Live(sequencer).look(A)).differences


async def test_in_words_it_is_the_culprits(path):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        path.plugin.host["a"]["size"] = 7
        path.plugin.sighted.send_nowait(Sighting("a", "uid 1000, pid 7 (ip)"))
        await until(lambda: sequencer.status(A).startswith("drifted"))
    create, drift = path.store.list_blocks()[1:]
    indexed = describe_event(path.store, path.events()[-1], drift, create)
    assert indexed.summary == "/size: wanted 1, found 7"
    assert indexed.text == (
        "Somebody changed by hand, without opfs (drift): memory element a. size should be 1 and is 7. "
        "By uid 1000, pid 7 (ip)."
    )
