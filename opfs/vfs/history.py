"""/history: the distinct versions of every element there ever was, one file each, named after its block.

`cp /history/lxc/100/41.json /state/lxc/100.json` rolls one element back. A version never changes, so the kernel may
keep it; which there are is asked every time, once the history has every event committed before. Owner, mode and
time are the document's as it was then. A delete leaves no file; `.versions` tells of it, one JSON object a line, of the
versions that its reader may open. Of several versions that came into one block, at the end of an interval, the block
has the last; the others are lines that say so. Trio thread; the database and the blocks are read in worker threads.
"""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from opfs.core.canonical import hash_hex
from opfs.core.names import DOCUMENT_SUFFIX, OWN_EVENTS, ElementId, check_element_name
from opfs.core.timestamp import format_time
from opfs.errors import IntegrityError, InvalidRequest, NotFound, ReadOnly
from opfs.vfs.generated import ContentHandle, GeneratedFile, ReadOnlyDirectory, is_writing
from opfs.vfs.node import FOREVER, Attributes, CachePolicy, File
from opfs.vfs.permission import READ, may

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opfs.core.names import BlockName
    from opfs.ports import History, RecordedEvent
    from opfs.vfs.node import Caller, Handle, Node
    from opfs.vfs.permission import Groups

VERSIONS = ".versions"
_XATTRS = ("block", "op", "actor", "message", "time", "blake3")
_HEIGHT = re.compile(r"(0|[1-9]\d{0,11})\.json\Z", re.ASCII)


class Historian(Protocol):
    """Keeps the history up with the chain."""

    async def wait_current(self) -> None:
        """Return when every event committed before the call is in the history."""
        ...


@dataclass(frozen=True, slots=True)
class Past:
    """What /history is made from: `content_of` reads the document that an event left; blocking, checked."""

    history: History
    historian: Historian
    block_at: Callable[[int], BlockName]
    content_of: Callable[[RecordedEvent], bytes]
    groups: Groups
    erased_in: Callable[[BlockName, ElementId], BlockName | None] = lambda block, id: None
    """The block that erased the document that a block set, if one did."""

    async def versions(self, id: ElementId) -> Sequence[RecordedEvent]:
        await self.historian.wait_current()
        return await trio.to_thread.run_sync(self.history.versions, id)

    async def is_known(self, id: ElementId) -> bool:
        """Whether there ever was a version of the element; costs the same however many there are."""
        await self.historian.wait_current()
        newest = await trio.to_thread.run_sync(self.history.version_at, id, self.history.indexed_count)
        return newest is not None


@dataclass(slots=True)
class HistoryDirectory(ReadOnlyDirectory):
    """A directory for every plugin of which there ever was an element."""

    past: Past

    async def lookup(self, name: str, caller: Caller) -> Node:
        if name not in await self._plugins():
            raise NotFound(f"no element of a plugin {name!r} is in the chain")
        return self._plugin(name)

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        return [(name, self._plugin(name)) for name in await self._plugins()]

    async def _plugins(self) -> Sequence[str]:
        await self.past.historian.wait_current()
        plugins = await trio.to_thread.run_sync(self.past.history.plugins)
        return [name for name in plugins if name != OWN_EVENTS]

    def _plugin(self, name: str) -> PluginHistory:
        return PluginHistory((*self.key, name), self.past, time_ns=self.time_ns)


@dataclass(slots=True)
class PluginHistory(ReadOnlyDirectory):
    """A directory for every element of one plugin that ever had a version."""

    past: Past

    async def lookup(self, name: str, caller: Caller) -> Node:
        try:
            check_element_name(name)
        except InvalidRequest as error:
            raise NotFound(error.reason, hint=error.hint) from error
        if not await self.past.is_known(ElementId(self.key[-1], name)):
            raise NotFound(f"there never was an element {self.key[-1]}/{name}")
        return self._element(name)

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        await self.past.historian.wait_current()
        names = await trio.to_thread.run_sync(self._names)
        return [(name, self._element(name)) for name in names]

    def _names(self) -> Sequence[str]:
        return self.past.history.elements(self.key[-1], with_versions=True)

    def _element(self, name: str) -> ElementHistory:
        return ElementHistory((*self.key, name), self.past, ElementId(self.key[-1], name), time_ns=self.time_ns)


