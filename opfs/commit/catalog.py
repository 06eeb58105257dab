"""The committed documents as of HEAD, in memory: what /state lists and what the next header commits to.

Holds no document bytes, so its size is about 500 bytes an element. Changed by the sequencer only, in one
step per block with no await in between, so every reader on the trio thread sees whole blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from opfs.core.canonical import hash_bytes
from opfs.core.standing import IN_FORCE, UNSETTLED, Standing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from opfs.core.names import BlockName, ElementId
    from opfs.ports import FileAttributes


@dataclass(frozen=True, slots=True)
class Entry:
    """One committed document: `content_hash` is BLAKE3, 32 bytes; `size` in bytes.

    `height` is the block of its last change, `last_event` the hash (hex) of that event, `author` the user name of
    its actor. Events that leave the document as it is change `standing` only.
    """

    id: ElementId
    content_hash: bytes
    size: int
    attributes: FileAttributes
    height: int
    last_event: str
    author: str
    standing: Standing = IN_FORCE

    def holds(self, content: bytes | None) -> bool:
        """Whether `content` is the committed content, byte for byte."""
        return content is not None and len(content) == self.size and hash_bytes(content) == self.content_hash

    def with_attributes(self, attributes: FileAttributes) -> Entry:
        return replace(self, attributes=attributes)


@dataclass(slots=True)
class Catalog:
    """Entries by plugin and element, and the name of HEAD."""

    head: BlockName
    unsettled: dict[ElementId, Standing] = field(default_factory=dict)
    """The elements that wait, failed or have drifted; a live view, do not await while iterating."""
    _plugins: dict[str, dict[str, Entry]] = field(default_factory=dict)

    def get(self, id: ElementId) -> Entry | None:
        return self._plugins.get(id.plugin, {}).get(id.element)

    def elements(self, plugin: str) -> Collection[str]:
        """The names of the plugin's elements; a live view, do not await while iterating."""
        return self._plugins.get(plugin, {}).keys()

    def plugins(self) -> Collection[str]:
        """Plugins that have at least one element."""
        return [plugin for plugin, entries in self._plugins.items() if entries]

    def where(self, entry: Entry) -> str:
        """In which block the element was last changed, in words."""
        return f"block {entry.height}{', still to be made' if entry.height > self.head.height else ''}"

    def count(self) -> int:
        return sum(len(entries) for entries in self._plugins.values())

    def update(self, head: BlockName, changed: Mapping[ElementId, Entry | None]) -> None:
        """Move to a new head; None removes an element."""
        # no await from here to the end: readers see the old block or the new one
        for id, entry in changed.items():
            if entry is not None and entry.standing.kind in UNSETTLED:
                self.unsettled[id] = entry.standing
            else:
                self.unsettled.pop(id, None)
            if entry is None:
                self._plugins.get(id.plugin, {}).pop(id.element, None)
            else:
                self._plugins.setdefault(id.plugin, {})[id.element] = entry
        self.head = head
