"""A History in memory: passes the real one's contract suite. Any thread reads while one appends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.ports import EventLine, EventStretch

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from opfs.core.names import ElementId
    from opfs.ports import FileAttributes, RecordedEvent


class MemoryHistory:
    """The events as a list."""

    def __init__(self) -> None:
        self._events: list[RecordedEvent] = []

    @property
    def indexed_count(self) -> int:
        return len(self._events)

    def tip(self) -> tuple[int, str] | None:
        return (self._events[-1].seq, self._events[-1].event_hash) if self._events else None

    def append(self, events: Sequence[RecordedEvent]) -> None:
        if [event.seq for event in events] != list(range(len(self._events), len(self._events) + len(events))):
            raise ValueError(f"events to append must be numbered from {len(self._events)} on, without gaps")
        self._events.extend(events)

    def clear(self) -> None:
        self._events.clear()

    def close(self) -> None:
        """Nothing is open."""

    def plugins(self) -> Sequence[str]:
        return sorted({event.id.plugin for event in self._events})

    def elements(self, plugin: str, *, with_versions: bool = False) -> Sequence[str]:
        ids = {event.id for event in self._events if event.id.plugin == plugin}
        return sorted(id.element for id in ids if not with_versions or self.versions(id))

    def versions(self, id: ElementId) -> Sequence[RecordedEvent]:
        content, found = None, []
        for event in self._events:
            if event.id == id and event.content != content:
                content = event.content
                found.append(event)
        return found

    def version_at(self, id: ElementId, before_seq: int) -> RecordedEvent | None:
        return next((event for event in reversed(self.versions(id)) if event.seq < before_seq), None)

    def documents_at(self, before_seq: int, plugin: str | None = None) -> Sequence[RecordedEvent]:
        ids = sorted({event.id for event in self._events if plugin in (None, event.id.plugin)})
        found = (self.version_at(id, before_seq) for id in ids)
        return [event for event in found if event is not None and event.content is not None]

    def events(self, id: ElementId | None = None, *, first_seq: int = 0, limit: int = 1000) -> Sequence[RecordedEvent]:
        return [event for event in self._events[first_seq:] if id in (None, event.id)][:limit]

    def lines(self, first_seq: int, before_seq: int, uid: int, gids: Collection[int]) -> Sequence[EventLine]:
        events = self._readable(first_seq, before_seq, uid, gids)
        return [EventLine(event.seq, event.height, event.line_size) for event in events]

    def stretches(
        self, first_seq: int, before_seq: int, uid: int, gids: Collection[int], *, length: int
    ) -> Sequence[EventStretch]:
        found: dict[int, EventStretch] = {}
        for event in self._readable(first_seq, before_seq, uid, gids):
            number = event.seq // length
            known = found.get(number, EventStretch(number, 0, 0))
            found[number] = EventStretch(number, known.size + event.line_size, max(known.time_ns, event.time_ns))
        return list(found.values())

    def _readable(self, first_seq: int, before_seq: int, uid: int, gids: Collection[int]) -> Sequence[RecordedEvent]:
        def readable(file: FileAttributes) -> bool:
            granted = file.mode >> (6 if uid == file.uid else 3 if file.gid in gids else 0)
            return uid == 0 or granted & 4 != 0

        return [event for event in self._events[first_seq:before_seq] if readable(event.attributes)]
