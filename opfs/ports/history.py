"""Every event by its element.

Concurrency: methods block and belong in worker threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from opfs.core.names import ElementId
    from opfs.ports.storage import FileAttributes


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One event as the history holds it: what changed, when and who, and the document it left, by its hash.

    `content` is the BLAKE3, hex, of the element's document after the event, None where it then had none.
    `attributes` are the document's after the event (before it, for a delete): they decide who may see it. `uid` and
    `user` are the actor's; `event_hash` (hex) is the event's own. `size`, in bytes, is the document's where the
    event set it, else 0. `line_size`, in bytes, is that of the event's line in the stream of events.
    """

    seq: int
    height: int
    id: ElementId
    op: str
    content: str | None
    time_ns: int
    uid: int
    user: str
    message: str
    attributes: FileAttributes
    event_hash: str
    size: int = 0
    line_size: int = 0


@dataclass(frozen=True, slots=True)
class EventLine:
    """Where one line of the stream of events comes from, and how many bytes it has."""

    seq: int
    height: int
    size: int


@dataclass(frozen=True, slots=True)
class EventStretch:
    """What somebody may see of the events from `number * length` on, as many as `length`: bytes, and newest time."""

    number: int
    size: int
    time_ns: int


class History(Protocol):
    """Every event by its element: derived from the chain, rebuildable, never the truth.

    A *version* of an element is an event after which its document was another than before: also a delete, and a
    create with the old bytes. `append` and `clear` are called from one thread at a time; all else from any.
    """

    @property
    def indexed_count(self) -> int:
        """The number of events taken in: every event with seq below it is here."""
        ...

    def tip(self) -> tuple[int, str] | None:
        """Seq and hash of the newest event, None when empty."""
        ...

    def append(self, events: Sequence[RecordedEvent]) -> None:
        """Take in events in order of seq; `events[0].seq == indexed_count`."""
        ...

    def clear(self) -> None:
        """Forget everything, so that it can be made again."""
        ...

    def close(self) -> None: ...

    def plugins(self) -> Sequence[str]:
        """Of every element there ever was, by name."""
        ...

    def elements(self, plugin: str, *, with_versions: bool = False) -> Sequence[str]:
        """Every element of a plugin that ever had an event, or only those that ever had a document; by name."""
        ...

    def versions(self, id: ElementId) -> Sequence[RecordedEvent]:
        """The versions of one element, oldest first; empty where it never was."""
        ...

    def version_at(self, id: ElementId, before_seq: int) -> RecordedEvent | None:
        """The version that held when the event `before_seq` was still to come; None where there was none yet."""
        ...

    def documents_at(self, before_seq: int, plugin: str | None = None) -> Sequence[RecordedEvent]:
        """Of every element (of one plugin) that had a document then, the version that held; by plugin and element."""
        ...

    def events(self, id: ElementId | None = None, *, first_seq: int = 0, limit: int = 1000) -> Sequence[RecordedEvent]:
        """Events from `first_seq` on (of one element), oldest first."""
        ...

    def lines(self, first_seq: int, before_seq: int, uid: int, gids: Collection[int]) -> Sequence[EventLine]:
        """Of the events between the two numbers, those of documents that (uid, gids) may read; oldest first."""
        ...

    def stretches(
        self, first_seq: int, before_seq: int, uid: int, gids: Collection[int], *, length: int
    ) -> Sequence[EventStretch]:
        """The same, summed up for each stretch of `length` numbers in which there is any."""
        ...
