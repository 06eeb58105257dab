"""Check a whole chain against its own hashes, without the daemon: the oracle of the tests.

Reads only. Every block is checked on its own and against the one before; findings name the block and what
disagrees. Blocking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.canonical import hash_bytes
from opfs.core.event import Event, decode_events
from opfs.core.header import GENESIS_PREV, BlockHeader
from opfs.core.merkle import tree_root
from opfs.core.statetree import StateTree
from opfs.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.core.names import BlockName, ElementId
    from opfs.ports import SnapshotStore


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement: the block (None: the layer) and what is wrong."""

    block: BlockName | None
    problem: str

    def __str__(self) -> str:
        return f"{self.block or 'layer'}: {self.problem}"


def check_chain(store: SnapshotStore) -> Iterator[Finding]:
    """Every disagreement in the blocks, lowest first, then in the layer; nothing if all is well."""
    previous: BlockHeader | None = None
    tips: dict[ElementId, Event] = {}
    for name in store.list_blocks():
        try:
            header = BlockHeader.decode(store.read_header(name))
            events = decode_events(store.read_events(name))
        except IntegrityError as error:
            yield Finding(name, str(error))
            previous = None
            continue
        yield from (Finding(name, problem) for problem in _check_links(name, header, previous))
        yield from (Finding(name, problem) for problem in _check_events(header, events, tips))
        contents = {document.id: hash_bytes(document.content) for document in store.scan_block(name)}
        yield from (Finding(name, problem) for problem in _check_documents(header, contents, events))
        previous = header
    if previous is not None:
        layer = StateTree.of((document.id, hash_bytes(document.content)) for document in store.scan_layer())
        if layer.root.hex() != previous.state_root:
            yield Finding(None, "its documents are not those of HEAD")


def _check_links(name: BlockName, header: BlockHeader, previous: BlockHeader | None) -> Iterator[str]:
    if header.name != name:
        yield f"its header is that of block {header.name}"
    if header.height == 0 and header.prev != GENESIS_PREV:
        yield "the genesis block names a block before it"
    if previous is None:
        return
    if header.height != previous.height + 1:
        yield f"it follows block {previous.height}: blocks are missing"
    elif header.prev != previous.hash:
        yield f"it does not link to block {previous.height}"
    if header.time < previous.time:
        yield "its time is before the previous block's"
    if header.events_first != previous.events_first + previous.events_count:
        yield f"its first event is {header.events_first}, not {previous.events_first + previous.events_count}"
    if header.origin != previous.origin:
        yield f"its origin is {header.origin}, not {previous.origin}"


def _check_events(header: BlockHeader, events: tuple[Event, ...], tips: dict[ElementId, Event]) -> Iterator[str]:
    if len(events) != header.events_count:
        yield f"it has {len(events)} events, its header says {header.events_count}"
    if tree_root([event.encode() for event in events]).hex() != header.events_root:
        yield "its events are not those its header commits to"
    for seq, event in enumerate(events, header.events_first):
        if event.seq != seq:
            yield f"event {seq} calls itself {event.seq}"
        before = tips.get(event.id)
        if before is not None and event.prev_event != before.hash:
            yield f"event {seq} does not follow event {before.seq}, the last of {event.id}"
        tips[event.id] = event


def _check_documents(header: BlockHeader, contents: dict[ElementId, bytes], events: tuple[Event, ...]) -> Iterator[str]:
    tree = StateTree.of(contents.items())
    if tree.count != header.state_count:
        yield f"it holds {tree.count} documents, its header says {header.state_count}"
    if tree.root.hex() != header.state_root:
        yield "its documents are not those its header commits to"
    for event in events:
        found = contents.get(event.id)
        if (found.hex() if found else None) != event.content:
            yield f"{event.id} is not what event {event.seq} says"
