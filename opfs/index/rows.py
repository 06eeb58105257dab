"""One event as rows of the index's tables, and back; names as the numbers that rows refer to.

Runs its queries on the connection it is given; safe from any thread that has one.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from opfs.core.names import ElementId
from opfs.core.timestamp import format_time, parse_time
from opfs.ports import IndexedEvent

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

_SELECT_EVENTS = """
SELECT e.seq, e.height, p.name, n.name, o.name, e.time_ns, w.name, e.summary, t.text, a.uid, a.gid, a.mode, e.event_hash
FROM events AS e
JOIN texts AS t ON t.row = e.text_row
JOIN access AS a ON a.id = e.access_id
JOIN elements AS n ON n.id = e.element_id
JOIN plugins AS p ON p.id = n.plugin_id
JOIN ops AS o ON o.id = e.op_id
JOIN actors AS w ON w.id = e.actor_id
WHERE e.seq IN (SELECT value FROM json_each(?))
"""

_KEPT_NAMES = 100_000


def load_events(connection: sqlite3.Connection, seqs: Sequence[int]) -> dict[int, IndexedEvent]:
    """The events with these numbers, as far as the tables have them."""
    return {row[0]: _event(*row) for row in connection.execute(_SELECT_EVENTS, (json.dumps(seqs),))}


def load_texts(connection: sqlite3.Connection, rows: Sequence[int]) -> list[str]:
    """The texts of these rows, in this order; raises KeyError for one that is missing."""
    select = "SELECT row, text FROM texts WHERE row IN (SELECT value FROM json_each(?))"
    found = dict(connection.execute(select, (json.dumps(list(rows)),)))
    return [found[row] for row in rows]


def _event(
    seq: int, height: int, plugin: str, element: str, op: str, time_ns: int, actor: str, summary: str, text: str,
    uid: int, gid: int, mode: int, event_hash: bytes,
) -> IndexedEvent:  # fmt: skip
    id, time = ElementId(plugin, element), format_time(time_ns)
    return IndexedEvent(seq, height, id, op, time, actor, summary, text, uid, gid, mode, event_hash.hex())


class Names:
    """Numbers of names, made as they come; for the writer's thread and connection.

    After a transaction that was rolled back, `forget`: numbers that it gave away are nobody's.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._numbers: dict[tuple[str, object, object], int] = {}

    def plugin(self, name: str) -> int:
        return self._number("plugins", "name", name)

    def element(self, id: ElementId) -> int:
        return self._number("elements", "plugin_id, name", self.plugin(id.plugin), id.element)

    def op(self, name: str) -> int:
        return self._number("ops", "name", name)

    def actor(self, name: str) -> int:
        return self._number("actors", "name", storable(name))

    def forget(self) -> None:
        self._numbers.clear()

    def _number(self, table: str, columns: str, *values: object) -> int:
        key = (table, values[0], values[-1])
        number = self._numbers.get(key)
        if number is None:
            if len(self._numbers) >= _KEPT_NAMES:
                self._numbers.clear()
            number = self._numbers[key] = self._find_or_make(table, columns, values)
        return number

    def _find_or_make(self, table: str, columns: str, values: Sequence[object]) -> int:
        marks = ", ".join("?" * len(values))
        row = self._connection.execute(f"SELECT id FROM {table} WHERE ({columns}) = ({marks})", values).fetchone()
        if row is None:
            insert = f"INSERT INTO {table} ({columns}) VALUES ({marks}) RETURNING id"
            row = self._connection.execute(insert, values).fetchone()
        return int(row[0])


def find_text(connection: sqlite3.Connection, text: str) -> int | None:
    """The row of a text that is there already."""
    select = "SELECT row FROM texts WHERE digest = ? AND text = ?"
    row = connection.execute(select, (short_digest(text), text)).fetchone()
    return None if row is None else int(row[0])


def event_row(event: IndexedEvent, names: Names, text_row: int, access_id: int) -> tuple[object, ...]:
    """The event as a row of `events`."""
    return (
        event.seq,
        event.height,
        names.element(event.id),
        names.op(event.op),
        names.actor(event.actor),
        parse_time(event.time),
        storable(event.summary),
        bytes.fromhex(event.event_hash),
        text_row,
        access_id,
    )


def access_triple(event: IndexedEvent) -> tuple[int, int, int]:
    """What decides who may see the event: owner, group and permission bits."""
    return event.uid, event.gid, event.mode


def text_digest(text: str) -> bytes:
    """SHA-256, by which a text finds its vector again when the index is begun anew."""
    return hashlib.sha256(text.encode()).digest()


def short_digest(text: str) -> int:
    """The beginning of that as SQLite's kind of number, by which a text finds its row."""
    return int.from_bytes(text_digest(text)[:8], "big", signed=True)


def storable(text: str) -> str:
    """The text as SQLite can hold it: a process may call itself something that is no UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


_NAMES = {
    "plugin": "SELECT id, name FROM plugins WHERE id IN (SELECT value FROM json_each(?))",
    "op": "SELECT id, name FROM ops WHERE id IN (SELECT value FROM json_each(?))",
    "actor": "SELECT id, name FROM actors WHERE id IN (SELECT value FROM json_each(?))",
    "element": """
SELECT e.id, p.name || '/' || e.name FROM elements AS e JOIN plugins AS p ON p.id = e.plugin_id
WHERE e.id IN (SELECT value FROM json_each(?))
""",
}


def load_names(connection: sqlite3.Connection, column: str, numbers: Sequence[int]) -> dict[int, str]:
    """What the numbers of a column of names mean; an element is called `plugin/element`."""
    return dict(connection.execute(_NAMES[column], (json.dumps(numbers),)))
