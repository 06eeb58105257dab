"""Which blocks set the document of each element: learned from the events, each block's once, and kept in memory.

For the time in which there is no history to ask; eight bytes for each event that set or deleted a document. What is
learned says where to look and is not believed: what is found there is checked by whoever reads it. Any thread.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right, insort
from typing import TYPE_CHECKING

from opfs.core.event import decode_events
from opfs.core.standing import DOCUMENT_OPS
from opfs.errors import IntegrityError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opfs.core.names import BlockName, ElementId


class Origins:
    """Learns from `read_events`, which raises NotFound or IntegrityError where it cannot."""

    def __init__(self, read_events: Callable[[BlockName], bytes]) -> None:
        self._read_events = read_events
        self._changes: dict[ElementId, array[int]] = {}
        """By element, rising: twice the height of each block that changed its document, one more where that set it."""
        self._last: BlockName | None = None
        """The last block that was looked at."""
        self._unread: list[BlockName] = []
        """Blocks up to it whose events could not be read."""
        self._learning = threading.Lock()

    def learn(self, blocks: Sequence[BlockName], until: BlockName) -> None:
        """Look at those of `blocks`, lowest first, up to `until` that are new or could not be read before."""
        if self._last is not None and until <= self._last and not self._unread:
            return
        with self._learning:
            first = 0 if self._last is None else bisect_right(blocks, self._last)
            new = blocks[first : bisect_right(blocks, until)]
            # set when all is taken in: who does not wait for the lock finds what is known or learns it
            self._unread = [name for name in (*self._unread, *new) if not self._take_in(name)]
            self._last = new[-1] if new else self._last

    def find(self, id: ElementId, height: int) -> int | None:
        """The height of the block that set the document which the element has in the block of `height`, up to which
        blocks were learned; None where it has none.

        Raises IntegrityError where a block in between cannot be read, which may have changed it.
        """
        changes = self._changes.get(id, array("q"))
        position = bisect_right(changes, 2 * height + 1)
        change = changes[position - 1] if position else -1
        self._require_read(change // 2, height)
        return change // 2 if position and change % 2 else None

    def elements(self, height: int) -> Iterator[ElementId]:
        """Every element that has a document in the block of `height`; as `find`."""
        self._require_read(-1, height)
        return (id for id in list(self._changes) if self.find(id, height) is not None)

    def _take_in(self, name: BlockName) -> bool:
        try:
            events = decode_events(self._read_events(name))
        except (IntegrityError, NotFound):
            return False
        for id, op in {event.id: event.op for event in events if event.op in DOCUMENT_OPS}.items():
            insort(self._changes.setdefault(id, array("q")), 2 * name.height + (op != "delete"))
        return True

    def _require_read(self, above: int, height: int) -> None:
        for name in self._unread:
            if above < name.height <= height:
                raise IntegrityError(f"the events of block {name} cannot be read, which tell what it changed")
