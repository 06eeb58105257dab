"""The committed documents, those that are pending included: their bytes, checked against their hash, and what they say.

Reads and never writes. Trio thread; files are read in worker threads, what was just written or read is in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from opfs.commit.content import ContentCache
from opfs.core.canonical import hash_bytes
from opfs.core.document import parse_document
from opfs.core.meta import Declared, split_meta
from opfs.core.names import ElementId
from opfs.errors import IntegrityError, NotFound

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from opfs.commit.catalog import Entry
    from opfs.commit.chain import Chain
    from opfs.core.names import BlockName
    from opfs.ports import SnapshotStore


class CommittedDocuments:
    """What /state shows and what the host is compared with."""

    def __init__(self, store: SnapshotStore, chain: Chain) -> None:
        self._store = store
        self._chain = chain
        self._catalog = chain.catalog
        self._contents = ContentCache()

    def keep(self, content: bytes) -> None:
        """These bytes were just committed and will probably be read."""
        self._contents.put(hash_bytes(content), content)

    async def read(self, id: ElementId) -> bytes:
        """The bytes of a document; raises NotFound, or IntegrityError if they are not those that were committed."""
        entry = self._catalog.get(id)
        if entry is None:
            raise NotFound(f"{id} does not exist")
        content = self._chain.pending.contents.get(id) or self._contents.get(entry.content_hash)
        if content is None:
            content = await trio.to_thread.run_sync(self._load, self._catalog.head, entry)
            self._contents.put(entry.content_hash, content)
        return content

    async def declared(self, id: ElementId) -> Declared | None:
        """The document in its two parts; None where there is none."""
        if self._catalog.get(id) is None:
            return None
        content = await self.read(id)
        return split_meta(parse_document(content), content)

    async def declared_by(self, plugin: str, elements: Collection[str] | None = None) -> Mapping[str, Declared]:
        """The documents of a plugin, all or those of `elements` that have one, as of one moment."""
        head = self._catalog.head
        wanted = self._catalog.elements(plugin) if elements is None else elements
        entries = [entry for name in wanted if (entry := self._catalog.get(ElementId(plugin, name))) is not None]
        pending = {entry.id: content for entry in entries if (content := self._chain.pending.contents.get(entry.id))}
        return await trio.to_thread.run_sync(self._load_all, head, entries, pending)

    def _load(self, head: BlockName, entry: Entry) -> bytes:
        content = self._store.read_document(head, entry.id)
        if not entry.holds(content):
            raise IntegrityError(f"the stored bytes of {entry.id} are not those of block {entry.height}")
        return content

    def _load_all(
        self, head: BlockName, entries: Sequence[Entry], pending: Mapping[ElementId, bytes]
    ) -> dict[str, Declared]:
        found = {}
        for entry in entries:
            content = pending.get(entry.id) or self._load(head, entry)
            found[entry.id.element] = split_meta(parse_document(content), content)
        return found
