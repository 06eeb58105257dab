"""One change of one element, as the chain records it for ever (format.md, "Event"); pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from opfs.core.canonical import canonical_bytes, hash_hex
from opfs.core.names import BlockName, ElementId, check_element_name
from opfs.errors import IntegrityError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT_VERSION = 1
MAX_MESSAGE_BYTES = 4096
_FIELDS = frozenset(
    ("v", "seq", "plugin", "element", "op", "content", "prev_event", "time", "actor", "message", "plan", "plugin_hash")
)


@dataclass(frozen=True)
class Event:
    """`content` and `prev_event` are BLAKE3 in hex, or None; `time` is RFC 3339 with nanoseconds.

    `actor` is `Actor.to_json()`; `plan` lists the actions as `Action.to_event()` names them.
    """

    seq: int
    id: ElementId
    op: str
    content: str | None
    prev_event: str | None
    time: str
    actor: Mapping[str, Any]
    message: str = ""
    plan: tuple[Mapping[str, Any], ...] = ()
    plugin_hash: str = ""

    def encode(self) -> bytes:
        """The canonical bytes, without a newline: what is hashed and stored."""
        return self._encoded

    @cached_property
    def _encoded(self) -> bytes:
        return canonical_bytes(
            {
                "v": FORMAT_VERSION,
                "seq": self.seq,
                "plugin": self.id.plugin,
                "element": self.id.element,
                "op": self.op,
                "content": self.content,
                "prev_event": self.prev_event,
                "time": self.time,
                "actor": dict(self.actor),
                "message": self.message,
                "plan": [dict(step) for step in self.plan],
                "plugin_hash": self.plugin_hash,
            }
        )

    @cached_property
    def hash(self) -> str:
        """BLAKE3 of the canonical bytes, hex."""
        return hash_hex(self._encoded)

    @classmethod
    def decode(cls, data: bytes) -> Event:
        """Read canonical bytes; raises IntegrityError for anything that `encode` would not write."""
        try:
            record = json.loads(data)
            if not isinstance(record, dict) or record.keys() != _FIELDS or record["v"] != FORMAT_VERSION:
                raise ValueError("the fields are not those of format version 1")
            check_element_name(record["element"])
            event = cls(
                seq=record["seq"],
                id=ElementId(record["plugin"], record["element"]),
                op=record["op"],
                content=record["content"],
                prev_event=record["prev_event"],
                time=record["time"],
                actor=record["actor"],
                message=record["message"],
                plan=tuple(record["plan"]),
                plugin_hash=record["plugin_hash"],
            )
            if event.encode() != data:
                raise ValueError("the bytes are not canonical")
        except (ValueError, TypeError, RecursionError, InvalidRequest) as error:
            raise IntegrityError(f"not an event: {error}") from error
        return event


def clip_message(text: str) -> str:
    """As much of `text` as a message may hold, with half surrogates, which have no UTF-8, replaced."""
    return text.encode(errors="replace")[:MAX_MESSAGE_BYTES].decode(errors="ignore")


def event_line(block: BlockName, encoded: bytes) -> bytes:
    """The event's line in the stream of events: its canonical bytes with the name of its block put before."""
    return b'{"block":"' + str(block).encode() + b'",' + encoded[1:] + b"\n"


def decode_event_line(line: bytes) -> tuple[BlockName, Event]:
    """Read what `event_line` wrote; raises IntegrityError."""
    head, _, rest = line.rstrip(b"\n").partition(b",")
    try:
        return BlockName.parse(json.loads(head + b"}")["block"]), Event.decode(b"{" + rest)
    except (ValueError, TypeError, KeyError, InvalidRequest) as error:
        raise IntegrityError(f"not a line of the stream of events: {error}") from error


def pending_line(encoded: bytes) -> bytes:
    """The line of an event that is in no block yet."""
    return b'{"block":null,' + encoded[1:] + b"\n"


def encode_events(events: tuple[Event, ...]) -> bytes:
    """The bytes of a block's `events.jsonl`."""
    return b"".join(event.encode() + b"\n" for event in events)


def decode_events(data: bytes) -> tuple[Event, ...]:
    """Read a block's `events.jsonl`; raises IntegrityError."""
    if data and not data.endswith(b"\n"):
        raise IntegrityError("events.jsonl does not end with a newline")
    return tuple(Event.decode(line) for line in data.split(b"\n")[:-1])
