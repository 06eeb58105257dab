"""The scrub: every block and the log are verified again and again, slowly, while the daemon works.

One block at a time in a worker thread of low priority, spread over `interval_s`, so that a round takes about that
long however many blocks there are. A round goes on after a restart. What disagrees becomes an event at once; a
round that found nothing ends with one. The index is left to `opfs verify`. Trio thread.
"""

from __future__ import annotations

import json
import logging
from contextlib import closing, suppress
from typing import TYPE_CHECKING, TypeVar

import trio

from opfs.archive.reader import KeptReader
from opfs.btrfs.digests import BlockDigester
from opfs.btrfs.store import CHAIN
from opfs.commit.chain import Outcome
from opfs.commit.change import Change, Request
from opfs.commit.derive import low_priority
from opfs.commit.step import Applied
from opfs.commit.verify import FULL, Verification
from opfs.core.actor import Actor
from opfs.core.event import MAX_MESSAGE_BYTES
from opfs.core.names import OWN_EVENTS, ElementId
from opfs.core.timestamp import format_time
from opfs.tlog.audit import LogAudit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from opfs.archive.packs import Archive
    from opfs.archive.store import KeptStore
    from opfs.commit.failsafe import FailSafe
    from opfs.commit.sequencer import Sequencer
    from opfs.core.audit import Finding
    from opfs.core.names import BlockName
    from opfs.ports import Clock
    from opfs.tlog.keys import KeyStore

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)

SCRUB = ElementId(OWN_EVENTS, "scrub")
OP = "scrub"
_ACTOR = Actor(uid=0, user="root", command="opfs", source="scrub")
_SHOWN_FINDINGS = 5


class Scrub:
    """Verifies the pool at `pool` in rounds of `interval_s`; `state` is a file for how far it is."""

    def __init__(
        self,
        pool: Path,
        state: Path,
        store: KeptStore,
        archive: Archive,
        keys: KeyStore,
        sequencer: Sequencer,
        failsafe: FailSafe,
        clock: Clock,
        interval_s: float,
    ) -> None:
        self._pool = pool
        self._state = state
        self._store = store
        self._archive = archive
        self._keys = keys
        self._sequencer = sequencer
        self._failsafe = failsafe
        self._clock = clock
        self._interval_s = interval_s
        self._thread = trio.CapacityLimiter(1)
        self._done = self._total = 0
        self._last_round = ""
        self.findings: list[Finding] = []
        """What the last round, or this one so far, found."""
        self.failure: str | None = None
        """Why it stands still, or None."""

    def report(self) -> Sequence[str]:
        """For /status: where it is, and what is wrong."""
        if not self._interval_s:
            return ["off"]
        if self.failure is not None:
            return [f"stands still: {self.failure}"]
        place = f"block {self._done} of {self._total}" if self._total else "waiting for its first block"
        lines = [f"{place}; {self._last_round or 'the first round'}"]
        lines += [f"WRONG: {finding}" for finding in self.findings[:_SHOWN_FINDINGS]]
        if len(self.findings) > _SHOWN_FINDINGS:
            lines.append(f"and {len(self.findings) - _SHOWN_FINDINGS} more: opfs verify lists them")
        return lines

    async def run(self) -> None:
        """Go round until cancelled; returns at once where it is switched off."""
        if not self._interval_s:
            return
        since, findings_before = await trio.to_thread.run_sync(self._load)
        try:
            while True:
                await self._go_round(since, findings_before)
                since, findings_before = 0, 0
        except Exception as error:
            log.exception("the scrub stands still")
            self.failure = str(error)

    async def _go_round(self, since: int, findings_before: int) -> None:
        """One round over the blocks that there are now, from `since` on."""
        audit = LogAudit(self._pool / "@log", self._sequencer.origin, self._keys)
        with closing(BlockDigester(self._pool / CHAIN)) as reader:
            blocks = KeptReader(reader, self._store, self._archive, FULL)
            verification = Verification(self._store, blocks, since, true_header=audit.true_header)
            self._total, self._done = len(verification.blocks), since
            steps = verification.run()
            findings: list[Finding] = []
            while True:
                await trio.sleep(self._interval_s / max(self._total, 1))
                step = await self._in_thread(_advance, steps)
                if step is None:
                    break
                name, found = step
                self._done += 1
                findings += found
                await self._note(name, found, findings_before + len(findings))
        in_log = await self._in_thread(lambda: list(audit.check(verification.leaves_now, settled=self._total)))
        await self._note(None, in_log, 0)
        self.findings = findings + in_log
        count = findings_before + len(self.findings)
        verdict = f"{count} things do not agree" if count else "everything agrees"
        self._last_round = f"the round that ended {format_time(self._clock.now_ns())[:19]}Z: {verdict}"
        if not count:
            await self._record(f"{self._total} blocks and the log were verified: everything agrees")

    async def _note(self, name: BlockName | None, found: Sequence[Finding], count: int) -> None:
        """Remember how far the round is, and record what was found."""
        if found:
            self.findings = [*self.findings, *(finding for finding in found if finding not in self.findings)]
            for finding in found:
                log.error("scrub: %s", finding)
            await self._record("; ".join(map(str, found)))
        await trio.to_thread.run_sync(self._save, -1 if name is None else name.height, count)

    async def _record(self, message: str) -> None:
        if self._failsafe.reason is not None:
            return
        text = message.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
        outcome = Outcome(SCRUB, OP, None, None, _ACTOR.to_json(), message=text, changes_document=False)
        await self._sequencer.record(Request((Change(SCRUB, None),), _ACTOR, text), Applied((outcome,)))

    async def _in_thread(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        return await trio.to_thread.run_sync(low_priority()(function), *arguments, limiter=self._thread)

    # --- in a worker thread ----------------------------------------------------------------------------

    def _load(self) -> tuple[int, int]:
        """Where the round goes on, and how many findings it had."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads(self._state.read_text())
            return int(state["height"]) + 1, int(state["findings"])
        return 0, 0

    def _save(self, height: int, findings: int) -> None:
        """Not synced: what a power cut takes is verified again."""
        temporary = self._state.with_suffix(".new")
        temporary.write_text(json.dumps({"height": height, "findings": findings}))
        temporary.replace(self._state)


def _advance(steps: Iterator[tuple[BlockName, list[Finding]]]) -> tuple[BlockName, list[Finding]] | None:
    return next(steps, None)
