"""An event in words, with the documents before and after it: what the index holds of it, and nothing else.

Depends on the blocks alone, so that the index can be made again, and checked, from them. Reads the store; blocking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from opfs.core.difference import diff_documents
from opfs.core.document import parse_document
from opfs.core.narrative import SUMMARY_LIMIT, sentence, summarize
from opfs.core.printable import clip, printable
from opfs.errors import NotFound
from opfs.ports import FileAttributes, IndexedEvent

if TYPE_CHECKING:
    from opfs.core.action import Document
    from opfs.core.event import Event
    from opfs.core.names import BlockName, ElementId


class BlockReads(Protocol):
    """The part of a SnapshotStore that reads single files of blocks."""

    def read_header(self, name: BlockName) -> bytes: ...

    def read_events(self, name: BlockName) -> bytes: ...

    def read_document(self, name: BlockName, id: ElementId) -> bytes: ...

    def document_attributes(self, name: BlockName, id: ElementId) -> FileAttributes: ...


HIDDEN = FileAttributes(mode=0o600, uid=0, gid=0, mtime_ns=0)


def describe_event(store: BlockReads, event: Event, name: BlockName, before: BlockName | None) -> IndexedEvent:
    """The event of block `name`, which follows the block `before`."""
    new = _document(store, event, name)
    old = _document(store, event, before)
    attributes = _attributes(store, event, name) or _attributes(store, event, before) or HIDDEN
    actor = str(event.actor.get("user") or event.actor.get("uid", ""))
    return IndexedEvent(
        seq=event.seq,
        height=name.height,
        id=event.id,
        op=event.op,
        time=event.time,
        actor=actor,
        summary=_summary(event, old, new),
        text=sentence(event.id, event.op, old, new, actor, event.message),
        uid=attributes.uid,
        gid=attributes.gid,
        mode=attributes.mode,
        event_hash=event.hash,
    )


def _document(store: BlockReads, event: Event, name: BlockName | None) -> Document | None:
    if name is None:
        return None
    try:
        return parse_document(store.read_document(name, event.id))
    except NotFound:
        return None


def _attributes(store: BlockReads, event: Event, name: BlockName | None) -> FileAttributes | None:
    if name is None:
        return None
    try:
        return store.document_attributes(name, event.id)
    except NotFound:
        return None


def _summary(event: Event, old: Document | None, new: Document | None) -> str:
    """What changed or, where nothing did because it failed, why."""
    if event.op == "apply-failed" and event.message:
        return clip(printable(f"failed: {event.message}"), SUMMARY_LIMIT)
    return summarize(event.id, event.op, diff_documents(old, new))
