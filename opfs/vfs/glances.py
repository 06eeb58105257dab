"""Looking at the host for whoever opens a file or lists a directory of /live and /undeclared.

What is opened is looked at now. A listing looks at all of a plugin's elements at once, and the names and sizes that the
kernel asks for one by one after it are those of that look, for a second; nothing else is kept, and no content is.

A plugin that fails is an EIO with its own words. One that did not answer in time is not asked again for a while: each
of its thousand files would wait as long. Trio thread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from opfs.commit.foreign import guarded
from opfs.core.names import ELEMENT_NAME, ElementId
from opfs.core.overlay import is_there, overlay
from opfs.core.secretfields import mask_secrets
from opfs.errors import ApplyFailed, ApplyTimeout, IntegrityError, NotFound, OpfsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping
    from contextlib import AbstractContextManager

    from opfs.commit.catalog import Catalog
    from opfs.commit.live import Look
    from opfs.core.action import Document
    from opfs.ports import Plugin

_Answer = TypeVar("_Answer")

KEPT_S = 1.0
"""How old the name or the size of a file may be."""

SILENT_S = 10.0
"""How long a plugin that did not answer in time is not asked again."""

_KEPT_COUNT = 100_000
"""Of sizes, a hundred bytes each."""


class Eyes(Protocol):
    """Looks at the host (opfs.commit.live); every look is bounded in time and raises OpfsError."""

    async def look(self, id: ElementId) -> Look: ...

    async def look_all(self, name: str) -> Mapping[str, Look]: ...

    async def undeclared(self, name: str) -> Mapping[str, Document]: ...


@dataclass(slots=True)
class Glances:
    """What is there, as bytes of files; None where an element is not there, so that it has no file."""

    eyes: Eyes
    plugins: Mapping[str, Plugin]
    catalog: Callable[[], Catalog]
    read: Callable[[ElementId], Awaitable[bytes]]
    """The committed bytes of a document."""

    _sizes: dict[ElementId, tuple[float, int | None]] = field(default_factory=dict)
    _failed: dict[str, tuple[float, OpfsError]] = field(default_factory=dict)
    _silent: dict[str, tuple[float, ApplyTimeout]] = field(default_factory=dict)

    # --- declared elements: the document with what differs -----------------------------------------------

    async def show(self, id: ElementId) -> bytes | None:
        """The file of a declared element, now; raises ApplyFailed where the plugin cannot say."""
        shown = await self._shown(await self._asked(id.plugin, str(id), lambda: self.eyes.look(id)))
        self._keep(id, shown)
        return shown

    async def size(self, id: ElementId) -> int | None:
        """The size of that file, perhaps a second old; raises what the last listing met instead of asking again."""
        found, is_kept = self.kept_size(id)
        if is_kept:
            return found
        failed = self._failed.get(id.plugin)
        if failed is not None and failed[0] + KEPT_S > trio.current_time():
            raise failed[1].with_traceback(None)
        shown = await self.show(id)
        return None if shown is None else len(shown)

    def kept_size(self, id: ElementId) -> tuple[int | None, bool]:
        """The size, and whether there is one that is not too old."""
        kept = self._sizes.get(id)
        is_kept = kept is not None and kept[0] + KEPT_S > trio.current_time()
        return (kept[1] if kept is not None and is_kept else None), is_kept

    async def list_there(self, name: str) -> Collection[str]:
        """The declared elements of a plugin that are there, now; raises ApplyFailed where the plugin cannot say."""
        there = []
        for element, look in (await self.look_all(name)).items():
            entry = self.catalog().get(look.id)
            if look.differences:
                shown = await self._shown(look)
                self._keep(look.id, shown)
                if shown is None:
                    continue
            elif entry is not None:
                self._sizes[look.id] = (trio.current_time(), entry.size)
            there.append(element)
        return there

    async def look_all(self, name: str) -> Mapping[str, Look]:
        """Every declared element of a plugin, now."""
        self._forget_old()
        try:
            return await self._asked(name, name, lambda: self.eyes.look_all(name))
        except OpfsError as error:
            self._failed[name] = (trio.current_time(), error)
            raise

    async def _shown(self, look: Look) -> bytes | None:
        if not look.differences or look.desired is None:
            return await self.read(look.id)
        if look.observed is None or not is_there(look.observed):
            return None
        content = look.content or await self.read(look.id)
        with self.reading(look.id):
            return overlay(content, self.masked(look.id.plugin, look.observed), look.differences)

    def masked(self, name: str, observed: Document) -> Document:
        """What was observed without secrets that somebody should not have shown."""
        return mask_secrets(self.plugins[name].schema, observed)

    def reading(self, id: ElementId | str) -> AbstractContextManager[None]:
        """Around the use of what a plugin observed, which may be anything: what goes wrong is the plugin's failure."""
        name = id if isinstance(id, str) else id.plugin
        return guarded(self.plugins[name], id)

    # --- anything, in full -------------------------------------------------------------------------------

    async def show_full(self, id: ElementId, *, undeclared: bool = False) -> bytes | None:
        """All that the plugin sees of an element, now, but secrets; with `undeclared` None for a declared one."""
        look = await self._asked(id.plugin, str(id), lambda: self.eyes.look(id))
        shown = None
        if look.observed is not None and not (undeclared and look.desired is not None):
            shown = self._laid_out(id.plugin, look.observed)
        if undeclared:
            self._keep(id, shown)
        return shown

    async def list_undeclared(self, name: str) -> Collection[str]:
        """The elements that a plugin finds and nobody declared, now, but those with names no element can have."""
        self._forget_old()
        found = await self._asked(name, name, lambda: self.eyes.undeclared(name))
        with self.reading(name):
            there = sorted(element for element in found if ELEMENT_NAME.match(element))
        for element in there:
            self._keep(ElementId(name, element), self._laid_out(name, found[element]))
        return there

    def _laid_out(self, name: str, document: Document) -> bytes:
        with self.reading(name):
            text = json.dumps(self.masked(name, document), ensure_ascii=False, indent=2, allow_nan=False)
        return f"{text}\n".encode("utf-8", "backslashreplace")

    # --- asking and keeping ------------------------------------------------------------------------------

    async def _asked(self, name: str, what: str, question: Callable[[], Awaitable[_Answer]]) -> _Answer:
        silent = self._silent.get(name)
        if silent is not None and silent[0] + SILENT_S > trio.current_time():
            raise ApplyFailed(f"{what}: {silent[1].reason}", hint="it is asked again in a few seconds")
        try:
            answer = await question()
        except (IntegrityError, NotFound):
            raise
        except OpfsError as error:
            if isinstance(error, ApplyTimeout):
                self._silent[name] = (trio.current_time(), error)
            raise ApplyFailed(f"what is there of {what} cannot be told: {error.reason}", hint=error.hint) from error
        self._silent.pop(name, None)
        self._failed.pop(name, None)
        return answer

    def _keep(self, id: ElementId, shown: bytes | None) -> None:
        self._sizes[id] = (trio.current_time(), None if shown is None else len(shown))

    def _forget_old(self) -> None:
        if len(self._sizes) > _KEPT_COUNT:
            limit = trio.current_time() - KEPT_S
            self._sizes = {id: kept for id, kept in self._sizes.items() if kept[0] > limit}
