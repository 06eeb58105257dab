"""A daemon's parts at work on a pool, without a mount, and a note of every answer."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - a dataclass of it is made at run time
from typing import TYPE_CHECKING, Any

import trio

import opfs.daemon.parts
from opfs.commit.change import Change, Request
from opfs.commit.recovery import recover
from opfs.config import load_config
from opfs.core.actor import Actor
from opfs.core.names import ElementId
from opfs.core.standing import Kind
from opfs.daemon.parts import Parts, open_parts
from opfs.daemon.rotation import finish_rotation
from opfs.errors import OpfsError
from opfs.plugins.registry import PluginRegistry, build_plugin
from opfs.testing import tracing
from opfs.testing.embedder import OneEmbedder, WordHashEmbedder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from opfs.plugins.registry import ContextOf


ALICE = Actor(uid=1000, user="alice", pid=42, command="vim")
SETTLE_TIMEOUT_S = 60.0
LATE, EARLY = ElementId("file", "late"), ElementId("file", "early")
LARGE = "x" * 5_000
"""More than btrfs keeps inline, and more than a page."""


@dataclass(frozen=True)
class Place:
    """Where one row happens: the pool, the directory that plays the host, and what was told."""

    directory: Path

    @property
    def pool(self) -> Path:
        return self.directory / "pool"

    @property
    def host(self) -> Path:
        return self.directory / "host"

    @property
    def told(self) -> Path:
        return self.directory / "told"


class Life:
    """A daemon's parts at work, and a note of every answer."""

    def __init__(self, place: Place, parts: Parts) -> None:
        self.place = place
        self.parts = parts
        self.errors: list[str] = []

    def tell(self, **fact: Any) -> None:
        with self.place.told.open("a") as told:
            told.write(json.dumps(fact) + "\n")

    async def put(self, element: str, text: str, *, directory: str = "", after: str = "") -> None:
        """Write an element of the file plugin; a `directory` that is not there makes the plugin fail.

        With `after`, it waits for another element.
        """
        await self._change({element: self._document(element, text, directory, after)})

    async def put_together(self, texts: Mapping[str, str]) -> None:
        """Write several elements in one request."""
        await self._change({element: self._document(element, text) for element, text in texts.items()})

    async def delete(self, element: str) -> None:
        await self._change({element: None})

    def _document(self, element: str, text: str, directory: str = "", after: str = "") -> bytes:
        document: dict[str, Any] = {"path": str(self.place.host / directory / element), "content": text}
        if after:
            document["$after"] = [f"file/{after}"]
        return json.dumps(document).encode()

    async def _change(self, contents: Mapping[str, bytes | None]) -> None:
        texts = {element: None if content is None else content.decode() for element, content in contents.items()}
        for element, text in texts.items():
            self.tell(element=element, tries=text)
        changes = tuple(Change(ElementId("file", element), content) for element, content in contents.items())
        names = ", ".join(contents)
        try:
            await self.parts.sequencer.submit(Request(changes, ALICE, f"{names} for the table"))
        except OpfsError as error:
            self.errors.append(f"{names}: {error}")
            for element in texts:
                self.tell(element=element, error=type(error).__name__, errno=error.errno, reason=str(error))
        else:
            for element, text in texts.items():
                self.tell(element=element, accepted=text)

    async def settled(self) -> None:
        """Return when nothing is under way; what was tried in vain may go on waiting."""
        waiting = self.parts.waiting
        await self._until(lambda: not (self.parts.sequencer.in_flight_count or waiting._due or waiting._trying))

    async def caught_up(self) -> None:
        """Return when nothing waits any more that has what it waits for: after a start, where nothing fails."""
        await self._until(lambda: not self._is_due())
        await self.settled()

    async def _until(self, condition: Callable[[], bool]) -> None:
        with trio.move_on_after(SETTLE_TIMEOUT_S):
            while self.parts.failsafe.reason is None and not condition():  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.005)

    def _is_due(self) -> bool:
        late, early = (self.parts.chain.catalog.get(id) for id in (LATE, EARLY))
        return late is not None and early is not None and late.standing.kind is Kind.WAITING

    async def derive(self) -> None:
        """Bring the index up to the chain, as the deriver does when somebody searches."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.parts.deriver.run)
            nursery.start_soon(self.parts.meaning.run)
            try:
                await self.parts.meaning.wait_current()
            except OpfsError as error:
                self.tell(index=str(error))
            nursery.cancel_scope.cancel()


def _only_the_file_plugin(context_of: ContextOf, _: object) -> PluginRegistry:
    return PluginRegistry([build_plugin("opfs.plugins.file.plugin:FilePlugin", context_of)])


@asynccontextmanager
async def alive(place: Place, interval: str = "per-op") -> AsyncIterator[Life]:
    """A daemon's parts, opened and recovered as the daemon does it, up to the mount."""
    opfs.daemon.parts.Embedders = lambda *_, **__: OneEmbedder(WordHashEmbedder())
    opfs.daemon.parts.load_plugins = _only_the_file_plugin
    flags = {"pool": str(place.pool), "mount": str(place.directory / "mount")}
    variables = {"OPFS_CONFIG": str(place.directory / "opfs.toml"), "OPFS_SNAPSHOT_INTERVAL": interval}
    config = load_config(flags, variables)
    with open_parts(config) as parts:
        async with trio.open_nursery() as nursery:
            tracing.phase("recover")
            await nursery.start(parts.sequencer.run)
            await recover(parts.chain, parts.journal, parts.sequencer)
            await finish_rotation(parts)
            nursery.start_soon(parts.waiting.run)
            yield Life(place, parts)
            nursery.cancel_scope.cancel()
        tracing.phase("close")