@dataclass(slots=True)
class ElementHistory(ReadOnlyDirectory):
    """The versions of one element by height, oldest first, and `.versions`, which a listing leaves out."""

    past: Past
    id: ElementId

    async def lookup(self, name: str, caller: Caller) -> Node:
        if name == VERSIONS:
            return GeneratedFile((*self.key, name), self._tell_versions)
        if match := _HEIGHT.match(name):
            of_block = [version for version in await self.past.versions(self.id) if version.height == int(match[1])]
            if of_block and of_block[-1].content is not None:
                return self._version(of_block[-1])
        raise NotFound(f"{self.id} has no version {name}", hint=f"ls /{'/'.join(self.key)} lists them")

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        versions = {version.height: version for version in await self.past.versions(self.id)}
        # of several versions in one block the last is the block's
        return [(f"{v.height}{DOCUMENT_SUFFIX}", self._version(v)) for v in versions.values() if v.content is not None]

    def _version(self, version: RecordedEvent) -> VersionFile:
        return VersionFile((*self.key, f"{version.height}{DOCUMENT_SUFFIX}"), self.past, version)

    async def _tell_versions(self, caller: Caller) -> bytes:
        versions = await self.past.versions(self.id)
        last = {version.height: version.seq for version in versions}
        lines = [
            json.dumps(self._told(version, is_kept=last[version.height] == version.seq))
            for version in versions
            if may(caller, READ, version.attributes, self.past.groups)
        ]
        return "".join(f"{line}\n" for line in lines).encode()

    def _told(self, version: RecordedEvent, *, is_kept: bool) -> dict[str, object]:
        block = self.past.block_at(version.height)
        erased = self.past.erased_in(block, version.id)
        return {
            "height": version.height,
            "block": str(block),
            "seq": version.seq,
            "op": version.op,
            "time": format_time(version.time_ns),
            "user": version.user,
            "message": version.message,
            "content": version.content,
            "size": version.size,
            "erased": str(erased) if erased is not None else None,
            "kept": is_kept,
        }


@dataclass(slots=True)
class VersionFile(File):
    """One version: the document as it was written, byte for byte."""

    past: Past
    version: RecordedEvent

    @property
    def cache(self) -> CachePolicy:
        return FOREVER

    async def attributes(self, caller: Caller) -> Attributes:
        kept = self.version.attributes
        return Attributes(
            mode=stat.S_IFREG | (kept.mode & 0o444),
            size=self.version.size,
            uid=kept.uid,
            gid=kept.gid,
            atime_ns=self.version.time_ns,
            mtime_ns=self.version.time_ns,
            ctime_ns=self.version.time_ns,
        )

    async def open(self, flags: int, caller: Caller) -> Handle:
        if is_writing(flags):
            raise ReadOnly("the past never changes", hint="copy it to /state to go back to it")
        content = await trio.to_thread.run_sync(self.past.content_of, self.version)
        if hash_hex(content) != self.version.content:
            raise IntegrityError(f"the stored bytes of {self.version.id} are not those of block {self.version.height}")
        return ContentHandle(content)

    async def list_xattrs(self, caller: Caller) -> Iterable[str]:
        return [f"user.opfs.{name}" for name in _XATTRS if name != "message" or self.version.message]

    async def get_xattr(self, name: str, caller: Caller) -> bytes | None:
        version = self.version
        values = {
            "user.opfs.block": str(self.past.block_at(version.height)),
            "user.opfs.op": version.op,
            "user.opfs.actor": version.user,
            "user.opfs.message": version.message,
            "user.opfs.time": format_time(version.time_ns),
            "user.opfs.blake3": version.content or "",
        }
        value = values.get(name)
        return value.encode() if value else None
