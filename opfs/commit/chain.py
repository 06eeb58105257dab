"""The chain as the sequencer knows it: HEAD, the state tree, the catalog, the blocks; and the next block.

`propose` is pure: it builds a block's bytes and changes nothing. `adopt` moves to a block that is durable.
`load_chain` reads all of it from the store at start and repairs the layer. Trio thread, except `load_chain`,
which blocks and runs before anything else does.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opfs.commit.catalog import Catalog, Entry
from opfs.commit.tips import Tip, Tips
from opfs.core.canonical import ZERO_HASH, hash_bytes
from opfs.core.event import Event, decode_events, encode_events
from opfs.core.header import GENESIS_PREV, BlockHeader
from opfs.core.merkle import tree_root
from opfs.core.statetree import StateTree
from opfs.core.timestamp import format_time, parse_time
from opfs.errors import IntegrityError
from opfs.ports import DocumentWrite, FileAttributes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.core.names import BlockName, ElementId
    from opfs.ports import SnapshotStore, StoredDocument

log = logging.getLogger(__name__)

DEFAULT_ATTRIBUTES = FileAttributes(mode=0o644, uid=0, gid=0, mtime_ns=0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one change: the event to record and, unless it failed, the new content.

    `changes_document` is False for events that leave the document as it is (`apply`, `apply-failed`).
    """

    id: ElementId
    op: str
    content: bytes | None
    attributes: FileAttributes | None
    actor: Mapping[str, Any]
    message: str = ""
    plan: tuple[Mapping[str, Any], ...] = ()
    plugin_hash: str = ""
    changes_document: bool = True


@dataclass(frozen=True, slots=True)
class Proposal:
    """A block that could follow HEAD: all its bytes, and what the chain will be once it is durable."""

    header: BlockHeader
    header_bytes: bytes
    events: tuple[Event, ...]
    events_bytes: bytes
    writes: tuple[DocumentWrite, ...]
    tree: StateTree
    entries: Mapping[ElementId, Entry | None]

    @property
    def name(self) -> BlockName:
        return self.header.name


@dataclass(slots=True)
class Chain:
    """Everything the next block follows from; `header` is HEAD's, None before genesis."""

    origin: str
    header: BlockHeader | None
    tree: StateTree
    catalog: Catalog
    tips: Tips
    blocks: list[BlockName] = field(default_factory=list)

    @property
    def next_seq(self) -> int:
        """The seq of the next event."""
        return 0 if self.header is None else self.header.events_first + self.header.events_count

    def last_event(self, id: ElementId) -> str | None:
        """The hash of the element's newest event, even if the element is deleted."""
        tip = self.tips.get(id)
        return tip.event if tip else None

    def propose(self, outcomes: Sequence[Outcome], now_ns: int) -> Proposal:
        """Build the block that records `outcomes`, of distinct elements; with none, it is genesis."""
        time_ns = now_ns if self.header is None else max(now_ns, parse_time(self.header.time))
        time = format_time(time_ns)
        height = 0 if self.header is None else self.header.height + 1
        events, writes = [], []
        hashes: dict[ElementId, bytes | None] = {}
        entries: dict[ElementId, Entry | None] = {}
        for seq, outcome in enumerate(outcomes, self.next_seq):
            old = self.catalog.get(outcome.id)
            if outcome.changes_document:
                content_hash = None if outcome.content is None else hash_bytes(outcome.content)
            else:
                content_hash = old.content_hash if old else None
            event = Event(
                seq=seq,
                id=outcome.id,
                op=outcome.op,
                content=content_hash.hex() if content_hash else None,
                prev_event=self.last_event(outcome.id),
                time=time,
                actor=outcome.actor,
                message=outcome.message,
                plan=outcome.plan,
                plugin_hash=outcome.plugin_hash,
            )
            events.append(event)
            if content_hash is None:
                entries[outcome.id] = None
            else:
                attributes = old.attributes if old else DEFAULT_ATTRIBUTES
                size = old.size if old else 0
                if outcome.changes_document and outcome.content is not None:
                    attributes = outcome.attributes or attributes
                    size = len(outcome.content)
                entries[outcome.id] = Entry(
                    id=outcome.id,
                    content_hash=content_hash,
                    size=size,
                    attributes=attributes,
                    height=height,
                    last_event=event.hash,
                    author=str(outcome.actor.get("user", "")),
                )
            if outcome.changes_document:
                hashes[outcome.id] = content_hash
                entry = entries[outcome.id]
                writes.append(DocumentWrite(outcome.id, outcome.content, entry.attributes if entry else None))
        tree = self.tree.updated(hashes)
        header = BlockHeader(
            origin=self.origin,
            height=height,
            prev=GENESIS_PREV if self.header is None else self.header.hash,
            time=time,
            state_root=tree.root.hex(),
            state_count=tree.count,
            events_root=tree_root([event.encode() for event in events]).hex(),
            events_first=self.next_seq,
            events_count=len(events),
        )
        events_bytes = encode_events(tuple(events))
        return Proposal(header, header.encode(), tuple(events), events_bytes, tuple(writes), tree, entries)

    def adopt(self, proposal: Proposal) -> None:
        """Make a durable block HEAD."""
        # no await from here to the end: readers see the old block or the new one
        self.header = proposal.header
        self.tree = proposal.tree
        self.tips.extend(_tips_of(proposal.events, proposal.header.height))
        self.blocks.append(proposal.name)
        self.catalog.update(proposal.name, proposal.entries)


