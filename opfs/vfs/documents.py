"""A document of /state as a file: what a reader reads, what a writer opens, and its attributes.

How bytes become a commit is in opfs.vfs.writer. Trio thread only.

Readers are served the committed bytes of the moment, never those of a file being written, with one exception: the
process that writes reads its own. The kernel keeps pages only while a file is open, and drops them when the
document's time or size has changed.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opfs.commit.change import Change
from opfs.core.names import ElementId, element_of_file
from opfs.errors import InvalidRequest, NotFound
from opfs.vfs.node import NAMED, NEVER, Attributes, CachePolicy, File, Handle
from opfs.vfs.notes import ACTOR, BLAKE3, BLOCK, COMPUTED, STATUS, base_of, with_xattr
from opfs.vfs.staged import StagedBytes
from opfs.vfs.writer import ABSENT, DocumentWriter, changed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opfs.commit.catalog import Entry
    from opfs.ports import FileAttributes
    from opfs.vfs.node import AttributeChanges, Caller
    from opfs.vfs.services import Services


@dataclass(slots=True)
class DocumentFile(File):
    """`<element>.json` in a plugin's directory, by its key; a bad name is an InvalidRequest."""

    services: Services
    id: ElementId = field(init=False)

    def __post_init__(self) -> None:
        self.id = ElementId(self.key[1], element_of_file(self.key[2]))

    @property
    def cache(self) -> CachePolicy:
        """The name of a committed document goes away only through the kernel, which may therefore keep it; one
        that is being created is there for its writer alone, so everybody else must ask."""
        return NAMED if self.services.visible(self.id) is not None else NEVER

    # --- there or not ------------------------------------------------------------------------------------

    def own_writer(self, caller: Caller) -> DocumentWriter | None:
        return self.services.documents.writer_of(self.id, caller)

    def is_seen_by(self, caller: Caller) -> bool:
        """Whether the name exists for this caller: committed, or being created by it."""
        if self.services.visible(self.id) is not None:
            return True
        writer = self.own_writer(caller)
        return writer is not None and writer.is_creating

    # --- attributes --------------------------------------------------------------------------------------

    async def attributes(self, caller: Caller) -> Attributes:
        """The writer sees its own bytes. Who holds an inode of an element that is being created is let in too:
        `{ cat; } > new.json` stats a file that its parent opened, and lookup has kept everyone else away."""
        documents = self.services.documents
        entry = self.services.visible(self.id)
        writer = self.own_writer(caller) or (documents.creator(self.id) if entry is None else None)
        if writer is not None:
            return writer.attributes()
        entry = entry or self.services.sequencer.catalog.get(self.id)
        if entry is None:
            raise NotFound(f"{self.id} does not exist")
        file = entry.attributes
        return Attributes(
            mode=stat.S_IFREG | file.mode,
            size=entry.size,
            uid=file.uid,
            gid=file.gid,
            atime_ns=file.mtime_ns,
            mtime_ns=file.mtime_ns,
            ctime_ns=file.mtime_ns,
        )

    async def set_attributes(self, changes: AttributeChanges, handle: Handle | None, caller: Caller) -> None:
        services = self.services
        entry = services.visible(self.id)
        writer = handle if isinstance(handle, DocumentWriter) else self.own_writer(caller)
        if writer is None and entry is None:
            writer = services.documents.creator(self.id)
        if writer is None and entry is None:
            raise NotFound(f"{self.id} does not exist")
        with services.submissions.recorded(self.id, self.path, caller):
            if changes.size is not None:
                if writer is not None and writer is handle:
                    await writer.truncate(changes.size, caller)
                else:
                    _check_truncate(self.id, changes.size, entry)
            if writer is not None:
                writer.set_attributes(changes)
            if entry is not None and (writer is None or not writer.is_creating):
                await services.sequencer.set_attributes(self.id, changed(entry.attributes, changes))

    # --- opening -----------------------------------------------------------------------------------------

    async def open(self, flags: int, caller: Caller) -> Handle:
        writer = self.own_writer(caller)
        entry = self.services.visible(self.id)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            if writer is not None:
                return OwnReader(writer)
            if entry is None:
                raise NotFound(f"{self.id} does not exist")
            return DocumentReader(self.id, self.services)
        if entry is None:
            if writer is None or not writer.is_new:
                raise NotFound(f"{self.id} does not exist")
            return self.open_new(writer.file, flags, caller)
        content, base = b"", None
        if not flags & os.O_TRUNC:
            base = entry.last_event
            content = await self.services.sequencer.read_document(self.id)
            if not _is_tip(self.services.sequencer.catalog.get(self.id), base):
                return await self.open(flags, caller)  # changed while it was read: these may not be its bytes
        return self._writer(content, base, entry.attributes, flags, caller)

    def open_new(self, created: FileAttributes, flags: int, caller: Caller) -> DocumentWriter:
        """Open a name that does not exist, or is hidden: it starts from nothing."""
        entry = self.services.sequencer.catalog.get(self.id)
        base = None if flags & os.O_TRUNC else entry.last_event if entry is not None else ABSENT
        return self._writer(b"", base, created, flags, caller, is_new=True)

    def _writer(
        self,
        content: bytes,
        base: str | None,
        file: FileAttributes,
        flags: int,
        caller: Caller,
        *,
        is_new: bool = False,
    ) -> DocumentWriter:
        services = self.services
        return DocumentWriter(
            id=self.id,
            caller=caller,
            actor=services.identify(caller),
            staged=StagedBytes(content),
            base=base,
            file=file,
            is_new=is_new,
            appends=bool(flags & os.O_APPEND),
            sequencer=services.sequencer,
            documents=services.documents,
            submissions=services.submissions,
            clock=services.clock,
        )

    # --- removing ----------------------------------------------------------------------------------------

    async def remove(self, caller: Caller) -> None:
        """rm: delete the element. What the caller itself was still creating is just forgotten."""
        services = self.services
        if services.visible(self.id) is None:
            own = [w for w in services.documents.writers(self.id) if w.is_creating and w.belongs_to(caller)]
            if not own:
                raise NotFound(f"{self.id} does not exist")
            for writer in own:
                writer.remove()
            return
        with services.submissions.recorded(self.id, self.path, caller):
            await services.submissions.commit(Change(self.id, None), actor=services.identify(caller))

    @property
    def path(self) -> str:
        return "/".join(self.key)

    # --- extended attributes -----------------------------------------------------------------------------

    def _xattrs(self, caller: Caller) -> dict[str, bytes]:
        services = self.services
        writing = any(writer.is_dirty for writer in services.documents.writers(self.id))
        entry = services.sequencer.catalog.get(self.id)
        status = "writing" if writing or entry is None else services.sequencer.status(self.id)
        xattrs = {STATUS: status.encode(errors="replace")}
        if entry is not None:
            xattrs[BLOCK] = base_of(entry, services.sequencer.catalog).encode()
            xattrs[BLAKE3] = entry.content_hash.hex().encode()
            xattrs[ACTOR] = entry.author.encode()
        return xattrs | services.submissions.note(caller.uid, self.id).to_xattrs()

    async def list_xattrs(self, caller: Caller) -> Iterable[str]:
        """Only what is set: tools that copy attributes would copy the others too, and nobody can set those."""
        return [name for name in self._xattrs(caller) if name not in COMPUTED]

    async def get_xattr(self, name: str, caller: Caller) -> bytes | None:
        return self._xattrs(caller).get(name)

    async def set_xattr(self, name: str, value: bytes, caller: Caller) -> None:
        """Note something for the caller's next commit of this element."""
        submissions = self.services.submissions
        with submissions.recorded(self.id, self.path, caller):
            note = submissions.note(caller.uid, self.id)
            head = self.services.sequencer.catalog.head
            submissions.set_note(caller.uid, self.id, with_xattr(note, name, value, head))


