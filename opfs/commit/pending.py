"""What follows HEAD and is in no block yet: events that are durable in the journal, and what they make of documents.

An event's bytes, number and place in its element's chain are final from the moment it is pending; the block that will
hold it is the only thing that it does not know. Nothing here is written anywhere. Trio thread only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opfs.core.timestamp import parse_time
from opfs.ports import FileAttributes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.commit.catalog import Entry
    from opfs.commit.tips import Tip
    from opfs.core.event import Event
    from opfs.core.names import ElementId

NOBODYS = FileAttributes(mode=0o600, uid=0, gid=0, mtime_ns=0)
"""Of an event whose element has no document, before nor after it: root's."""


@dataclass(frozen=True, slots=True)
class Extension:
    """Events that may follow the last one, and what the catalog and the layer will be after them.

    `tips` and `attributes` have one item for each event: the end of its element's chain, and whose the document is
    that it tells of. `contents` are the documents that are set; None is a delete.
    """

    events: tuple[Event, ...]
    tips: tuple[Tip, ...]
    attributes: tuple[FileAttributes, ...]
    entries: Mapping[ElementId, Entry | None]
    contents: Mapping[ElementId, bytes | None]


@dataclass(slots=True)
class Pending:
    """Every event since HEAD, oldest first."""

    events: list[Event] = field(default_factory=list)
    attributes: list[FileAttributes] = field(default_factory=list)
    tips: dict[ElementId, Tip] = field(default_factory=dict)
    moves: list[tuple[ElementId, Tip]] = field(default_factory=list)
    """The tip after each event, in order."""
    contents: dict[ElementId, bytes | None] = field(default_factory=dict)
    """The documents that are not HEAD's; None where it is deleted."""
    size_bytes: int = 0
    """Of events and documents together, also of those that later ones replaced: what the journal holds of them."""

    def __len__(self) -> int:
        return len(self.events)

    @property
    def since_ns(self) -> int | None:
        """When the oldest of them happened, None where there is none."""
        return parse_time(self.events[0].time) if self.events else None

    @property
    def newest_ns(self) -> int:
        """When the newest of them happened, 0 where there is none."""
        return parse_time(self.events[-1].time) if self.events else 0

    def take(self, extension: Extension) -> None:
        """What follows the newest event becomes pending too."""
        self.events += extension.events
        self.attributes += extension.attributes
        moves = [(event.id, tip) for event, tip in zip(extension.events, extension.tips, strict=True)]
        self.moves += moves
        self.tips.update(moves)
        self.contents.update(extension.contents)
        self.size_bytes += sum(len(event.encode()) for event in extension.events)
        self.size_bytes += sum(len(content or b"") for content in extension.contents.values())

    def told(self) -> Sequence[tuple[Event, FileAttributes]]:
        """Every event, and whose document it tells of."""
        return list(zip(self.events, self.attributes, strict=True))