def _tips_of(events: Sequence[Event], height: int) -> list[tuple[ElementId, Tip]]:
    return [(event.id, Tip(event.seq, event.hash, height, str(event.actor.get("user", "")))) for event in events]


def load_chain(store: SnapshotStore, tips: Tips, origin: str, now_ns: int) -> Chain:
    """Read HEAD, make the layer agree with it, and catch up on the tips; makes genesis in an empty pool.

    A block is complete or absent, so a HEAD that does not verify was changed by somebody: IntegrityError.
    """
    blocks = list(store.list_blocks())
    if not blocks:
        return _make_genesis(store, tips, origin, now_ns)
    head = blocks[-1]
    _check_sequence(blocks)
    header = BlockHeader.decode(store.read_header(head))
    if header.name != head:
        raise IntegrityError(f"block {head} holds the header of block {header.name}", hint="restore it from a replica")
    tips = _catch_up(store, tips, blocks, header)
    documents, tree = _read_layer(store)
    if tree.root.hex() != header.state_root:
        _repair_layer(store, head, header)
        documents, tree = _read_layer(store)
        if tree.root.hex() != header.state_root:
            raise IntegrityError(f"the layer does not become what block {head} says, after a repair")
    catalog = Catalog(head)
    entries = {}
    for document in documents:
        tip = tips.get(document.id)
        if tip is None:
            raise IntegrityError(f"{document.id} is in block {head}, but no event of it is in the chain")
        entries[document.id] = Entry(
            id=document.id,
            content_hash=hash_bytes(document.content),
            size=len(document.content),
            attributes=document.attributes,
            height=tip.height,
            last_event=tip.event,
            author=tip.author,
        )
    catalog.update(head, entries)
    return Chain(header.origin, header, tree, catalog, tips, blocks)


def _make_genesis(store: SnapshotStore, tips: Tips, origin: str, now_ns: int) -> Chain:
    tips.clear()
    chain = Chain(origin, None, StateTree(), Catalog(head=_NOWHERE.name), tips)
    leftovers = [document.id for document in store.scan_layer()]
    if leftovers:
        # Only a crash between writing the layer and the first snapshot leaves documents without a chain.
        store.restore_layer(None, leftovers)
    genesis = chain.propose((), now_ns)
    store.write_block(genesis.name, genesis.writes, genesis.header_bytes, genesis.events_bytes)
    chain.adopt(genesis)
    return chain


_NOWHERE = BlockHeader("", 0, GENESIS_PREV, format_time(0), ZERO_HASH.hex(), 0, tree_root(()).hex(), 0, 0)


def _check_sequence(blocks: Sequence[BlockName]) -> None:
    """Two blocks of one height are a fork: never made by opfs, so never resolved by it."""
    for earlier, later in itertools.pairwise(blocks):
        if earlier.height == later.height:
            raise IntegrityError(f"blocks {earlier} and {later} have the same height", hint="keep the true one only")


def _read_layer(store: SnapshotStore) -> tuple[list[StoredDocument], StateTree]:
    documents = list(store.scan_layer())
    return documents, StateTree.of((document.id, hash_bytes(document.content)) for document in documents)


def _repair_layer(store: SnapshotStore, head: BlockName, header: BlockHeader) -> None:
    """Put back what a crash between writing the layer and the snapshot left half done."""
    committed = {document.id: hash_bytes(document.content) for document in store.scan_block(head)}
    if StateTree.of(committed.items()).root.hex() != header.state_root:
        raise IntegrityError(f"the documents of block {head} are not those its header commits to")
    found = {document.id: hash_bytes(document.content) for document in store.scan_layer()}
    differing = {id for id in committed.keys() | found.keys() if committed.get(id) != found.get(id)}
    log.warning("the layer differs from %s in %d documents: restoring them", head, len(differing))
    store.restore_layer(head, differing)


def _catch_up(store: SnapshotStore, tips: Tips, blocks: Sequence[BlockName], head: BlockHeader) -> Tips:
    """Read the events that the tips have not seen out of the blocks, newest block first."""
    end_seq = head.events_first + head.events_count
    if tips.next_seq > end_seq:
        tips.clear()  # they belong to a longer chain than this one, e.g. after a restore from backup
    missing = []
    for name in reversed(blocks):
        if end_seq <= tips.next_seq:
            break
        events = decode_events(store.read_events(name))
        missing.append((name.height, events))
        end_seq -= len(events)
    for height, events in reversed(missing):
        unseen = [event for event in events if event.seq >= tips.next_seq]
        tips.extend(_tips_of(unseen, height))
    return tips
