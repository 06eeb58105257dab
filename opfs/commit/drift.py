"""Drift: the host is no longer as a committed document says, and opfs did not do it.

Each plugin's backend tells of changes where it can, and is looked at again and again where it cannot. What may have
changed is observed and compared; a difference is looked at once more while nobody changes the element, and becomes one
event, which is not repeated while the difference stays the same, nor after a restart. Where the configuration says so,
the document is then applied again. Nothing here changes the host by itself. Trio thread.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from opfs.commit.chain import Outcome
from opfs.commit.following import Follower
from opfs.commit.foreign import calling, check_rested, differences_of, guarded
from opfs.commit.patience import Patience
from opfs.commit.step import Applied
from opfs.core.actor import Actor
from opfs.core.event import clip_message, decode_events
from opfs.core.names import ElementId
from opfs.core.standing import DRIFT, IN_FORCE, Kind, Standing
from opfs.core.timestamp import parse_time
from opfs.errors import ApplyFailed, OpfsError, ReadOnly

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.commit.catalog import Entry
    from opfs.commit.chain import Chain
    from opfs.commit.following import Sights
    from opfs.commit.sequencer import Sequencer
    from opfs.commit.waiting import Waiting
    from opfs.core.action import Difference, Document
    from opfs.core.meta import Declared
    from opfs.ports import Clock, Plugin, SnapshotStore

log = logging.getLogger(__name__)

RETRY_S = 60.0
"""Before an element is looked at again whose drift could not be recorded, as in a full pool."""
_SHOWN_DIFFERENCES = 20
_SHOWN_PROBLEMS = 3
_COMPARED_AT_ONCE = 100
_CULPRIT_LIMIT = 200


@dataclass(frozen=True, slots=True)
class DriftReport:
    """One element that has drifted: in what, since when as far as anybody saw, and by whom as far as anybody told."""

    id: ElementId
    text: str
    culprit: str
    since_ns: int


class Drift:
    """Watches every plugin's elements. `run` must be running."""

    def __init__(
        self, sequencer: Sequencer, chain: Chain, store: SnapshotStore, waiting: Waiting, clock: Clock
    ) -> None:
        self._sequencer = sequencer
        self._chain = chain
        self._store = store
        self._waiting = waiting
        self._clock = clock
        self._reports: dict[ElementId, DriftReport] = {}
        self._patience = Patience()
        self._followers = {
            name: self._follower(plugin)
            for name, plugin in sequencer.plugins.items()
            if plugin.capabilities.supports_verification
        }
        sequencer.on_change.append(self._follow)

    # --- for readers -------------------------------------------------------------------------------------

    def current(self) -> Sequence[DriftReport]:
        """Every element that has drifted, as far as is known, by name."""
        unsettled = self._sequencer.catalog.unsettled
        drifted = sorted(id for id, standing in unsettled.items() if standing.kind is Kind.DRIFTED)
        return [report for id in drifted if (report := self.of(id)) is not None]

    def of(self, id: ElementId) -> DriftReport | None:
        """The drift of one element; None where there is none."""
        standing = self._sequencer.catalog.unsettled.get(id)
        if standing is None or standing.kind is not Kind.DRIFTED:
            return None
        report = self._reports.get(id)
        if report is None or report.text != standing.detail:
            return DriftReport(id, standing.detail, "", 0)
        return report

    def failures(self) -> Mapping[str, str]:
        """Why a plugin's elements could not be looked at the last time, by plugin."""
        failed = {name: follower.failure for name, follower in self._followers.items()}
        return {name: self._sequencer.redact(failure) for name, failure in failed.items() if failure is not None}

    # --- looking -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch until cancelled."""
        await trio.to_thread.run_sync(self._load_reports, self._drifted_blocks())
        async with trio.open_nursery() as nursery:
            for name, follower in self._followers.items():
                nursery.start_soon(follower.run, name=f"drift of {name}")

    def _follower(self, plugin: Plugin) -> Follower:
        def heard(trigger: str) -> None:
            self._waiting.check(trigger, plugin.name)

        return Follower(plugin, self._sequencer.policy.rules(plugin.name), self._look, heard)

    def _follow(self, changed: Mapping[ElementId, Entry | None]) -> None:
        """After a commit: what is only observed was not verified by applying it, so it is looked at now."""
        for id, entry in changed.items():
            if entry is not None and entry.standing.kind is Kind.OBSERVED and id.plugin in self._followers:
                self._followers[id.plugin].mark(id.element)

    async def _look(self, plugin: Plugin, sights: Sights, nursery: trio.Nursery) -> None:
        """Observe and compare the plugin's declared elements that may have changed.

        What differs in a new way is confirmed, recorded and perhaps corrected in tasks of `nursery`; what somebody is
        changing is looked at afterwards. Raises OpfsError for what could not be looked at, when all others were.
        """
        check_rested(plugin)
        declared = await self._sequencer.documents.declared_by(plugin.name, sights.elements)
        settled = {element: each for element, each in declared.items() if self._is_comparable(plugin.name, element)}
        desired = {element: each.document for element, each in settled.items()}
        entries = {element: self._sequencer.catalog.get(ElementId(plugin.name, element)) for element in desired}
        problems = []
        if not desired:
            return
        async with calling(plugin, plugin.name):
            found = await plugin.observe(list(desired), desired=desired)
        for number, (element, document) in enumerate(desired.items()):
            if number % _COMPARED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            id = ElementId(plugin.name, element)
            culprit = sights.culprits.get(element, "")
            if self._sequencer.is_busy(id) or self._sequencer.catalog.get(id) is not entries[element]:
                nursery.start_soon(self._look_later, id, culprit)
                continue
            try:
                text = self._differences(plugin, id, document, found.get(element))
            except OpfsError as error:
                problems.append(str(error))
                continue
            if not text:
                self._note_gone(id, settled[element])
            elif self._is_news(id, text):
                nursery.start_soon(self._confirm, plugin, id, culprit)
        if problems:
            raise ApplyFailed("; ".join(problems[:_SHOWN_PROBLEMS]))

    async def _look_later(self, id: ElementId, culprit: str, pause_s: float = 0) -> None:
        """Look again when nobody changes the element: what was seen may be half of a change."""
        await trio.sleep(pause_s)
        await self._sequencer.wait_idle(id)
        self._followers[id.plugin].mark(id.element, culprit)

    def _is_comparable(self, plugin: str, element: str) -> bool:
        """Whether the host is meant to be as the document says: not where it waits, or could not be made so."""
        entry = self._sequencer.catalog.get(ElementId(plugin, element))
        return entry is not None and entry.standing.kind not in (Kind.WAITING, Kind.FAILED)

    def _differences(self, plugin: Plugin, id: ElementId, desired: Document, observed: Document | None) -> str:
        """In what the host differs, as an event says it; empty where it does not."""
        with guarded(plugin, id):
            return self._in_words(differences_of(plugin, id.element, desired, observed))

    def _in_words(self, differences: Sequence[Difference]) -> str:
        listed = sorted(map(str, differences))
        more = [f"{len(listed) - _SHOWN_DIFFERENCES} more"] if len(listed) > _SHOWN_DIFFERENCES else []
        return clip_message(self._sequencer.redact("; ".join(listed[:_SHOWN_DIFFERENCES] + more)))

    def _is_news(self, id: ElementId, text: str) -> bool:
        entry = self._sequencer.catalog.get(id)
        return entry is not None and entry.standing != Standing(Kind.DRIFTED, text)

    def _note_gone(self, id: ElementId, declared: Declared) -> None:
        """The host is as the document says again: no event, but it shows, and the same drift would be a new one."""
        entry = self._sequencer.catalog.get(id)
        if entry is not None and entry.standing.kind is Kind.DRIFTED:
            is_observed = self._sequencer.policy.is_observed(id, declared)
            self._sequencer.note_standing(id, Standing(Kind.OBSERVED) if is_observed else IN_FORCE)
            self._reports.pop(id, None)

    # --- one element -------------------------------------------------------------------------------------

    async def _confirm(self, plugin: Plugin, id: ElementId, culprit: str) -> None:
        """Look again while nobody changes the element; record what is still there, and correct it where configured."""
        async with self._patience.turn(id) as is_mine:
            if not is_mine:
                return
            actor = Actor(uid=0, user="root", command=culprit[:_CULPRIT_LIMIT], source=DRIFT)
            try:
                await self._sequencer.alone_with(id, actor, lambda: self._record(plugin, id, actor))
                standing = self._sequencer.catalog.unsettled.get(id)
                if standing is None or standing.kind is not Kind.DRIFTED:
                    return
                self._reports[id] = DriftReport(id, standing.detail, actor.command, self._clock.now_ns())
                declared = await self._sequencer.documents.declared(id)
                corrects = self._sequencer.policy.rules(plugin.name).correct_drift
                if corrects and not self._sequencer.policy.is_observed(id, declared):
                    await self._sequencer.apply_again(id, actor)
            except ReadOnly:
                return  # the next start looks again
            except OpfsError as error:
                log.warning("the drift of %s is not recorded: %s", id, error)
            else:
                return
        await self._look_later(id, culprit, RETRY_S)

    async def _record(self, plugin: Plugin, id: ElementId, actor: Actor) -> Applied:
        """The drift event of an element that nobody changes now; nothing where it is gone or on record."""
        declared = await self._sequencer.documents.declared(id)
        if declared is None or not self._is_comparable(id.plugin, id.element):
            return Applied()
        async with calling(plugin, id):
            found = await plugin.observe([id.element], desired={id.element: declared.document})
            text = self._differences(plugin, id, declared.document, found.get(id.element))
        if not text or not self._is_news(id, text):
            return Applied()
        outcome = Outcome(
            id=id,
            op="drift",
            content=None,
            attributes=None,
            actor=actor.to_json(),
            message=text,
            plugin_hash=plugin.version_hash,
            changes_document=False,
        )
        return Applied((outcome,))

    # --- after a start -----------------------------------------------------------------------------------

    def _drifted_blocks(self) -> Mapping[ElementId, int]:
        """The heights of the blocks with the drift events that are still in force."""
        tips = {id: self._chain.tips.get(id) for id in self._sequencer.catalog.unsettled}
        return {id: tip.height for id, tip in tips.items() if tip is not None and tip.standing.kind is Kind.DRIFTED}

    def _load_reports(self, heights: Mapping[ElementId, int]) -> None:
        """In a worker thread: read since when and by whom out of the blocks."""
        names = {name.height: name for name in self._chain.blocks}
        for height in sorted(set(heights.values()) & names.keys()):
            for event in decode_events(self._store.read_events(names[height])):
                if heights.get(event.id) == height:
                    culprit = str(event.actor.get("command", ""))
                    self._reports[event.id] = DriftReport(event.id, event.message, culprit, parse_time(event.time))
