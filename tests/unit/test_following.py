"""How a plugin's backend is followed, in a time of the tests' own: what is gathered, how often, and who must wait."""

import itertools

import trio

from opfs.commit.following import LAST_RETRY_S, MAX_SIGHTED, Follower, Sights
from opfs.commit.patience import LAST_PAUSE_S, Patience
from opfs.core.names import ElementId
from opfs.core.rules import PluginRules
from opfs.errors import ApplyFailed
from opfs.ports import Capabilities, Sighting
from opfs.testing.memoryhost import MemoryPlugin

A, B = ElementId("memory", "a"), ElementId("memory", "b")


class Looks:
    """What a follower asks for, and when."""

    def __init__(self, plugin, rules=PluginRules(), seconds=0.0):  # noqa: B008
        self.seen = []
        self.seconds = seconds
        self.heard = []
        self.follower = Follower(plugin, rules, self.look, self.heard.append)

    async def look(self, plugin, sights, nursery):
        self.seen.append((round(trio.current_time(), 3), sights.elements and sorted(sights.elements)))
        await trio.sleep(self.seconds)


async def test_what_comes_together_is_looked_at_together(autojump_clock, nursery):
    plugin = MemoryPlugin()
    looks = Looks(plugin)
    nursery.start_soon(looks.follower.run)
    await trio.sleep(1)
    began = trio.current_time()
    for element in "abab":
        await plugin.sighted.send(Sighting(element))
        await trio.sleep(0.01)
    await trio.sleep(1)
    assert looks.seen[0][1] is None
    assert [elements for _, elements in looks.seen[1:]] == [["a", "b"]]
    assert began + 0.2 <= looks.seen[1][0] < began + 0.3
    assert looks.heard == ["memory was looked at"] * 2


async def test_a_watch_that_fails_alike_is_a_warning_once(autojump_clock, nursery, caplog):
    caplog.set_level("DEBUG")
    plugin = MemoryPlugin()
    reasons, is_over = iter(["is away"] * 5 + ["refuses us"] * 5), trio.Event()

    async def watch(report):
        await trio.lowlevel.checkpoint()
        if reason := next(reasons, ""):
            raise ApplyFailed(f"the bus {reason}")
        is_over.set()
        await trio.sleep_forever()

    plugin.watch = watch
    nursery.start_soon(Looks(plugin).follower.run)
    await is_over.wait()
    said = [record for record in caplog.records if "cannot watch" in record.message]
    warned = [record.message for record in said if record.levelname == "WARNING"]
    assert len(said) == 10
    assert [message.rpartition(" bus ")[2] for message in warned] == ["is away", "refuses us"]


async def test_what_is_never_reported_is_asked_for(autojump_clock, nursery):
    plugin = MemoryPlugin()
    plugin.capabilities = Capabilities(watch=False)
    looks = Looks(plugin, PluginRules(poll_interval_s=60))
    nursery.start_soon(looks.follower.run)
    await trio.sleep(60 * 10 + 1)
    assert len(looks.seen) == 11


async def test_zero_means_once(autojump_clock, nursery):
    plugin = MemoryPlugin()
    plugin.capabilities = Capabilities(watch=False)
    looks = Looks(plugin, PluginRules(poll_interval_s=0))
    nursery.start_soon(looks.follower.run)
    await trio.sleep(10_000)
    assert len(looks.seen) == 1


async def test_long_looks_have_longer_pauses(autojump_clock, nursery):
    plugin = MemoryPlugin()
    looks = Looks(plugin, seconds=10)
    nursery.start_soon(looks.follower.run)
    for _ in range(100):
        await plugin.sighted.send(Sighting(None))
        await trio.sleep(1)
    assert len(looks.seen) == 2


async def test_a_plugin_that_comes_to_work_later_is_followed(autojump_clock, nursery):
    plugin = MemoryPlugin()
    plugin.unavailable = "not yet"
    looks = Looks(plugin)
    nursery.start_soon(looks.follower.run)
    await trio.sleep(1000)
    assert looks.seen == []
    plugin.unavailable = None
    await trio.sleep(100)
    assert len(looks.seen) == 1


async def test_a_watch_that_never_works_is_tried_ever_more_rarely(autojump_clock, nursery, caplog):
    plugin = MemoryPlugin()
    times = []

    async def broken(report):
        times.append(trio.current_time())
        raise ApplyFailed("no bus")

    plugin.watch = broken
    looks = Looks(plugin)
    nursery.start_soon(looks.follower.run)
    await trio.sleep(600)
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert pauses[:6] == [1, 2, 4, 8, 16, 32]
    assert set(pauses[6:]) == {LAST_RETRY_S}
    assert len(looks.seen) == len(times)
    assert "no bus" in caplog.text


def test_too_many_sights_are_everything():
    sights = Sights()
    for number in range(MAX_SIGHTED):
        sights.add(str(number), "")
    assert len(sights.elements) == MAX_SIGHTED
    sights.add("0", "uid 7")
    assert sights.culprits["0"] == "uid 7"
    sights.add("one more", "")
    assert sights.elements is None


async def test_turns_grow_apart_and_calm_down(autojump_clock):
    patience, times = Patience(), []
    for _ in range(12):
        async with patience.turn(A) as is_mine:
            assert is_mine
            times.append(trio.current_time())
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    await trio.sleep(3 * LAST_PAUSE_S)
    for wanted in (0, 1):
        began = trio.current_time()
        async with patience.turn(A):
            assert round(trio.current_time() - began) == wanted


async def test_one_turn_at_a_time_for_each_element(autojump_clock):
    patience = Patience()
    async with patience.turn(A) as first, patience.turn(A) as second, patience.turn(B) as other:
        assert (first, second, other) == (True, False, True)
