"""One plugin's backend, followed: its reports of changes where it makes them, a look now and then where it does not.

Gathers what may have changed and has it looked at; decides nothing about it. Trio thread, three tasks for a plugin. A
look is never longer than the plugin's own limit, and the pauses between looks are longer than the looks.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from opfs.commit.foreign import listening
from opfs.errors import OpfsError

if TYPE_CHECKING:
    from opfs.core.rules import PluginRules
    from opfs.ports import Plugin, Sighting

log = logging.getLogger(__name__)

COALESCE_S = 0.2
"""How long to wait for more of the same after the first sign of a change: one command makes several."""
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
"""Before a watch that ended is begun again."""
PAUSES_PER_LOOK = 4
"""A look at thousands of elements shall not take more than a fifth of a processor, whatever the backend reports."""
MAX_SIGHTED = 10_000
"""Elements noted by name; beyond that, all of them are looked at."""


@dataclass(slots=True)
class Sights:
    """What may have changed: everything, or the elements of `culprits`, which says of some who did it."""

    is_everything: bool = False
    culprits: dict[str, str] = field(default_factory=dict)

    def add(self, element: str | None, culprit: str) -> None:
        if element is None:
            self.is_everything = True
        elif element in self.culprits or len(self.culprits) < MAX_SIGHTED:
            self.culprits[element] = culprit or self.culprits.get(element, "")
        else:
            self.is_everything = True

    @property
    def elements(self) -> Collection[str] | None:
        """None for all."""
        return None if self.is_everything else self.culprits.keys()


Look = Callable[["Plugin", Sights, trio.Nursery], Awaitable[None]]
"""Looks at what may have changed; what takes longer goes on in the nursery."""


class Follower:
    """`look` does the looking; `heard` is told that the backend may have changed, before each look."""

    def __init__(
        self,
        plugin: Plugin,
        rules: PluginRules,
        look: Look,
        heard: Callable[[str], None],
    ) -> None:
        self._plugin = plugin
        self._rules = rules
        self._look = look
        self._heard = heard
        self._sights = Sights()
        self._is_marked = trio.Event()
        self.failure: str | None = None
        """Why the last look saw nothing, or None."""

    def mark(self, element: str | None, culprit: str = "") -> None:
        """Have an element looked at soon, or all of them."""
        self._sights.add(element, culprit)
        self._is_marked.set()

    async def run(self) -> None:
        """Follow until cancelled; a plugin that cannot work here is asked again now and then."""
        while self._plugin.why_unavailable() is not None:  # noqa: ASYNC110  nobody tells when that has changed
            await trio.sleep(self._rules.poll_interval_s or LAST_RETRY_S)
        self.mark(None)
        async with trio.open_nursery() as nursery:
            if self._plugin.capabilities.watch:
                nursery.start_soon(self._watch, name=f"watch of {self._plugin.name}")
            elif self._rules.poll_interval_s > 0:
                nursery.start_soon(self._poll, name=f"poll of {self._plugin.name}")
            await self._work(nursery)

    async def _poll(self) -> None:
        while True:
            await trio.sleep(self._rules.poll_interval_s)
            self.mark(None)

    async def _watch(self) -> None:
        """Listen; begin again, a little later each time, where that ends. What happened meanwhile is looked for.

        Why it ended is a warning once, as long as it stays the same.
        """
        retry_s = FIRST_RETRY_S
        told = ""
        while True:
            began = trio.current_time()
            try:
                with listening(self._plugin):
                    await self._plugin.watch(self._report)
                log.warning("the plugin %s stopped watching", self._plugin.name)
            except OpfsError as error:
                level = logging.DEBUG if str(error) == told else logging.WARNING
                log.log(level, "the plugin %s cannot watch: %s", self._plugin.name, error)
                told = str(error)
            except Exception:
                log.exception("the plugin %s has a bug in its watch", self._plugin.name)
            if trio.current_time() - began > LAST_RETRY_S:
                retry_s, told = FIRST_RETRY_S, ""
            await trio.sleep(retry_s)
            retry_s = min(2 * retry_s, LAST_RETRY_S)
            self.mark(None)

    def _report(self, sighting: Sighting) -> None:
        self.mark(sighting.element, sighting.culprit)

    async def _work(self, nursery: trio.Nursery) -> None:
        pause_s = COALESCE_S
        while True:
            await self._is_marked.wait()
            await trio.sleep(pause_s)
            sights, self._sights, self._is_marked = self._sights, Sights(), trio.Event()
            began = trio.current_time()
            self._heard(f"{self._plugin.name} was looked at")
            try:
                await self._look(self._plugin, sights, nursery)
                self.failure = None
            except OpfsError as error:
                if self.failure is None:
                    log.warning("the elements of %s cannot be looked at: %s", self._plugin.name, error)
                self.failure = str(error)
            pause_s = max(COALESCE_S, PAUSES_PER_LOOK * (trio.current_time() - began))
