"""Elements that wait for others: looked at again when something has changed, and applied when their turn has come.

Which elements wait is in the catalog, and so in the chain: nothing here needs to survive a restart. Applying is the
sequencer's. Trio thread; elements that do not need each other are applied at the same time.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from opfs.commit.dependencies import Company
from opfs.core.actor import Actor
from opfs.core.ordering import in_order
from opfs.core.standing import DEPENDENCY, Kind, Standing
from opfs.errors import OpfsError, ReadOnly

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.commit.catalog import Entry
    from opfs.commit.sequencer import Sequencer
    from opfs.core.names import ElementId

log = logging.getLogger(__name__)

MAX_AT_ONCE = 32
"""As many writers at once share a block; more would only make the plugins' backends queue."""


class Waiting:
    """Brings waiting elements about. `run` must be running."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer
        self._due: dict[ElementId, str] = {}
        """Elements to be looked at, each with what makes it worth while."""
        self._trying: set[ElementId] = set()
        self._changed = trio.Event()
        self._limit = trio.CapacityLimiter(MAX_AT_ONCE)
        sequencer.on_change.append(self._follow)

    async def run(self) -> None:
        """Look at every waiting element once, then at those that something has happened for, until cancelled."""
        await self._sequencer.dependencies.wait_loaded()
        self.check("opfs has started")
        async with trio.open_nursery() as nursery:
            while True:
                ready = [id for id in self._due if id not in self._trying]
                company = Company(seen={})  # a thousand may wait for one, which is looked for once
                for id in in_order(ready, self._sequencer.dependencies.committed_needs):
                    self._trying.add(id)
                    nursery.start_soon(self._try, id, self._due.pop(id), company)
                changed = self._changed
                await changed.wait()

    def check(self, trigger: str, plugin: str | None = None) -> None:
        """Look at the waiting elements again, all or those that may wait for something of `plugin`.

        `trigger` says why, in words that the event repeats.
        """
        for id, standing in self._sequencer.catalog.unsettled.items():
            if standing.kind is Kind.WAITING and (plugin is None or self._may_need(id, plugin)):
                self._due[id] = trigger
        self._announce()

    def _may_need(self, id: ElementId, plugin: str) -> bool:
        needs = self._sequencer.dependencies.committed_needs(id)
        return any(alternative.plugin == plugin for need in needs for alternative in need)

    def _follow(self, changed: Mapping[ElementId, Entry | None]) -> None:
        """After a commit: what it brought about may be what others wait for.

        What began to wait is looked at too: what it needs may have come between the look and the commit.
        """
        unsettled = self._sequencer.catalog.unsettled
        for id in changed:
            if id in unsettled and unsettled[id].kind is Kind.WAITING:
                self._due.setdefault(id, "what it needs came meanwhile")
            for user in self._sequencer.dependencies.users(id):
                if user in unsettled and unsettled[user].kind is Kind.WAITING:
                    self._due[user] = f"{id} is in place"
        if self._due:
            self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _try(self, id: ElementId, trigger: str, company: Company) -> None:
        """Apply the element if nothing is missing any more, else say what still is."""
        sequencer = self._sequencer
        try:
            async with self._limit:
                entry = sequencer.catalog.get(id)
                if entry is None or entry.standing.kind is not Kind.WAITING or sequencer.failsafe.reason is not None:
                    return
                missing = await sequencer.dependencies.missing(sequencer.dependencies.committed_needs(id), company)
                if missing:
                    if sequencer.catalog.get(id) is entry:
                        sequencer.note_standing(id, Standing(Kind.WAITING, ", ".join(missing)))
                    return
                # After this line: what the element waited for is in place, and the element is not; a crash here leaves
                # it waiting; repaired by the next start, which looks at every waiting element.
                await sequencer.apply_again(id, Actor(uid=0, user="root", command=trigger, source=DEPENDENCY))
        except ReadOnly:
            pass  # the next start goes on
        except OpfsError as error:
            log.warning("%s goes on waiting: %s", id, error)
        finally:
            self._trying.discard(id)
            if id in self._due:
                self._announce()
