"""Whole blocks for verification, live or pruned, in the order asked for.

Of a pruned block the archive is read: header, events and the documents these set; what the others are follows from
the blocks before it, as the audit knows. Only where a pass begins in the middle are all documents of a pruned
block gathered. Blocking; one thread.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from opfs.core.audit import EVENTS, HEADER, STATE, BlockBytes
from opfs.errors import OpfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Protocol

    from opfs.archive.packs import Archive
    from opfs.archive.store import KeptStore
    from opfs.core.names import BlockName

    class Reader(Protocol):
        """`opfs.commit.verify.BlockReader`, for live blocks."""

        def read(self, requests: Iterable[tuple[BlockName, int | None]]) -> Iterator[BlockBytes]: ...


class KeptReader:
    """Reads live blocks by `live`, pruned ones out of `archive`; `full` is the sample that asks for every document."""

    def __init__(self, live: Reader, store: KeptStore, archive: Archive, full: int) -> None:
        self._live = live
        self._store = store
        self._archive = archive
        self._full = full

    def read(self, requests: Iterable[tuple[BlockName, int | None]]) -> Iterator[BlockBytes]:
        for is_pruned, group in groupby(requests, lambda request: self._store.is_pruned(request[0])):
            if is_pruned:
                for name, sample in group:
                    yield self._read_whole(name) if sample == self._full else self._read_archived(name)
            else:
                yield from self._read_live(list(group))

    def _read_live(self, requests: Sequence[tuple[BlockName, int | None]]) -> Iterator[BlockBytes]:
        for block in self._live.read(requests):
            # a snapshot that was pruned while it was read is no damage
            yield self._read_archived(block.name) if self._store.is_pruned(block.name) else block

    def _read_archived(self, name: BlockName) -> BlockBytes:
        unreadable: dict[str, str] = {}
        header = _tried(HEADER, lambda: self._archive.read_header(name), unreadable)
        events = _tried(EVENTS, lambda: self._archive.read_events(name), unreadable)
        contents, documents, erased = {}, set(), {}
        for id in self._archive.versions_of(name):
            documents.add(id.path)
            try:
                document = self._archive.read_version(name, id)
                contents[id.path] = document.content_hash
                if document.erasure is not None:
                    erased[id.path] = document.erasure.block
            except OpfsError as error:
                unreadable[STATE + id.path] = error.reason
        return BlockBytes(
            name, header, events, frozenset(documents), contents, unreadable, is_archived=True, erased=erased
        )

    def _read_whole(self, name: BlockName) -> BlockBytes:
        documents = list(self._store.scan_block(name))
        contents = {document.id.path: document.content_hash for document in documents}
        erased = {document.id.path: document.erasure.block for document in documents if document.erasure is not None}
        header, events = self._store.read_header(name), self._store.read_events(name)
        return BlockBytes(name, header, events, frozenset(contents), contents, erased=erased)


def _tried(path: str, read: Callable[[], bytes], unreadable: dict[str, str]) -> bytes:
    try:
        return read()
    except OpfsError as error:
        unreadable[path] = error.reason
        return b""
