"""What is really there, for whoever shows it: one element or all of a plugin, looked at now, and the known drift.

Reads the host and the chain and changes neither. Trio thread; every look is bounded in time, and a plugin that fails
is an OpfsError with its own words.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from opfs.commit.foreign import calling, differences_of, guarded
from opfs.core.names import ElementId
from opfs.errors import ApplyTimeout, OpfsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from opfs.commit.sequencer import Sequencer
    from opfs.core.action import Difference, Document
    from opfs.ports import Plugin

LOOK_TIMEOUT_S = 10.0
"""For a reader who waits; a plugin's own limit may be longer, since creating takes longer than looking."""


@dataclass(frozen=True, slots=True)
class Look:
    """One element as committed and as found: the document's bytes, its part for the plugin, and what is there.

    `differences` is empty where the host is as the document says, and where there is no document.
    """

    id: ElementId
    content: bytes | None
    desired: Document | None
    observed: Document | None
    differences: tuple[Difference, ...]


class Live:
    """The host as the plugins see it."""

    def __init__(self, sequencer: Sequencer, *, timeout_s: float = LOOK_TIMEOUT_S) -> None:
        self._sequencer = sequencer
        self._timeout_s = timeout_s

    async def look(self, id: ElementId) -> Look:
        """Observe one element now, declared or not; raises OpfsError where its plugin cannot say."""
        sequencer = self._sequencer
        plugin = sequencer.validator.require(id.plugin)
        content = await sequencer.read_document(id) if sequencer.catalog.get(id) is not None else None
        declared = await sequencer.documents.declared(id)
        desired = {} if declared is None else {id.element: declared.document}
        async with self._looking(plugin, id):
            observed = (await plugin.observe([id.element], desired=desired)).get(id.element)
        return self._look(plugin, id, content, desired.get(id.element), observed)

    async def look_all(self, name: str) -> Mapping[str, Look]:
        """Every declared element of a plugin, looked at at once; `content` is left None, whoever needs it reads it."""
        plugin, desired, found = await self._observe_all(name)
        return {
            element: self._look(plugin, ElementId(name, element), None, document, found.get(element))
            for element, document in desired.items()
        }

    async def observe_all(self, name: str) -> Mapping[str, Document]:
        """Everything a plugin finds on the host, and every declared element that is there, by element."""
        _, _, found = await self._observe_all(name)
        return found

    async def undeclared(self, name: str) -> Mapping[str, Document]:
        """What a plugin finds on the host that no document declares, by element."""
        found = await self.observe_all(name)
        declared = self._sequencer.catalog.elements(name)
        return {element: document for element, document in found.items() if element not in declared}

    async def _observe_all(self, name: str) -> tuple[Plugin, Mapping[str, Document], dict[str, Document]]:
        plugin = self._sequencer.validator.require(name)
        declared = await self._sequencer.documents.declared_by(name)
        desired = {element: each.document for element, each in declared.items()}
        async with self._looking(plugin, name):
            found = dict(await plugin.observe(None, desired=desired))
            # a backend that finds an element only through its document does not list it
            hidden = [element for element in desired if element not in found]
            if hidden:
                found.update(await plugin.observe(hidden, desired=desired))
        return plugin, desired, found

    def _look(
        self, plugin: Plugin, id: ElementId, content: bytes | None, desired: Document | None, observed: Document | None
    ) -> Look:
        if desired is None:
            return Look(id, content, None, observed, ())
        with guarded(plugin, id):
            return Look(id, content, desired, observed, tuple(differences_of(plugin, id.element, desired, observed)))

    @asynccontextmanager
    async def _looking(self, plugin: Plugin, what: ElementId | str) -> AsyncIterator[None]:
        """Around observations; raises ApplyTimeout where they take longer than a reader waits."""
        with trio.move_on_after(self._timeout_s) as limit:
            try:
                async with calling(plugin, what):
                    yield
            except OpfsError as error:
                error.reason, error.hint = self._sequencer.redact(error.reason), self._sequencer.redact(error.hint)
                raise
        if limit.cancelled_caught:
            raise ApplyTimeout(f"{what} could not be looked at within {self._timeout_s:g} s")
