"""Which events a search looks at; pure.

Knows no paths (opfs.core.query) and no index.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opfs.core.names import ElementId


class FilterKind(StrEnum):
    """The filters whose values an index knows, by the words of a path."""

    PLUGIN = "plugin"
    ELEMENT = "element"
    OP = "op"
    BY = "by"


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Every part narrows; values of one part are alternatives, and an empty part lets everything pass.

    `actors` are the names of `IndexedEvent.actor`. `since_ns` and `until_ns` are nanoseconds since the epoch, UTC:
    events from the one on, and before the other. `before_seq` leaves out what was not known yet at that moment.
    """

    plugins: frozenset[str] = frozenset()
    elements: frozenset[ElementId] = frozenset()
    ops: frozenset[str] = frozenset()
    actors: frozenset[str] = frozenset()
    since_ns: int | None = None
    until_ns: int | None = None
    before_seq: int | None = None

    @property
    def is_prefix(self) -> bool:
        """Whether it lets all events pass up to some number, and none after."""
        return not (self.plugins or self.elements or self.ops or self.actors) and self.since_ns is self.until_ns is None


EVERYTHING = EventFilter()
