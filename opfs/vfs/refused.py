"""/errors and /rejected: why requests were refused, and the refused documents byte for byte.

/errors shows the latest refusals, oldest first so that tail(1) shows the newest: to root all of them, to
others their own. /rejected/<plugin>/ holds `<element>.json`, the last refused document of each element, and
`<element>.reason`; both belong to whoever wrote the document and only they and root read them.

What is kept, and for how long, is opfs.commit.refusals' affair. Trio thread only.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.names import DOCUMENT_SUFFIX, ElementId
from opfs.core.refusal import render
from opfs.errors import AccessDenied, NotFound, ReadOnly
from opfs.vfs.generated import ContentHandle, GeneratedFile, ReadOnlyDirectory, is_writing
from opfs.vfs.node import NEVER, Attributes, CachePolicy, File

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opfs.commit.refusals import Refusals, RefusedDocument
    from opfs.core.actor import Actor
    from opfs.errors import OpfsError
    from opfs.vfs.node import Caller, Handle, Node, NodeKey

REASON_SUFFIX = ".reason"


def make_errors(refusals: Refusals, *, time_ns: int = 0) -> GeneratedFile:
    async def generate(caller: Caller) -> bytes:
        shown = refusals.recent(None if caller.uid == 0 else caller.uid)
        return "\n".join(map(render, shown)).encode()

    return GeneratedFile(("errors",), generate, time_ns=time_ns)


def note_refusals(
    refusals: Refusals, identify: Callable[[Caller], Actor]
) -> Callable[[OpfsError, NodeKey, Caller], None]:
    """What the protocol adapter calls with every refusal: records those that nobody recorded with a document."""

    def note(error: OpfsError, key: NodeKey, caller: Caller) -> None:
        if not refusals.has_recorded(error):
            path = "/".join(key)
            refusals.record(error, path=path, id=None, content=None, actor=identify(caller), gid=caller.gid)

    return note


@dataclass(slots=True)
class RejectedDirectory(ReadOnlyDirectory):
    """/rejected: the plugins of which a document is kept."""

    refusals: Refusals

    async def lookup(self, name: str, caller: Caller) -> Node:
        if name not in self.refusals.plugins():
            raise NotFound(f"no document of a plugin {name!r} is kept")
        return self._plugin(name)

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        return [(name, self._plugin(name)) for name in self.refusals.plugins()]

    def _plugin(self, name: str) -> RejectedPluginDirectory:
        return RejectedPluginDirectory((*self.key, name), self.refusals, time_ns=self.time_ns)


@dataclass(slots=True)
class RejectedPluginDirectory(ReadOnlyDirectory):
    """/rejected/<plugin>: two files for each element; it goes when the last of them is accepted."""

    refusals: Refusals

    @property
    def cache(self) -> CachePolicy:
        return NEVER

    async def lookup(self, name: str, caller: Caller) -> Node:
        stem, dot, suffix = name.rpartition(".")
        id = ElementId(self.key[-1], stem)
        if f"{dot}{suffix}" not in (DOCUMENT_SUFFIX, REASON_SUFFIX) or self.refusals.get(id) is None:
            raise NotFound(f"/{'/'.join((*self.key, name))} does not exist")
        return RejectedFile((*self.key, name), self.refusals, id)

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        listing: list[tuple[str, Node]] = []
        for document in self.refusals.documents(self.key[-1]):
            for suffix in (DOCUMENT_SUFFIX, REASON_SUFFIX):
                name = f"{document.id.element}{suffix}"
                listing.append((name, RejectedFile((*self.key, name), self.refusals, document.id)))
        return listing


@dataclass(slots=True)
class RejectedFile(File):
    """A refused document, or the reason: whichever the name says."""

    refusals: Refusals
    id: ElementId

    @property
    def is_reason(self) -> bool:
        return self.key[-1].endswith(REASON_SUFFIX)

    async def attributes(self, caller: Caller) -> Attributes:
        document = self._document()
        refusal = document.refusal
        return Attributes(
            mode=stat.S_IFREG | 0o400,
            size=len(document.reason) if self.is_reason else document.size,
            uid=refusal.uid,
            gid=refusal.gid,
            atime_ns=refusal.time_ns,
            mtime_ns=refusal.time_ns,
            ctime_ns=refusal.time_ns,
        )

    async def open(self, flags: int, caller: Caller) -> Handle:
        if is_writing(flags):
            raise ReadOnly("a refused document is only read", hint=f"write a better one to /state/{self.id.path}")
        document = self._document()
        # Asked again: another user's document may have taken the place of the one the kernel checked.
        if caller.uid not in (0, document.refusal.uid):
            raise AccessDenied(f"the refused document of {self.id} is another user's")
        return ContentHandle(document.reason if self.is_reason else self.refusals.read(self.id))

    def _document(self) -> RefusedDocument:
        document = self.refusals.get(self.id)
        if document is None:
            raise NotFound(f"no refused document of {self.id} is kept", hint="a later one was accepted")
        return document
