"""/plan: what a write would do, without doing it. Write a document there, read the plan beside it.

    <element>.json      the document that is wanted; checked when it is written, as in /state
    <element>.gone      made by touch(1): the element shall go
    <element>.diff      for people: what differs from what is there, the actions and their safety
    <element>.actions   the same as JSON, with the digest by which exactly this plan can be carried out

Every user has plans of their own, which nobody else sees; whoever may not read and write a document may not plan
it, for a plan tells what is there. Nothing here acts on the host: the plan is worked out at every open, by observing,
as if whatever else the user has planned had happened: a container is not waiting for a bridge that is planned too.
What a document says is checked when it is written, what it would do when that is read.
Trio thread only. Directories of different users are different nodes, by the last part of their keys.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from opfs.commit.change import Change
from opfs.commit.dependencies import Company
from opfs.core.names import DOCUMENT_SUFFIX, ElementId, check_element_name
from opfs.core.planview import plan_text
from opfs.errors import AccessDenied, ApplyFailed, InvalidRequest, NotFound, OpfsError, ReadOnly, Rejected
from opfs.vfs.generated import ContentHandle, ReadOnlyDirectory, is_writing
from opfs.vfs.node import NEVER, Attributes, CachePolicy, Directory, File, Handle
from opfs.vfs.permission import READ, WRITE, may
from opfs.vfs.staged import StagedBytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from opfs.commit.catalog import Catalog
    from opfs.core.actor import Actor
    from opfs.core.planview import PlanView
    from opfs.vfs.node import AttributeChanges, Caller, Node, NodeKey
    from opfs.vfs.permission import Groups
    from opfs.vfs.plan_store import Planned, PlanStore

DELETE, TEXT, JSON = ".gone", ".diff", ".actions"  # in order of names the last one written goes last: rm * works
_WRITTEN, _READ = (DOCUMENT_SUFFIX, DELETE), (TEXT, JSON)


class Planner(Protocol):
    """Works out what a change would do; raises what committing it would raise before anything is done."""

    async def check(self, id: ElementId, content: bytes | None) -> None:
        """Raise what is wrong with a wish by itself, whatever the host looks like."""
        ...

    async def view(self, change: Change, actor: Actor, company: Company) -> PlanView: ...


class Recorded(Protocol):
    """Records an OpfsError that leaves the block (opfs.vfs.submissions)."""

    def __call__(
        self,
        id: ElementId | None,
        path: str,
        caller: Caller,
        *,
        content: Callable[[], bytes] | None = None,
        about: ElementId | None = None,
    ) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class PlanServices:
    """What the nodes of /plan share."""

    plugins: Callable[[], Iterable[str]]
    catalog: Callable[[], Catalog]
    groups: Groups
    planner: Planner
    store: PlanStore
    recorded: Recorded
    identify: Callable[[Caller], Actor]

    async def view(self, id: ElementId, content: bytes | None, caller: Caller) -> PlanView:
        """The plan of one element, as if whatever else its user has planned had happened."""
        ready, gone = self.store.wanted_of(caller.uid)
        return await self.planner.view(Change(id, content), self.identify(caller), Company(ready, gone))

    def check_allowed(self, id: ElementId, caller: Caller) -> None:
        """Raise AccessDenied unless the caller may read and write the document, or make it."""
        entry = self.catalog().get(id)
        if entry is None and caller.uid != 0:
            raise AccessDenied(f"only root may plan what is not declared yet: {id}")
        if entry is not None and not may(caller, READ | WRITE, entry.attributes, self.groups):
            raise AccessDenied(f"{id} may not be planned by you", hint="whoever may read and write its document may")


@dataclass(slots=True)
class PlanDirectory(ReadOnlyDirectory):
    """/plan: one directory for each plugin, another for each user."""

    services: PlanServices

    async def lookup(self, name: str, caller: Caller) -> Node:
        known = sorted(self.services.plugins())
        if name not in known:
            raise NotFound(f"there is no plugin {name!r}", hint=f"installed are: {', '.join(known)}")
        return self._plugin(name, caller)

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        return [(name, self._plugin(name, caller)) for name in sorted(self.services.plugins())]

    def _plugin(self, name: str, caller: Caller) -> PlanPluginDirectory:
        return PlanPluginDirectory((*self.key, name, f"uid {caller.uid}"), self.services, caller.uid, self.time_ns)


@dataclass(slots=True)
class PlanPluginDirectory(Directory):
    """/plan/<plugin> of one user."""

    services: PlanServices
    uid: int
    time_ns: int

    @property
    def plugin(self) -> str:
        return self.key[1]

    @property
    def shown(self) -> NodeKey:
        return self.key[:2]

    async def attributes(self, caller: Caller) -> Attributes:
        return Attributes(
            mode=stat.S_IFDIR | 0o700,
            uid=self.uid,
            gid=caller.gid if caller.uid == self.uid else 0,
            nlink=2,
            atime_ns=self.time_ns,
            mtime_ns=self.time_ns,
            ctime_ns=self.time_ns,
        )

    async def set_attributes(self, changes: AttributeChanges, handle: Handle | None, caller: Caller) -> None:
        """Times and modes that tools copy are taken and not kept."""

    async def lookup(self, name: str, caller: Caller) -> Node:
        stem, suffix = _split(name)
        planned = self._planned(stem)
        if planned is None or suffix not in (*_suffixes(planned), *_READ):
            raise NotFound(f"plan/{self.plugin}/{name} does not exist", hint=f"write plan/{self.plugin}/{stem}.json")
        return self._node(name, planned.id, suffix)

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        return list(self._listing())

    def _listing(self) -> Iterator[tuple[str, Node]]:
        for planned in self.services.store.of(self.uid, self.plugin):
            for suffix in (JSON, TEXT, *_suffixes(planned)):
                name = f"{planned.id.element}{suffix}"
                yield name, self._node(name, planned.id, suffix)

    def _node(self, name: str, id: ElementId, suffix: str) -> File:
        kind = PlanReport if suffix in _READ else PlanFile
        return kind((*self.key, name), self.services, id, self.uid)

    def _planned(self, element: str) -> Planned | None:
        return self.services.store.get(self.uid, ElementId(self.plugin, element))

    async def create(self, name: str, mode: int, flags: int, caller: Caller) -> tuple[File, Handle]:
        path = f"plan/{self.plugin}/{name}"
        with self.services.recorded(None, path, caller):
            stem, suffix = _split(name)
            if suffix not in _WRITTEN:
                raise InvalidRequest(f"{name!r} is no plan", hint="write <element>.json, or touch <element>.gone")
            check_element_name(stem)
            id = ElementId(self.plugin, stem)
            self.services.check_allowed(id, caller)
            if flags & os.O_EXCL and (planned := self._planned(stem)) is not None and suffix in _suffixes(planned):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
            if suffix == DELETE:
                await self.services.planner.check(id, None)
                self.services.store.put(caller.uid, id, None)
            file = PlanFile((*self.key, name), self.services, id, self.uid)
            return file, file.writer(b"", caller)

    async def unlink(self, name: str, caller: Caller) -> None:
        """A plan goes with its document; removing `.diff` and `.actions`, as `rm *` does, is nothing by itself."""
        stem, suffix = _split(name)
        planned = self._planned(stem)
        if planned is not None and suffix in _suffixes(planned):
            self.services.store.drop(self.uid, planned.id)

    async def rename(self, name: str, target: Directory, target_name: str, flags: int, caller: Caller) -> None:
        raise Rejected("plans are not renamed", hint="write the document under its own name, or straight to /state")


@dataclass(slots=True)
class PlanFile(File):
    """The document that is wanted, or the wish that it go."""

    services: PlanServices
    id: ElementId
    uid: int

    @property
    def cache(self) -> CachePolicy:
        return NEVER

    @property
    def shown(self) -> NodeKey:
        return (*self.key[:2], self.key[-1])

    async def attributes(self, caller: Caller) -> Attributes:
        """A file that is being written for the first time is empty to whoever looks."""
        planned = self.services.store.get(self.uid, self.id)
        return _attributes(self.uid, 0o600, planned.size if planned else 0, planned.time_ns if planned else 0)

    async def set_attributes(self, changes: AttributeChanges, handle: Handle | None, caller: Caller) -> None:
        """Cutting it to nothing waits for what is written; owner and mode are kept for `restore-state`, and not shown.

        Times that tools copy are taken and not kept.
        """
        if changes.size:
            raise InvalidRequest(f"the plan of {self.id} cannot be cut", hint="write the whole document instead")
        if (changes.mode, changes.uid, changes.gid) != (None, None, None):
            self.services.store.set_access(self.uid, self.id, mode=changes.mode, owner=changes.uid, group=changes.gid)

    async def open(self, flags: int, caller: Caller) -> Handle:
        planned = self.services.store.get(self.uid, self.id)
        content = b"" if planned is None or planned.content is None else planned.content
        if not is_writing(flags):
            return ContentHandle(content, direct_io=True)
        self.services.check_allowed(self.id, caller)
        return self.writer(b"" if flags & os.O_TRUNC else content, caller)

    def writer(self, content: bytes, caller: Caller) -> PlanWriter:
        """An open file that starts from `content`."""
        if self.key[-1].endswith(DELETE):
            return PlanWriter(self, caller, None)
        return PlanWriter(self, caller, StagedBytes(content))


@dataclass(slots=True, eq=False)
class PlanWriter(Handle):
    """A plan being written: checked and kept when the document is whole, as in /state."""

    file: PlanFile
    caller: Caller
    staged: StagedBytes | None
    is_dirty: bool = field(default=False)

    def __post_init__(self) -> None:
        self.direct_io = True

    async def read(self, offset: int, size: int) -> bytes:
        return self._bytes().read(offset, size) if self.staged is not None else b""

    async def write(self, offset: int, data: bytes, caller: Caller) -> int:
        undo = None
        try:
            with self._recorded():
                undo = self._bytes().put(offset, data)
                self.is_dirty = True
                if offset + len(data) == len(self._bytes()) and self._bytes().is_finished_by(data):
                    await self._keep()
        except OpfsError:
            if undo is not None:
                self._bytes().undo(undo)
            self.is_dirty = False
            raise
        return len(data)

    async def truncate(self, size: int, caller: Caller) -> None:
        with self._recorded():
            self.is_dirty |= self._bytes().resize(size)

    async def flush(self, caller: Caller) -> None:
        if self.is_dirty and len(self._bytes()):
            self.is_dirty = False
            with self._recorded():
                await self._keep()

    async def fsync(self, caller: Caller) -> None:
        await self.flush(caller)

    def _bytes(self) -> StagedBytes:
        if self.staged is None:
            raise InvalidRequest("a delete is planned by the name alone", hint="touch the file and leave it empty")
        return self.staged

    async def _keep(self) -> None:
        content, file = self._bytes().content(), self.file
        file.services.check_allowed(file.id, self.caller)
        await file.services.planner.check(file.id, content)
        file.services.store.put(self.caller.uid, file.id, content)
        self.is_dirty = False

    def _recorded(self) -> AbstractContextManager[None]:
        content = self.staged.content if self.staged is not None else None
        path = f"plan/{self.file.id.plugin}/{self.file.key[-1]}"
        return self.file.services.recorded(None, path, self.caller, content=content, about=self.file.id)


@dataclass(slots=True)
class PlanReport(File):
    """The plan, worked out at every open."""

    services: PlanServices
    id: ElementId
    uid: int

    @property
    def cache(self) -> CachePolicy:
        return NEVER

    @property
    def shown(self) -> NodeKey:
        return (*self.key[:2], self.key[-1])

    async def attributes(self, caller: Caller) -> Attributes:
        planned = self.services.store.get(self.uid, self.id)
        return _attributes(self.uid, 0o400, 0, planned.time_ns if planned else 0)

    async def open(self, flags: int, caller: Caller) -> Handle:
        name = self.key[-1]
        with self.services.recorded(None, f"plan/{self.id.plugin}/{name}", caller):
            if is_writing(flags):
                raise ReadOnly("a plan is only read", hint=f"write plan/{self.id.path}")
            planned = self.services.store.get(self.uid, self.id)
            if planned is None:
                raise NotFound(f"there is no plan of {self.id} any more", hint=f"write plan/{self.id.path} again")
            self.services.check_allowed(self.id, caller)
            view = await self.services.view(self.id, planned.content, caller)
        try:
            text = plan_text(view) if name.endswith(TEXT) else json.dumps(view.to_json(), allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise ApplyFailed(f"{self.id}: the plugin {self.id.plugin} observed what is no JSON: {error}") from error
        return ContentHandle(text.encode("utf-8", "backslashreplace"), direct_io=True)


def _split(name: str) -> tuple[str, str]:
    """The element and the suffix of a file's name; no suffix where it is none of the four."""
    for suffix in (*_WRITTEN, *_READ):
        if name.endswith(suffix):
            return name.removesuffix(suffix), suffix
    return name, ""


def _suffixes(planned: Planned) -> tuple[str]:
    """The suffix of the file that was written."""
    return (DELETE,) if planned.content is None else (DOCUMENT_SUFFIX,)


def _attributes(uid: int, mode: int, size: int, time_ns: int) -> Attributes:
    return Attributes(
        mode=stat.S_IFREG | mode, size=size, uid=uid, atime_ns=time_ns, mtime_ns=time_ns, ctime_ns=time_ns
    )
