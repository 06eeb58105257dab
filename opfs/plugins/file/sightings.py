"""What others do to managed files, as it happens, and who: fanotify where the file system has it, else inotify.

Directories are watched, of the files themselves and of what they are copied from. A directory that is not there is
not watched until its element is written again; one that is replaced as a whole goes unseen until files are
looked at next. Runs on the trio thread until cancelled; reading the records leaves it.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import ExitStack
from typing import TYPE_CHECKING

import trio

from opfs.clients.fanotify import Change, Fanotify, describe_process
from opfs.clients.inotify import Inotify
from opfs.errors import ApplyFailed
from opfs.ports import Sighting

if TYPE_CHECKING:
    from collections.abc import Callable


class Watch:
    """The places of elements, watched; `places_of` reads an element's paths from the records (blocking)."""

    def __init__(self, places_of: Callable[[str], Collection[str]], report: Callable[[Sighting], None]) -> None:
        self._places_of = places_of
        self._report = report
        self._elements: dict[tuple[str, str], set[str]] = {}
        """Who is interested in a name in a directory."""
        self._paths: dict[str, Collection[str]] = {}
        self._send, self._receive = trio.open_memory_channel[Collection[str]](1024)

    def changed(self, elements: Collection[str]) -> None:
        """The elements' paths may be others now. May be called while nobody listens."""
        try:
            self._send.send_nowait(elements)
        except (trio.WouldBlock, trio.BrokenResourceError):
            # Too many at once to follow: whoever listens looks at everything.
            self._report(Sighting(None))

    async def run(self, elements: Collection[str]) -> None:
        """Watch the places of these elements, and of those that change later."""
        with ExitStack() as stack:
            inotify = stack.enter_context(Inotify())
            try:
                fanotify = stack.enter_context(Fanotify())
            except ApplyFailed:
                fanotify = None
            await self._follow_all(elements, fanotify, inotify)
            async with trio.open_nursery() as nursery:
                if fanotify is not None:
                    nursery.start_soon(self._read_fanotify, fanotify)
                nursery.start_soon(self._read_inotify, inotify)
                async for changed in self._receive:
                    await self._follow_all(changed, fanotify, inotify)

    async def _follow_all(self, elements: Collection[str], fanotify: Fanotify | None, inotify: Inotify) -> None:
        def read() -> dict[str, Collection[str]]:
            return {element: self._places_of(element) for element in elements}

        for element, paths in (await trio.to_thread.run_sync(read)).items():
            self._follow(element, paths, fanotify, inotify)

    def _follow(self, element: str, paths: Collection[str], fanotify: Fanotify | None, inotify: Inotify) -> None:
        for path in self._paths.pop(element, ()):
            directory, name = os.path.split(path)
            interested = self._elements.get((directory, name), set())
            interested.discard(element)
            if not interested:
                self._elements.pop((directory, name), None)
        for path in paths:
            directory, name = os.path.split(path)
            self._elements.setdefault((directory, name), set()).add(element)
            _watch_directory(directory, fanotify, inotify)
        if paths:
            self._paths[element] = paths

    async def _read_fanotify(self, fanotify: Fanotify) -> None:
        async for change in fanotify.changes():
            self._tell(change)

    async def _read_inotify(self, inotify: Inotify) -> None:
        async for change in inotify.changes():
            self._tell(None if change is None else Change(*change, 0))

    def _tell(self, change: Change | None) -> None:
        if change is None:
            self._report(Sighting(None))
            return
        for element in sorted(self._elements.get((change.directory, change.name), ())):
            self._report(Sighting(element, describe_process(change.pid)))


def _watch_directory(directory: str, fanotify: Fanotify | None, inotify: Inotify) -> None:
    """Marking one again does no harm, and marks the one that took its place."""
    if fanotify is not None:
        try:
            fanotify.add(directory)
        except ApplyFailed:
            inotify.add(directory)
    else:
        inotify.add(directory)
