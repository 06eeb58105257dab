"""One event as rows of the index's tables, and back.

Pure but for the query that `load_events` runs on the connection it is given; safe from any thread that has one.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from opfs.core.names import ElementId
from opfs.ports import IndexedEvent

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

_SELECT_EVENTS = """
SELECT e.seq, e.height, e.plugin, e.element, e.op, e.time, e.actor, e.summary, t.text,
       a.uid, a.gid, a.mode, e.event_hash
FROM events AS e JOIN texts AS t ON t.row = e.text_row JOIN access AS a ON a.id = e.access_id
WHERE e.seq IN (SELECT value FROM json_each(?))
"""


def load_events(connection: sqlite3.Connection, seqs: Sequence[int]) -> dict[int, IndexedEvent]:
    """The events with these numbers, as far as the tables have them."""
    return {row[0]: _event(*row) for row in connection.execute(_SELECT_EVENTS, (json.dumps(seqs),))}


def event_row(event: IndexedEvent, text_row: int, access_id: int) -> dict[str, object]:
    """The event as a row of `events`."""
    return {
        "seq": event.seq,
        "height": event.height,
        "plugin": event.id.plugin,
        "element": event.id.element,
        "op": event.op,
        "time": event.time,
        "actor": storable(event.actor),
        "summary": storable(event.summary),
        "event_hash": event.event_hash,
        "text_row": text_row,
        "access_id": access_id,
    }


def _event(
    seq: int, height: int, plugin: str, element: str, op: str, time: str, actor: str, summary: str, text: str,
    uid: int, gid: int, mode: int, event_hash: str,
) -> IndexedEvent:  # fmt: skip
    id = ElementId(plugin, element)
    return IndexedEvent(seq, height, id, op, time, actor, summary, text, uid, gid, mode, event_hash)


def access_triple(event: IndexedEvent) -> tuple[int, int, int]:
    """What decides who may see the event: owner, group and permission bits."""
    return event.uid, event.gid, event.mode


def text_digest(text: str) -> bytes:
    """SHA-256, by which equal texts find their vector."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def storable(text: str) -> str:
    """The text as SQLite can hold it: a process may call itself something that is no UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")