@dataclass(slots=True, eq=False)
class DocumentReader(Handle):
    """An open file that reads what is committed; after a delete, what it read last.

    Who reads from the beginning gets the newest version, and goes on in that one, so that nobody reads half of two.
    The kernel keeps no pages: for it a file has one size, that of whoever truncates it now, and it would end a
    reading of the committed document there.
    """

    id: ElementId
    services: Services
    _content: bytes = b""
    _content_hash: bytes | None = None

    def __post_init__(self) -> None:
        self.direct_io = True
        self.services.documents.add_reader(self.id)

    async def read(self, offset: int, size: int) -> bytes:
        entry = self.services.sequencer.catalog.get(self.id)
        if entry is None and self._content_hash is None:
            raise NotFound(f"{self.id} was deleted")
        is_outdated = self._content_hash is None or offset == 0
        if entry is not None and is_outdated and entry.content_hash != self._content_hash:
            self._content = await self.services.sequencer.read_document(self.id)
            self._content_hash = entry.content_hash
        return self._content[offset : offset + size]

    async def release(self) -> None:
        self.services.documents.remove_reader(self.id)


@dataclass(slots=True, eq=False)
class OwnReader(Handle):
    """An open file through which a process reads what it is writing."""

    writer: DocumentWriter

    def __post_init__(self) -> None:
        self.direct_io = True

    async def read(self, offset: int, size: int) -> bytes:
        return await self.writer.read(offset, size)


def _is_tip(entry: Entry | None, event: str) -> bool:
    return entry is not None and entry.last_event == event


def _check_truncate(id: ElementId, size: int, entry: Entry | None) -> None:
    """truncate(2) by path: to nothing is what `> file` does and changes nothing, nor does the size it has."""
    if size != 0 and (entry is None or size != entry.size):
        raise InvalidRequest(f"{id} cannot be cut to {size} bytes", hint="write the whole document instead")
