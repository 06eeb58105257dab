"""One document open for writing: bytes in private, a commit when they are whole.

Neither parses (opfs.vfs.staged asks the parser) nor records refusals itself (opfs.vfs.submissions does). Calls
on one open file wait for each other, so that a commit under way sees the bytes it was asked to commit.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import trio

from opfs.commit.change import Change
from opfs.errors import OpfsError, Stale
from opfs.ports import FileAttributes
from opfs.vfs.node import Attributes, Handle
from opfs.vfs.open_documents import process_of
from opfs.vfs.staged import StagedBytes

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from opfs.commit.sequencer import Sequencer
    from opfs.core.actor import Actor
    from opfs.core.names import ElementId
    from opfs.ports import Clock
    from opfs.vfs.node import AttributeChanges, Caller
    from opfs.vfs.open_documents import OpenDocuments
    from opfs.vfs.submissions import Submissions

# No event has these as its hash, so no change based on them is ever current.
ABSENT: Final = "absent"
_SUPERSEDED: Final = "superseded"


@dataclass(slots=True, eq=False)
class DocumentWriter(Handle):
    """An open file that can be written.

    `base` is the event that the bytes started from: None where they started from nothing and replace
    whatever is there, ABSENT where there was no document to start from. `file` are the attributes that the
    file had when it was opened, or was given by it if `is_new`; the first commit makes the latter the document's.
    """

    id: ElementId
    caller: Caller
    actor: Actor
    staged: StagedBytes
    base: str | None
    file: FileAttributes
    is_new: bool
    appends: bool
    sequencer: Sequencer
    documents: OpenDocuments
    submissions: Submissions
    clock: Clock
    is_dirty: bool = False
    _process: int = 0
    _mtime_ns: int | None = None
    _refusal: OpfsError | None = None
    _is_removed: bool = False
    _turn: trio.Lock = field(default_factory=trio.Lock)

    def __post_init__(self) -> None:
        self.direct_io = True
        self._process = process_of(self.caller.pid)
        self.documents.add_writer(self)

    # --- whose it is, and what it looks like --------------------------------------------------------------

    @property
    def is_creating(self) -> bool:
        return self.is_new and not self._is_removed

    def belongs_to(self, caller: Caller) -> bool:
        if self._is_removed or caller.uid != self.caller.uid:
            return False
        return caller.pid == self.caller.pid or process_of(caller.pid) == self._process

    def attributes(self) -> Attributes:
        """The file as its writer sees it."""
        file = self._file_attributes()
        return Attributes(
            mode=stat.S_IFREG | file.mode,
            size=len(self.staged),
            uid=file.uid,
            gid=file.gid,
            atime_ns=file.mtime_ns,
            mtime_ns=file.mtime_ns,
            ctime_ns=file.mtime_ns,
        )

    def set_attributes(self, changes: AttributeChanges) -> None:
        """Keep chmod, chown and utimens of a file that is not committed yet for its commit."""
        self.file = changed(self.file, changes)
        if changes.mtime_ns is not None:
            self._mtime_ns = changes.mtime_ns

    def _file_attributes(self) -> FileAttributes:
        """Those of the new file; else of the document, or of the one deleted since it was opened."""
        entry = None if self.is_new else self.sequencer.catalog.get(self.id)
        return self.file if entry is None else entry.attributes

    # --- the open file -----------------------------------------------------------------------------------

    async def read(self, offset: int, size: int) -> bytes:
        return self.staged.read(offset, size)

    async def write(self, offset: int, data: bytes, caller: Caller) -> int:
        async with self._turn:
            undo = None
            try:
                with self._recorded():
                    if self._is_removed:
                        raise Stale(f"{self.id} was removed while it was being written", hint="open it again")
                    # the kernel's idea of the end is that of the committed document
                    start = len(self.staged) if self.appends else offset
                    undo = self.staged.put(start, data)
                    self._touch()
                    if start + len(data) == len(self.staged) and self.staged.is_finished_by(data):
                        await self._commit()
            except OpfsError:
                # A write that failed wrote nothing; and the tool has had its error, so that the flush which
                # follows has nothing to say.
                if undo is not None:
                    self.staged.undo(undo)
                self.is_dirty = False
                raise
            return len(data)

    async def truncate(self, size: int, caller: Caller) -> None:
        async with self._turn:
            with self._recorded():
                if self.staged.resize(size):
                    self._touch()

    async def flush(self, caller: Caller) -> None:
        """Commit what is new. A refusal is answered to every flush until something else is written: the
        first may have come from a child process that closed its copy and heard nothing."""
        async with self._turn:
            if self._refusal is not None:
                raise self._refusal.with_traceback(None)
            await self._settle()

    async def fsync(self, caller: Caller) -> None:
        """Commit what is new, or try again what was refused."""
        async with self._turn:
            await self._settle()

    async def release(self) -> None:
        self.documents.remove_writer(self)

    def remove(self) -> None:
        """The name of a file that was never committed has been removed: what was written goes with it."""
        self._is_removed = True
        self.is_dirty = False
        self.staged = StagedBytes()

    # --- inside ------------------------------------------------------------------------------------------

    def _recorded(self) -> AbstractContextManager[None]:
        path, content = f"state/{self.id.path}", self.staged.content
        return self.submissions.recorded(self.id, path, self.caller, actor=self.actor, content=content)

    def _touch(self) -> None:
        self.is_dirty = True
        self._refusal = None
        self._mtime_ns = None

    async def _settle(self) -> None:
        if not self.is_dirty or not len(self.staged):
            return
        try:
            with self._recorded():
                await self._commit()
        except OpfsError as error:
            self._refusal = error
            raise

    async def _commit(self) -> None:
        """Commit the bytes; the file goes on from what was committed."""
        base = self.base
        if base == ABSENT and self.sequencer.catalog.get(self.id) is None:
            base = None
        wanted = self._file_attributes()
        mtime_ns = self._mtime_ns if self._mtime_ns is not None else self.clock.now_ns()
        content = self.staged.content()
        change = Change(self.id, content, replace(wanted, mtime_ns=mtime_ns), base)
        await self.submissions.commit(change, actor=self.actor)
        entry = self.sequencer.catalog.get(self.id)
        # somebody else may have committed between the commit and this line: that is not what we started from
        is_ours = entry is not None and entry.holds(content)
        self.base = entry.last_event if entry is not None and is_ours else _SUPERSEDED
        self.is_new = False
        self.is_dirty = False
        self._refusal = None


def changed(attributes: FileAttributes, changes: AttributeChanges) -> FileAttributes:
    """The attributes after chmod, chown and utimens."""
    return FileAttributes(
        mode=attributes.mode if changes.mode is None else changes.mode & 0o7777,
        uid=attributes.uid if changes.uid is None else changes.uid,
        gid=attributes.gid if changes.gid is None else changes.gid,
        mtime_ns=attributes.mtime_ns if changes.mtime_ns is None else changes.mtime_ns,
    )
