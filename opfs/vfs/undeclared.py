"""/undeclared: what the plugins find on the host that no document declares, in full, for root alone.

It stands apart from /live so that comparing /live with /state says what drifted and no more. Nobody owns such an
element, so nobody but root reads it. Secrets are left out. Opening a file or a directory observes; what follows on
a listing, a name and its size, may be a second old.
A plugin that fails fails the listing of its own directory (EIO): an empty one would say that nothing is there. What
has a name that no element can have is not shown: no document could be for it. Trio thread.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.names import DOCUMENT_SUFFIX, ElementId
from opfs.errors import NotFound, ReadOnly
from opfs.vfs.generated import ContentHandle, ReadOnlyDirectory, is_writing
from opfs.vfs.live import document_named
from opfs.vfs.node import NEVER, Attributes, CachePolicy, File

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opfs.vfs.glances import Glances
    from opfs.vfs.node import Caller, Handle, Node


@dataclass(slots=True)
class UndeclaredDirectory(ReadOnlyDirectory):
    """/undeclared: one directory for each plugin that can work on this host."""

    glances: Glances

    async def lookup(self, name: str, caller: Caller) -> Node:
        plugin = self.glances.plugins.get(name)
        if plugin is None:
            raise NotFound(f"there is no plugin {name!r}", hint=f"there are: {', '.join(self._names())}")
        if reason := plugin.why_unavailable():
            raise NotFound(f"what {name} would find cannot be told on this host", hint=reason)
        return self._plugin(name)

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        return [(name, self._plugin(name)) for name in self._names()]

    def _names(self) -> list[str]:
        known = self.glances.plugins.items()
        return sorted(name for name, plugin in known if plugin.why_unavailable() is None)

    def _plugin(self, name: str) -> UndeclaredPluginDirectory:
        return UndeclaredPluginDirectory((*self.key, name), self.glances, time_ns=self.time_ns)


@dataclass(slots=True)
class UndeclaredPluginDirectory(ReadOnlyDirectory):
    """/undeclared/<plugin>, which root lists."""

    glances: Glances

    async def attributes(self, caller: Caller) -> Attributes:
        return Attributes(
            mode=stat.S_IFDIR | 0o500, atime_ns=self.time_ns, mtime_ns=self.time_ns, ctime_ns=self.time_ns
        )

    async def lookup(self, name: str, caller: Caller) -> Node:
        id = document_named(self.key[-1], name)
        if id is None or not await self._is_there(id):
            raise NotFound(f"{'/'.join((*self.key, name))} does not exist")
        return UndeclaredFile((*self.key, name), self.glances, id, self.time_ns)

    async def _is_there(self, id: ElementId) -> bool:
        """What was not there a moment ago may have come."""
        if self.glances.catalog().get(id) is not None:
            return False
        return (
            self.glances.kept_size(id)[0] is not None or await self.glances.show_full(id, undeclared=True) is not None
        )

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        plugin = self.key[-1]
        elements = await self.glances.list_undeclared(plugin)
        names = [(element, f"{element}{DOCUMENT_SUFFIX}") for element in elements]
        return [
            (name, UndeclaredFile((*self.key, name), self.glances, ElementId(plugin, element), self.time_ns))
            for element, name in names
        ]


@dataclass(slots=True)
class UndeclaredFile(File):
    """One element that nobody declared."""

    glances: Glances
    id: ElementId
    time_ns: int

    @property
    def cache(self) -> CachePolicy:
        return NEVER

    async def attributes(self, caller: Caller) -> Attributes:
        size = None
        if self.glances.catalog().get(self.id) is None:
            size, is_kept = self.glances.kept_size(self.id)
            if not is_kept:
                shown = await self.glances.show_full(self.id, undeclared=True)
                size = None if shown is None else len(shown)
        if size is None:
            raise NotFound(f"{self.id} is gone, or declared by now")
        return Attributes(
            mode=stat.S_IFREG | 0o400,
            size=size,
            atime_ns=self.time_ns,
            mtime_ns=self.time_ns,
            ctime_ns=self.time_ns,
        )

    async def open(self, flags: int, caller: Caller) -> Handle:
        if is_writing(flags):
            raise ReadOnly("/undeclared shows what is there", hint=f"write what shall be to /state/{self.id.path}")
        shown = await self.glances.show_full(self.id, undeclared=True)
        if shown is None:
            raise NotFound(f"{self.id} is gone, or declared by now")
        return ContentHandle(shown, direct_io=True)
