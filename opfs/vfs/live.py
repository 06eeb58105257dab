"""/live: what is really there of every declared element, so that `diff -r state live` is the drift report.

Each file is the document with the keys that differ as the host has them (opfs.core.overlay): where nothing differs
it is the document, byte for byte, and an element that is gone has no file. Opening a file or a directory observes,
always; what follows on a listing, a name and its size, may be a second old. Owner and mode are the document's.

A plugin that fails fails its files only (EIO, with the reason in /errors); its documents are listed all the same.
Trio thread.
"""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.difference import ABSENT
from opfs.core.names import DOCUMENT_SUFFIX, ElementId, element_of_file
from opfs.core.overlay import found_value, is_there
from opfs.errors import InvalidRequest, NotFound, OpfsError, ReadOnly
from opfs.vfs.generated import ContentHandle, GeneratedFile, ReadOnlyDirectory, is_writing
from opfs.vfs.node import NEVER, Attributes, CachePolicy, File
from opfs.vfs.permission import READ, may

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opfs.commit.catalog import Entry
    from opfs.commit.live import Look
    from opfs.vfs.glances import Glances
    from opfs.vfs.node import Caller, Handle, Node, NodeKey
    from opfs.vfs.permission import Groups

REPORT, FULL = ".drift", ".full"


@dataclass(frozen=True, slots=True)
class DriftReports:
    """/live/<plugin>/.drift: everything of a plugin that is not as declared, from one look at all of it.

    One JSON object a line: `element`, `is_gone`, `changes` (each a `pointer`, what was `wanted` and what was `found`,
    left out where there is nothing), `since` and `culprit` where an event tells. It shows what its reader may read.
    """

    glances: Glances
    groups: Groups
    known: Callable[[ElementId], tuple[str, str] | None]
    """Since when an element is known to differ, and who did it, as far as that is known."""

    def file(self, key: NodeKey, plugin: str) -> GeneratedFile:
        async def generate(caller: Caller) -> bytes:
            looks = await self.glances.look_all(plugin)
            shown = [look for _, look in sorted(looks.items()) if look.differences and self._shows(look, caller)]
            with self.glances.reading(plugin):
                return "".join(map(self._line, shown)).encode("utf-8", "backslashreplace")

        return GeneratedFile(key, generate)

    def _shows(self, look: Look, caller: Caller) -> bool:
        entry = self.glances.catalog().get(look.id)
        return entry is not None and may(caller, READ, entry.attributes, self.groups)

    def _line(self, look: Look) -> str:
        observed = None if look.observed is None else self.glances.masked(look.id.plugin, look.observed)
        changes = []
        for difference in look.differences:
            change = {"pointer": difference.pointer, "wanted": difference.desired}
            found = found_value(difference, observed)
            changes.append(change if found is ABSENT else {**change, "found": found})
        since, culprit = self.known(look.id) or (None, "")
        is_gone = not is_there(look.observed)
        report = {"element": str(look.id), "is_gone": is_gone, "changes": changes, "since": since, "culprit": culprit}
        return json.dumps(report, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(slots=True)
class LiveDirectory(ReadOnlyDirectory):
    """/live: one directory for each plugin."""

    glances: Glances
    reports: DriftReports

    async def lookup(self, name: str, caller: Caller) -> Node:
        if name not in self.glances.plugins:
            raise NotFound(f"there is no plugin {name!r}", hint=f"installed are: {', '.join(self.glances.plugins)}")
        return self._plugin(name)

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        return [(name, self._plugin(name)) for name in sorted(self.glances.plugins)]

    def _plugin(self, name: str) -> LivePluginDirectory:
        return LivePluginDirectory((*self.key, name), self.glances, self.reports, time_ns=self.time_ns)


@dataclass(slots=True)
class LivePluginDirectory(ReadOnlyDirectory):
    """/live/<plugin>: the declared elements that are there, and the report on all, which no listing shows."""

    glances: Glances
    reports: DriftReports

    async def lookup(self, name: str, caller: Caller) -> Node:
        if name == REPORT:
            return self.reports.file((*self.key, name), self.key[-1])
        is_full = name.endswith(FULL)
        id = document_named(self.key[-1], name.removesuffix(FULL) + DOCUMENT_SUFFIX if is_full else name)
        if id is None or self.glances.catalog().get(id) is None:
            raise NotFound(f"{'/'.join((*self.key, name))} does not exist", hint="live shows what state declares")
        file = LiveFile((*self.key, name), self.glances, id, is_full)
        if self.glances.kept_size(id)[0] is None:
            try:
                shown = await self.glances.show(id)
            except OpfsError:
                return file  # whoever opens it is told why
            if shown is None:
                raise NotFound(f"{id} is declared, and is not there")
        return file

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        plugin = self.key[-1]
        try:
            elements = await self.glances.list_there(plugin)
        except OpfsError:
            elements = self.glances.catalog().elements(plugin)  # whoever opens one is told why
        names = [(element, f"{element}{DOCUMENT_SUFFIX}") for element in sorted(elements)]
        return [
            (name, LiveFile((*self.key, name), self.glances, ElementId(plugin, element))) for element, name in names
        ]


@dataclass(slots=True)
class LiveFile(File):
    """One declared element as it is."""

    glances: Glances
    id: ElementId
    is_full: bool = False
    """Shows all that the plugin reports, in place of the document with what differs; no listing shows such a file."""

    @property
    def cache(self) -> CachePolicy:
        return NEVER

    async def attributes(self, caller: Caller) -> Attributes:
        """Those of the document; its size, too, where the plugin cannot say what is there."""
        entry = self._entry()
        try:
            size = await (self._full_size() if self.is_full else self.glances.size(self.id))
        except OpfsError:
            size = entry.size  # opening it tells
        file = entry.attributes
        return Attributes(
            mode=stat.S_IFREG | file.mode,
            size=size or 0,
            uid=file.uid,
            gid=file.gid,
            atime_ns=file.mtime_ns,
            mtime_ns=file.mtime_ns,
            ctime_ns=file.mtime_ns,
        )

    async def open(self, flags: int, caller: Caller) -> Handle:
        if is_writing(flags):
            raise ReadOnly("/live shows what is there", hint=f"write what shall be to /state/{self.id.path}")
        self._entry()
        shown = await (self.glances.show_full(self.id) if self.is_full else self.glances.show(self.id))
        if shown is None:
            raise NotFound(f"{self.id} is declared, and is not there")
        return ContentHandle(shown, direct_io=True)

    async def _full_size(self) -> int:
        return len(await self.glances.show_full(self.id) or b"")

    def _entry(self) -> Entry:
        entry = self.glances.catalog().get(self.id)
        if entry is None:
            raise NotFound(f"{self.id} is not declared any more")
        return entry


def document_named(plugin: str, name: str) -> ElementId | None:
    """The element whose document has that file name; None where no document can have it."""
    if not name.endswith(DOCUMENT_SUFFIX):
        return None
    try:
        return ElementId(plugin, element_of_file(name))
    except InvalidRequest:
        return None
