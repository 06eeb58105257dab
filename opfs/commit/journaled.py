"""What the journal remembers, and how each of it is a line of JSON; pure.

An intent is what is about to be done to the host. Acknowledged events are in no block yet, and somebody was told that
they are there for ever: each with its own bytes and the document that it set. Attributes are those of such a document,
changed since.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opfs.commit.change import Change
from opfs.core.action import Action, Checkpoint, Kind, Safety
from opfs.core.event import Event
from opfs.core.names import ElementId
from opfs.ports import FileAttributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opfs.commit.pending import Extension
    from opfs.core.action import Document


@dataclass(frozen=True, slots=True)
class IntendedChange:
    """One change as journaled: where the element's chain stood and what the host looked like before it.

    `held` is set for one that comes with others and does not touch the host: the step its event tells instead.
    """

    change: Change
    prev_event: str | None
    before: Document | None
    checkpoint: Checkpoint | None
    actions: tuple[Action, ...]
    held: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """A request whose actions may have begun."""

    changes: tuple[IntendedChange, ...]
    actor: Mapping[str, Any]
    message: str


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An event that is in no block yet; where it `sets_document`, to `content`, None for a delete."""

    event: Event
    sets_document: bool
    content: bytes | None = None
    attributes: FileAttributes | None = None


@dataclass(frozen=True, slots=True)
class AcknowledgedBatch:
    """Events that were acknowledged together: all of them are in the journal, or none."""

    events: tuple[Acknowledged, ...]


@dataclass(frozen=True, slots=True)
class NewAttributes:
    """Owner, mode and time of a document that is in no block yet."""

    id: ElementId
    attributes: FileAttributes


Record = Intent | AcknowledgedBatch | NewAttributes


def batch_of(extension: Extension) -> AcknowledgedBatch:
    """The events of distinct elements as the journal keeps them."""

    def each() -> Iterator[Acknowledged]:
        for event in extension.events:
            entry = extension.entries[event.id]
            sets = event.id in extension.contents
            content = extension.contents.get(event.id)
            yield Acknowledged(event, sets, content, entry.attributes if entry and content is not None else None)

    return AcknowledgedBatch(tuple(each()))


def encode_record(record: Record) -> dict[str, Any]:
    """The record as JSON."""
    match record:
        case Intent():
            return _encode_intent(record)
        case AcknowledgedBatch():
            return {"acknowledged": [_encode_acknowledged(each) for each in record.events]}
        case NewAttributes():
            return {"attributes": [record.id.plugin, record.id.element, _encode_attributes(record.attributes)]}


def decode_record(record: dict[str, Any]) -> Record:
    """Raises ValueError, TypeError, LookupError, AttributeError or OpfsError for what `encode_record` did not make."""
    if "acknowledged" in record:
        return AcknowledgedBatch(tuple(_decode_acknowledged(each) for each in record["acknowledged"]))
    if "attributes" in record:
        plugin, element, attributes = record["attributes"]
        return NewAttributes(ElementId(plugin, element), FileAttributes(*attributes))
    return _decode_intent(record)


def _encode_acknowledged(item: Acknowledged) -> dict[str, Any]:
    return {
        "event": item.event.encode().decode(),
        "sets_document": item.sets_document,
        "content": _encode_content(item.content),
        "attributes": _encode_attributes(item.attributes),
    }


def _decode_acknowledged(record: dict[str, Any]) -> Acknowledged:
    return Acknowledged(
        event=Event.decode(record["event"].encode()),
        sets_document=bool(record["sets_document"]),
        content=_decode_content(record["content"]),
        attributes=record["attributes"] and FileAttributes(*record["attributes"]),
    )


def _encode_intent(intent: Intent) -> dict[str, Any]:
    return {
        "actor": dict(intent.actor),
        "message": intent.message,
        "changes": [
            {
                "plugin": item.change.id.plugin,
                "element": item.change.id.element,
                "content": _encode_content(item.change.content),
                "attributes": _encode_attributes(item.change.attributes),
                "prev_event": item.prev_event,
                "before": item.before,
                "checkpoint": _encode_checkpoint(item.checkpoint),
                "actions": [action.to_json() for action in item.actions],
                "held": item.held and dict(item.held),
            }
            for item in intent.changes
        ],
    }


def _encode_content(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _decode_content(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _encode_attributes(attributes: FileAttributes | None) -> list[int] | None:
    if attributes is None:
        return None
    return [attributes.mode, attributes.uid, attributes.gid, attributes.mtime_ns]


def _encode_checkpoint(checkpoint: Checkpoint | None) -> list[Any] | None:
    if checkpoint is None:
        return None
    return [checkpoint.id, checkpoint.plugin, checkpoint.element, dict(checkpoint.details)]


def _decode_action(record: dict[str, Any]) -> Action:
    kind, safety, keys = Kind(record["kind"]), Safety(record["safety"]), tuple(record["keys"])
    return Action(**{**record, "kind": kind, "safety": safety, "keys": keys})


def _decode_intent(record: dict[str, Any]) -> Intent:
    changes = []
    for item in record["changes"]:
        change = Change(
            id=ElementId(item["plugin"], item["element"]),
            content=_decode_content(item["content"]),
            attributes=item["attributes"] and FileAttributes(*item["attributes"]),
        )
        checkpoint = item["checkpoint"] and Checkpoint(*item["checkpoint"])
        actions = tuple(_decode_action(action) for action in item["actions"])
        held = item.get("held")
        changes.append(IntendedChange(change, item["prev_event"], item["before"], checkpoint, actions, held))
    return Intent(tuple(changes), record["actor"], record["message"])
