"""What goes on with documents besides what is committed: who has them open, and which are hidden.

Knows no content and commits nothing. Trio thread only; no method blocks.

A new element exists for its writer alone until it is committed. The writer is the process (thread group)
that opened the file, under the same effective uid: `getattr` and `lookup` come with a thread id and no file
handle, so this is the closest the kernel lets us come to "whoever holds the open file".
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opfs.core.names import ElementId
    from opfs.vfs.node import Caller
    from opfs.vfs.writer import DocumentWriter

HIDDEN_S = 10.0
"""How long a document moved to a draft name stays away if nobody writes it again."""


def process_of(thread: int) -> int:
    """The process a thread id belongs to; the thread id itself where the thread is gone. Source: proc(5)."""
    try:
        with open(f"/proc/{thread}/status", "rb", buffering=0) as status:
            for line in status.read(4096).splitlines():
                if line.startswith(b"Tgid:"):
                    return int(line[5:])
    except OSError:
        pass
    return thread


class OpenDocuments:
    """Open writers and readers by element, and the hidden elements."""

    def __init__(self) -> None:
        self._writers: dict[ElementId, list[DocumentWriter]] = {}
        self._readers: Counter[ElementId] = Counter()
        self._hidden: dict[ElementId, float] = {}

    # --- writers -----------------------------------------------------------------------------------------

    def add_writer(self, writer: DocumentWriter) -> None:
        self._writers.setdefault(writer.id, []).append(writer)

    def remove_writer(self, writer: DocumentWriter) -> None:
        if self.is_hidden(writer.id):
            self.hide(writer.id)
        writers = self._writers[writer.id]
        writers.remove(writer)
        if not writers:
            del self._writers[writer.id]

    def writers(self, id: ElementId) -> Sequence[DocumentWriter]:
        return self._writers.get(id, ())

    def writer_of(self, id: ElementId, caller: Caller) -> DocumentWriter | None:
        """The caller's own open file of this element, the newest if there are several."""
        return next((w for w in reversed(self.writers(id)) if w.belongs_to(caller)), None)

    def creator(self, id: ElementId) -> DocumentWriter | None:
        """Whoever is writing the element for the first time, the newest if there are several."""
        return next((w for w in reversed(self.writers(id)) if w.is_creating), None)

    def created_by(self, plugin: str, caller: Caller) -> Iterator[str]:
        """The plugin's elements that the caller is creating."""
        for id in list(self._writers):
            if id.plugin == plugin:
                writer = self.writer_of(id, caller)
                if writer is not None and writer.is_creating:
                    yield id.element

    # --- readers whose pages the kernel keeps ------------------------------------------------------------

    def add_reader(self, id: ElementId) -> None:
        self._readers[id] += 1

    def remove_reader(self, id: ElementId) -> None:
        self._readers[id] -= 1
        if self._readers[id] == 0:
            del self._readers[id]

    def has_readers(self, id: ElementId) -> bool:
        return id in self._readers

    # --- hidden documents --------------------------------------------------------------------------------

    def hide(self, id: ElementId) -> None:
        """The name is free until the document is written again, or comes back by itself.

        It does not come back while somebody is writing it, however long a plugin takes, and gets its full
        time again when that has failed: vim then removes the name, and would remove the document.
        """
        self._hidden[id] = trio.current_time() + HIDDEN_S

    def show(self, id: ElementId) -> None:
        self._hidden.pop(id, None)

    def is_hidden(self, id: ElementId) -> bool:
        deadline = self._hidden.get(id)
        if deadline is None:
            return False
        if trio.current_time() >= deadline and self.creator(id) is None:
            del self._hidden[id]
            return False
        return True
