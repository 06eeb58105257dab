"""An event as the search index and the history hold it.

Depends on the blocks alone, so that the index can be made again, and checked, from them. Reads the store; blocking.

A block that was made at the end of an interval may change an element several times, and has only the last of these
documents. What its events did is then told by their plans, since no two documents show it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from opfs.core.canonical import hash_hex
from opfs.core.difference import diff_documents
from opfs.core.document import parse_document
from opfs.core.event import decode_events, event_line
from opfs.core.names import OWN_EVENTS
from opfs.core.narrative import SUMMARY_LIMIT, sentence, summarize, summarize_drift
from opfs.core.printable import clip, printable
from opfs.core.standing import DOCUMENT_OPS, OWN_SOURCES
from opfs.core.timestamp import parse_time
from opfs.errors import Erased, NotFound
from opfs.ports import FileAttributes, IndexedEvent, RecordedEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.core.action import Document
    from opfs.core.event import Event
    from opfs.core.names import BlockName, ElementId


class BlockReads(Protocol):
    """The part of a SnapshotStore that reads single files of blocks."""

    def read_header(self, name: BlockName) -> bytes: ...

    def read_events(self, name: BlockName) -> bytes: ...

    def read_document(self, name: BlockName, id: ElementId) -> bytes: ...

    def document_attributes(self, name: BlockName, id: ElementId) -> FileAttributes: ...


ERASED = "a document that this was about is erased"
HIDDEN = FileAttributes(mode=0o600, uid=0, gid=0, mtime_ns=0)


def describe_event(store: BlockReads, event: Event, name: BlockName, before: BlockName | None) -> IndexedEvent:
    """The event of block `name`, which follows the block `before`."""
    plan = tuple(str(step.get("summary", "")) for step in event.plan)
    is_alone = not _is_one_of_several(store, event, name)
    try:
        new = _document(store, event, name) if is_alone else None
        old = _document(store, event, before) if is_alone else None
        summary = _summary(event, old, new) if is_alone else _steps(event)
    except Erased:
        # what is left of one of the two would tell of the other
        new = old = None
        summary = ERASED
        plan = ()
    attributes = _attributes(store, event, name) or _attributes(store, event, before) or HIDDEN
    actor = _who(event)
    return IndexedEvent(
        seq=event.seq,
        height=name.height,
        id=event.id,
        op=event.op,
        time=event.time,
        actor=actor,
        summary=summary,
        text=sentence(event.id, event.op, old, new, actor, event.message if is_alone else _told(event), plan),
        uid=attributes.uid,
        gid=attributes.gid,
        mode=attributes.mode,
        event_hash=event.hash,
    )


def record_event(store: BlockReads, event: Event, name: BlockName, before: BlockName | None) -> RecordedEvent:
    """The event of block `name`, which follows the block `before`, without its documents."""
    attributes = _attributes(store, event, name) or _attributes(store, event, before) or HIDDEN
    uid = event.actor.get("uid")
    return RecordedEvent(
        seq=event.seq,
        height=name.height,
        id=event.id,
        op=event.op,
        content=event.content,
        time_ns=parse_time(event.time),
        uid=uid if isinstance(uid, int) else 0,
        user=str(event.actor.get("user") or event.actor.get("uid", "")),
        message=event.message,
        attributes=attributes,
        event_hash=event.hash,
        size=_size(store, event, name),
        line_size=len(event_line(name, event.encode())),
    )


def _size(store: BlockReads, event: Event, name: BlockName) -> int:
    if not event.content or event.op not in DOCUMENT_OPS:
        return 0
    try:
        content = store.read_document(name, event.id)
    except (Erased, NotFound):
        return 0
    return len(content) if hash_hex(content) == event.content else 0


_settings: dict[BlockName, Mapping[ElementId, int]] = {}
"""How often blocks that were looked at set the document of an element; a block's name commits to that."""
_MAX_LOOKED_AT = 64


def _is_one_of_several(store: BlockReads, event: Event, name: BlockName) -> bool:
    """Whether others of the block set the element's document, so that two blocks do not show what this one did."""
    found = _settings.get(name)
    if found is None:
        data = store.read_events(name)
        events = decode_events(data) if data.count(b"\n") > 1 else ()
        if len(_settings) >= _MAX_LOOKED_AT:
            _settings.clear()
        found = _settings[name] = Counter(event.id for event in events if event.op in DOCUMENT_OPS)
    return found.get(event.id, 0) > (event.op in DOCUMENT_OPS)


def _steps(event: Event) -> str:
    """What was done, in the words of the plan."""
    steps = "; ".join(str(step.get("summary", "")) for step in event.plan)
    failure = f"failed: {event.message}" if event.op == "apply-failed" else ""
    return clip(printable(failure or steps or event.op), SUMMARY_LIMIT)


def _told(event: Event) -> str:
    """The message and the plan, for a sentence that has no documents to tell of."""
    return f"{event.message} {_steps(event)}" if event.message else _steps(event)


def _who(event: Event) -> str:
    """Who did it: the user; for what opfs saw or did by itself, whom the backend named, or opfs."""
    if event.op == "drift":
        return str(event.actor.get("command", ""))
    if event.actor.get("source") in OWN_SOURCES:
        return "opfs"
    return str(event.actor.get("user") or event.actor.get("uid", ""))


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
    """What changed or, where no document did, why it failed, in what the host differs, or what opfs did to itself."""
    if event.op == "apply-failed" and event.message:
        return clip(printable(f"failed: {event.message}"), SUMMARY_LIMIT)
    if event.op == "drift":
        return summarize_drift(event.message)
    if event.id.plugin == OWN_EVENTS:
        steps = [str(step.get("summary", "")) for step in event.plan]
        said = "; ".join(filter(None, (event.message, *steps)))
        return clip(printable(f"{event.op}: {said}" if said else event.op), SUMMARY_LIMIT)
    return summarize(event.id, event.op, diff_documents(old, new))
