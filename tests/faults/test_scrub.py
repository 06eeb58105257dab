"""The scrub on a real pool, under a clock that jumps over its pauses."""

from __future__ import annotations

import json
from contextlib import ExitStack, asynccontextmanager, closing

import pytest
import trio
from tampering import changed, flip

from opfs.archive.packs import ARCHIVE, Archive
from opfs.archive.store import KeptStore
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.commit.chain import Outcome, load_chain
from opfs.commit.change import Change, Request
from opfs.commit.confirmations import Confirmations
from opfs.commit.failsafe import FailSafe
from opfs.commit.journal import Journal
from opfs.commit.logbook import Logbook
from opfs.commit.sequencer import Sequencer
from opfs.commit.step import Applied
from opfs.commit.tips import Tips
from opfs.core.actor import Actor
from opfs.core.event import MAX_MESSAGE_BYTES
from opfs.core.names import ElementId
from opfs.daemon.scrub import SCRUB, Scrub
from opfs.tlog.keys import DIRECTORY as KEYS
from opfs.tlog.keys import KeyStore
from opfs.tlog.log import FileLog

pytestmark = pytest.mark.needs("root", "btrfs")

ORIGIN = "test.example/opfs"
ROUND_S = 86_400.0


class Clock:
    """Every look at it is a second later."""

    now = 1_800_000_000_000_000_000

    def now_ns(self):
        self.now += 10**9
        return self.now


class Watched(Scrub):
    """Says when it has done a block."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.noted = trio.Event()

    async def _note(self, name, found, count):
        await super()._note(name, found, count)
        self.noted.set()
        self.noted = trio.Event()


class Daemon:
    """What of a daemon the scrub needs, on a real pool; started and stopped as often as a test likes."""

    def __init__(self, pool):
        self.pool, self.clock = pool, Clock()

    @asynccontextmanager
    async def running(self, interval_s=ROUND_S):
        with ExitStack() as opened:
            snapshots = opened.enter_context(BtrfsSnapshotStore(self.pool))
            archive = Archive(self.pool / "@log" / ARCHIVE)
            store = KeptStore(snapshots, archive)
            tips = opened.enter_context(closing(Tips(self.pool / "@log" / "tips")))
            journal = opened.enter_context(closing(Journal(self.pool / "@log" / "journal")))
            chain = load_chain(store, tips, ORIGIN, self.clock.now_ns())
            keys = KeyStore(self.pool / KEYS, ORIGIN)
            logbook = opened.enter_context(closing(Logbook(FileLog.open(self.pool / "@log", ORIGIN, keys), store)))
            self.failsafe = FailSafe()
            logbook.start(chain.blocks, self.failsafe)
            confirmations = Confirmations(self.clock)
            self.sequencer = Sequencer(chain, store, logbook, journal, {}, confirmations, self.failsafe, self.clock)
            state = self.pool / "@cache" / "scrub.json"
            self.scrub = Watched(
                self.pool, state, store, archive, keys, self.sequencer, self.failsafe, self.clock, interval_s
            )
            self.events, self.heard = [], trio.Event()
            self.sequencer.on_block.append(self._hear)
            async with trio.open_nursery() as nursery:
                await nursery.start(self.sequencer.run)
                self.nursery = nursery
                yield self
                nursery.cancel_scope.cancel()

    def _hear(self, proposal):
        self.events += [event for event in proposal.events if event.id == SCRUB]
        self.heard.set()
        self.heard = trio.Event()

    async def put(self, element, content):
        id = ElementId("noop", element)
        outcome = Outcome(id, "update", content, None, {"user": "root"})
        return await self.sequencer.record(Request((Change(id, content),), Actor(0, "root")), Applied((outcome,)))

    def start_scrub(self):
        self.nursery.start_soon(self.scrub.run)

    async def next_event(self):
        count = len(self.events)
        while len(self.events) == count:
            await self.heard.wait()
        return self.events[-1]


@pytest.fixture
def daemon(pool_dir):
    return Daemon(pool_dir)


async def test_a_round_without_findings_takes_its_time_and_is_one_event(daemon, autojump_clock):
    async with daemon.running():
        for number in range(4):
            await daemon.put(f"e{number}", b"{}")
        begin = trio.current_time()
        daemon.start_scrub()
        event = await daemon.next_event()
        assert (event.op, event.content, event.actor["source"]) == ("scrub", None, "scrub")
        assert event.message == "5 blocks and the log were verified: everything agrees"
        assert ROUND_S <= trio.current_time() - begin < 1.5 * ROUND_S
        event = await daemon.next_event()
        assert event.message.startswith("6 blocks")
        assert daemon.scrub.findings == []


async def test_what_disagrees_is_an_event_and_in_the_report_until_a_round_without_it(daemon, autojump_clock):
    async with daemon.running():
        for number in range(4):
            name = await daemon.put(f"e{number}", b"{}")
        block = daemon.pool / "@chain" / str(name)
        with changed(block / "state/noop/e1.json", flip, block):
            daemon.start_scrub()
            event = await daemon.next_event()
            assert event.message.startswith(f"{name}/state/noop/e1.json: stored bytes: ")
            assert any(line.startswith(f"WRONG: {name}/state/noop/e1.json") for line in daemon.scrub.report())
        while not (event := await daemon.next_event()).message.endswith("everything agrees"):
            pass
        assert not any("WRONG" in line for line in daemon.scrub.report())


async def test_a_damaged_log_is_found(daemon, autojump_clock):
    async with daemon.running():
        await daemon.put("e", b"{}")
        tile = max((daemon.pool / "@log" / "tile" / "0").glob("000.p/*"))
        with changed(tile, flip):
            daemon.start_scrub()
            assert "@log/tile/0/000.p/" in (await daemon.next_event()).message


async def test_many_findings_fit_into_an_event(daemon, autojump_clock):
    async with daemon.running():
        for number in range(60):
            name = await daemon.put(f"e{number}", b"{}")
        block = daemon.pool / "@chain" / str(name)
        with ExitStack() as tampered:
            for number in range(60):
                tampered.enter_context(changed(block / f"state/noop/e{number}.json", flip, block))
            daemon.start_scrub()
            event = await daemon.next_event()
        assert len(event.message.encode()) == MAX_MESSAGE_BYTES
        assert daemon.scrub.report()[-1].endswith("opfs verify lists them")


async def test_a_round_goes_on_after_a_restart(daemon, autojump_clock):
    state = daemon.pool / "@cache" / "scrub.json"
    async with daemon.running():
        for number in range(9):
            await daemon.put(f"e{number}", b"{}")
        daemon.start_scrub()
        await daemon.scrub.noted.wait()
    done = json.loads(state.read_text())["height"] + 1
    assert 0 < done < 10
    async with daemon.running():
        begin = trio.current_time()
        daemon.start_scrub()
        assert (await daemon.next_event()).message.startswith("10 blocks")
        assert trio.current_time() - begin == pytest.approx((11 - done) * ROUND_S / 10)


async def test_switched_off(daemon, autojump_clock):
    async with daemon.running(interval_s=0):
        await daemon.scrub.run()
        assert daemon.scrub.report() == ["off"]


async def test_a_pool_in_fail_safe_mode_is_scrubbed_and_not_written(daemon, autojump_clock):
    async with daemon.running():
        name = await daemon.put("e", b"{}")
        daemon.failsafe.enter("a test")
        block = daemon.pool / "@chain" / str(name)
        with changed(block / "state/noop/e.json", flip, block):
            daemon.start_scrub()
            while not any("WRONG" in line for line in daemon.scrub.report()):
                await daemon.scrub.noted.wait()
            assert daemon.events == []
