"""/state, the writable tree: the installed plugins, and in each the documents and the drafts.

Lists and finds names; what a file does is in opfs.vfs.documents and opfs.vfs.drafts, what a rename means in
opfs.vfs.renames. Trio thread only. The kernel may keep the names of directories and of committed documents,
which saves it a round trip for each component of a path; who may see another name depends on the caller.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.names import ElementId, is_draft
from opfs.errors import InvalidRequest, NotFound, ReadOnly, Rejected
from opfs.ports import FileAttributes
from opfs.vfs.documents import DocumentFile
from opfs.vfs.drafts import Drafts
from opfs.vfs.node import FOREVER, Attributes, CachePolicy, Directory
from opfs.vfs.open_documents import OpenDocuments
from opfs.vfs.renames import rename
from opfs.vfs.services import Services
from opfs.vfs.submissions import Submissions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opfs.commit.refusals import Refusals
    from opfs.commit.sequencer import Sequencer
    from opfs.core.actor import Actor
    from opfs.ports import Clock
    from opfs.vfs.draft_store import DraftStore
    from opfs.vfs.node import AttributeChanges, Caller, File, Handle, Node, NodeKey


@dataclass(slots=True)
class _Frame(Directory):
    """A directory that nobody makes or removes: root's, listed by everybody, as old as the daemon.

    One link, which find(1) takes for "subdirectories not counted".
    """

    services: Services
    time_ns: int

    @property
    def cache(self) -> CachePolicy:
        return FOREVER

    async def attributes(self, caller: Caller) -> Attributes:
        time_ns = self.time_ns
        return Attributes(mode=stat.S_IFDIR | 0o755, atime_ns=time_ns, mtime_ns=time_ns, ctime_ns=time_ns)

    async def set_attributes(self, changes: AttributeChanges, handle: Handle | None, caller: Caller) -> None:
        """Times may be set and are not kept: what copies a directory sets them, and must not fail over it."""
        present = await self.attributes(caller)
        if changes.mode in (None, stat.S_IMODE(present.mode)) and {changes.uid, changes.gid} <= {None, 0}:
            return
        raise Rejected(
            f"/{'/'.join(self.key)} belongs to root and is listed by everybody",
            hint="owner and mode of the documents say who may read and change them",
        )


class StateDirectory(_Frame):
    """/state. Whoever tells it of blocks gets to know which files the kernel has pages of."""

    def __init__(
        self,
        sequencer: Sequencer,
        refusals: Refusals,
        drafts: DraftStore,
        identify: Callable[[Caller], Actor],
        clock: Clock,
    ) -> None:
        documents = OpenDocuments()
        services = Services(
            sequencer=sequencer,
            submissions=Submissions(sequencer, refusals, documents, identify),
            documents=documents,
            drafts=Drafts(drafts, lambda: sequencer.catalog.head, sequencer.require_room),
            identify=identify,
            clock=clock,
        )
        super().__init__(("state",), services, clock.now_ns())

    def cached(self, changed: Iterable[ElementId]) -> list[NodeKey]:
        """Of these elements' files, those that readers have open, so that the kernel may have pages of them."""
        documents = self.services.documents
        return [("state", id.plugin, f"{id.element}.json") for id in changed if documents.has_readers(id)]

    async def lookup(self, name: str, caller: Caller) -> Node:
        if name not in self.services.sequencer.plugins:
            installed = ", ".join(sorted(self.services.sequencer.plugins))
            raise NotFound(f"there is no plugin {name!r}", hint=f"installed are: {installed}")
        return self._plugin(name)

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        names = sorted(self.services.sequencer.plugins)
        return [(name, self._plugin(name)) for name in names]

    def _plugin(self, name: str) -> PluginDirectory:
        return PluginDirectory((*self.key, name), self.services, self.time_ns)

    async def create(self, name: str, mode: int, flags: int, caller: Caller) -> tuple[File, Handle]:
        raise Rejected("/state holds the plugins' directories only", hint="documents are made in /state/<plugin>/")

    async def unlink(self, name: str, caller: Caller) -> None:
        raise Rejected("/state holds the plugins' directories only", hint="they come and go with plugins")

    async def rename(self, name: str, target: Directory, target_name: str, flags: int, caller: Caller) -> None:
        raise Rejected(f"/state/{name} is a plugin's directory", hint="it comes and goes with the plugin")


@dataclass(slots=True)
class PluginDirectory(_Frame):
    """/state/<plugin>."""

    @property
    def plugin(self) -> str:
        return self.key[-1]

    def _document(self, name: str) -> DocumentFile:
        return DocumentFile((*self.key, name), self.services)

    async def lookup(self, name: str, caller: Caller) -> Node:
        if is_draft(name):
            if self.services.drafts.store.exists(self.plugin, name):
                return self.services.drafts.file(self.plugin, name)
            raise NotFound(f"the draft {name} does not exist")
        try:
            document = self._document(name)
        except InvalidRequest as error:
            # nothing of that name can be there; whoever tries to make it is told what is wrong with it
            raise NotFound(error.reason, hint=error.hint) from None
        if not document.is_seen_by(caller):
            raise NotFound(f"{document.id} does not exist")
        return document

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        services = self.services
        elements = {e for e in services.sequencer.catalog.elements(self.plugin) if self._is_visible(e)}
        elements.update(services.documents.created_by(self.plugin, caller))
        listing: list[tuple[str, Node]] = [
            (name, self._document(name)) for name in (f"{element}.json" for element in sorted(elements))
        ]
        for name in sorted(services.drafts.store.names(self.plugin)):
            listing.append((name, services.drafts.file(self.plugin, name)))
        return listing

    async def create(self, name: str, mode: int, flags: int, caller: Caller) -> tuple[File, Handle]:
        if is_draft(name):
            return await self.services.drafts.create(self.plugin, name, mode, flags, caller)
        with self.services.submissions.recorded(None, "/".join((*self.key, name)), caller):
            document = self._document(name)
        if document.is_seen_by(caller):
            if flags & os.O_EXCL:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
            return document, await document.open(flags, caller)
        if flags & os.O_EXCL and self.services.documents.creator(document.id) is not None:
            raise FileExistsError(errno.EEXIST, "another process is creating it", name)
        created = FileAttributes(mode & 0o7777, caller.uid, caller.gid, self.services.clock.now_ns())
        return document, document.open_new(created, flags, caller)

    async def unlink(self, name: str, caller: Caller) -> None:
        if is_draft(name):
            await self.services.drafts.unlink(self.plugin, name)
            return
        try:
            document = self._document(name)
        except InvalidRequest as error:
            raise NotFound(error.reason, hint=error.hint) from None
        await document.remove(caller)

    async def rename(self, name: str, target: Directory, target_name: str, flags: int, caller: Caller) -> None:
        if isinstance(target, StateDirectory):
            raise Rejected("/state holds the plugins' directories only", hint="documents live in /state/<plugin>/")
        if not isinstance(target, PluginDirectory):
            raise ReadOnly(f"nothing is moved to /{'/'.join(target.key)}", hint="copy it out of the tree instead")
        await rename(self.services, (*self.key, name), (*target.key, target_name), flags, caller)

    def _is_visible(self, element: str) -> bool:
        return not self.services.documents.is_hidden(ElementId(self.plugin, element))
