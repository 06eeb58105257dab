"""What rename(2) means in /state, for each pair of document and draft.

Permissions are the kernel's business. Trio thread only; the kernel holds both directories while a rename is under
way, so no name in them changes meanwhile.

| from | to | what happens |
|---|---|---|
| draft | draft | the file moves, between plugins too |
| draft | document | its bytes are committed, with its owner, mode and time; then the draft is gone |
| document | draft | the draft gets the content; the document is hidden until it is written again |
| document | document | a create and a delete in one block |
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

import trio

from opfs.commit.change import Change
from opfs.core.document import MAX_DOCUMENT_BYTES
from opfs.core.names import ElementId, element_of_file, is_draft
from opfs.errors import Busy, InvalidRequest, NotFound, OpfsError, TooLarge
from opfs.vfs.documents import DocumentFile
from opfs.vfs.notes import NO_NOTE, from_xattrs

if TYPE_CHECKING:
    from opfs.commit.catalog import Entry
    from opfs.vfs.node import Caller, NodeKey
    from opfs.vfs.services import Services

log = logging.getLogger(__name__)

RENAME_NOREPLACE = 1


async def rename(services: Services, source: NodeKey, target: NodeKey, flags: int, caller: Caller) -> None:
    """Rename `source` to `target`, two files of plugins' directories; `flags` as renameat2(2)."""
    if is_draft(source[2]) and is_draft(target[2]):
        await services.drafts.rename(source[1], source[2], target[1], target[2], flags)
        return
    if flags & ~RENAME_NOREPLACE:
        raise InvalidRequest("a document does not change places with another file", hint="rename one after the other")
    if is_draft(source[2]):
        await _install(services, source, target, flags, caller)
    elif is_draft(target[2]):
        await _set_aside(services, source, target, flags, caller)
    else:
        await _move(services, source, target, flags, caller)


async def _install(services: Services, source: NodeKey, target: NodeKey, flags: int, caller: Caller) -> None:
    """Commit a draft. Refused, it stays where it is, and a hidden document stays hidden a while longer."""
    draft = await trio.to_thread.run_sync(services.drafts.store.read, source[1], source[2], MAX_DOCUMENT_BYTES)
    with services.submissions.recorded(_id_of(target), "/".join(target), caller, content=lambda: draft.content):
        document = DocumentFile(target, services)
        _check_free(document, flags, caller)
        if draft.is_cut:
            raise TooLarge(
                f"the draft {source[2]} is larger than a document",
                hint=f"a document has at most {MAX_DOCUMENT_BYTES:,} bytes",
            )
        note = from_xattrs(draft.xattrs, services.sequencer.catalog.head)
        change = Change(document.id, draft.content, draft.attributes)
        was_hidden = services.documents.is_hidden(document.id)
        try:
            await services.submissions.commit(
                change, actor=services.identify(caller), note=note if note != NO_NOTE else None
            )
        except OpfsError:
            if was_hidden:
                services.documents.hide(document.id)
            raise
    try:
        await services.drafts.unlink(source[1], source[2])
    except OSError:
        # it is committed, so the answer is yes; the file that is left is a draft and does no harm
        log.exception("removing the draft %s after its commit", "/".join(source))


async def _set_aside(services: Services, source: NodeKey, target: NodeKey, flags: int, caller: Caller) -> None:
    """What vim and emacs do with the old version before they write the new one: never a delete."""
    document = DocumentFile(source, services)
    with services.submissions.recorded(document.id, document.path, caller):
        entry = _committed(document, caller)
        content = await services.sequencer.read_document(document.id)
    await services.drafts.put(target, content, entry.attributes, flags)
    services.documents.hide(document.id)


async def _move(services: Services, source: NodeKey, target: NodeKey, flags: int, caller: Caller) -> None:
    """Create and delete; both elements' plugins have a say, and the rules of deletes apply."""
    old = DocumentFile(source, services)
    with services.submissions.recorded(old.id, old.path, caller):
        entry = _committed(old, caller)
        content = await services.sequencer.read_document(old.id)
    with services.submissions.recorded(_id_of(target), "/".join(target), caller, content=lambda: content):
        new = DocumentFile(target, services)
        _check_free(new, flags, caller)
        if new.id == old.id:
            return
        create = Change(new.id, content, entry.attributes)
        delete = Change(old.id, None, base_event=entry.last_event)
        await services.submissions.commit(create, delete, actor=services.identify(caller))


def _check_free(document: DocumentFile, flags: int, caller: Caller) -> None:
    if flags & RENAME_NOREPLACE and document.is_seen_by(caller):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), document.key[2])


def _committed(document: DocumentFile, caller: Caller) -> Entry:
    """The document to be renamed; raises NotFound, or Busy where there is only an open file of the caller's."""
    entry = document.services.visible(document.id)
    if entry is not None:
        return entry
    if document.is_seen_by(caller):
        raise Busy(f"{document.id} is still being written", hint="finish and close it, then rename it")
    raise NotFound(f"{document.id} does not exist")


def _id_of(key: NodeKey) -> ElementId | None:
    """The element a refusal is about, None where the name is what is wrong."""
    try:
        return ElementId(key[1], element_of_file(key[2]))
    except InvalidRequest:
        return None
