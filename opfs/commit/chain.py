"""The chain as the sequencer knows it: HEAD, the state tree, the catalog, the blocks, what is pending; the next block.

`extend` and `propose` are pure: they build the bytes of events and of a block, and change nothing. `acknowledge` makes
events pending that are durable in the journal, `adopt` moves to a block that is durable and holds all of them.
`load_chain` reads all of it from the store at start and repairs the layer. Trio thread, except `load_chain`,
which blocks and runs before anything else does.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from opfs.commit.catalog import Catalog, Entry
from opfs.commit.pending import NOBODYS, Extension, Pending
from opfs.commit.tips import Tip, Tips, tip_after
from opfs.core.canonical import ZERO_HASH, hash_bytes
from opfs.core.event import Event, decode_events, encode_events
from opfs.core.header import GENESIS_PREV, BlockHeader
from opfs.core.merkle import tree_root
from opfs.core.statetree import StateTree
from opfs.core.timestamp import format_time, parse_time
from opfs.errors import CommitUnknown, IntegrityError, NoSpace
from opfs.ports import DocumentWrite, FileAttributes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.commit.journaled import Acknowledged
    from opfs.core.names import BlockName, ElementId
    from opfs.core.redaction import Redactor
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

    def told(self, redact: Redactor) -> Outcome:
        """The outcome as it may be recorded for ever: without the secrets that a backend may have repeated."""
        if not redact.knows_any:
            return self
        plan = tuple({key: redact(text) for key, text in step.items()} for step in self.plan)
        return replace(self, message=redact(self.message), plan=plan)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A block that could follow HEAD: all its bytes, and what the chain will be once it is durable.

    It holds what is pending and, after that, `extension`.
    """

    header: BlockHeader
    header_bytes: bytes
    events: tuple[Event, ...]
    events_bytes: bytes
    writes: tuple[DocumentWrite, ...]
    tree: StateTree
    extension: Extension

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
    unrestored: set[ElementId] = field(default_factory=set)
    """Documents of the layer that may not be HEAD's, because there was no room to put them back."""

    pending: Pending = field(default_factory=Pending)

    @property
    def end_seq(self) -> int:
        """The number of events that are in blocks."""
        return 0 if self.header is None else self.header.events_first + self.header.events_count

    @property
    def next_seq(self) -> int:
        """The seq of the next event."""
        return self.end_seq + len(self.pending)

    @property
    def next_height(self) -> int:
        """The height of the next block."""
        return 0 if self.header is None else self.header.height + 1

    def tip(self, id: ElementId) -> Tip | None:
        """The end of the element's own chain, even if the element is deleted."""
        return self.pending.tips.get(id) or self.tips.get(id)

    def last_event(self, id: ElementId) -> str | None:
        """The hash of the element's newest event, even if the element is deleted."""
        tip = self.tip(id)
        return tip.event if tip else None

    def extend(self, outcomes: Sequence[Outcome], now_ns: int) -> Extension:
        """The events that record `outcomes`, of distinct elements."""
        return self._extend(outcomes, self._time_ns(now_ns))

    def _extend(self, outcomes: Sequence[Outcome], time_ns: int) -> Extension:
        time = format_time(time_ns)
        events, tips, attributes = [], [], []
        entries: dict[ElementId, Entry | None] = {}
        contents: dict[ElementId, bytes | None] = {}
        for seq, outcome in enumerate(outcomes, self.next_seq):
            old = self.catalog.get(outcome.id)
            if outcome.changes_document:
                content_hash = None if outcome.content is None else hash_bytes(outcome.content)
                contents[outcome.id] = outcome.content
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
            tip = tip_after(self.tip(outcome.id), event, self.next_height)
            entry = _entry_after(event, tip, old, contents.get(outcome.id), outcome.attributes)
            events.append(event)
            tips.append(tip)
            attributes.append(_whose(entry, old))
            entries[outcome.id] = entry
        return Extension(tuple(events), tuple(tips), tuple(attributes), entries, contents)

    def resume(self, acknowledged: Acknowledged) -> Extension:
        """An event that was pending when opfs stopped, as it was; raises IntegrityError if it is not the next one."""
        event, id = acknowledged.event, acknowledged.event.id
        if event.seq != self.next_seq or event.prev_event != self.last_event(id):
            raise IntegrityError(
                f"event {event.seq} of the journal, of {id}, does not follow the chain, whose next is {self.next_seq}",
                hint="bring the newer pool back; the journal belongs to it",
            )
        content, old = acknowledged.content, self.catalog.get(id)
        known = (old.content_hash.hex() if old else None) if not acknowledged.sets_document else None
        if acknowledged.sets_document and content is not None:
            known = hash_bytes(content).hex()
        if known != event.content:
            raise IntegrityError(f"event {event.seq} of the journal, of {id}, has not the document that it names")
        tip = tip_after(self.tip(id), event, self.next_height)
        entry = _entry_after(event, tip, old, content, acknowledged.attributes)
        contents = {id: content} if acknowledged.sets_document else {}
        return Extension((event,), (tip,), (_whose(entry, old),), {id: entry}, contents)

    def acknowledge(self, extension: Extension) -> None:
        """What is durable in the journal is pending, and committed for whoever reads."""
        # no await from here to the end: readers see none of it or all
        self.pending.take(extension)
        self.catalog.update(self.catalog.head, extension.entries)

    def propose(self, outcomes: Sequence[Outcome], now_ns: int) -> Proposal:
        """Build the block that holds what is pending and records `outcomes`, of distinct elements; the first of all is
        genesis, which holds nothing.
        """
        time_ns, pending = self._time_ns(now_ns), self.pending
        extension = self._extend(outcomes, time_ns)
        events = (*pending.events, *extension.events)
        hashes: dict[ElementId, bytes | None] = {}
        writes = []
        for id, content in {**pending.contents, **extension.contents}.items():
            entry = extension.entries[id] if id in extension.entries else self.catalog.get(id)
            hashes[id] = entry.content_hash if entry else None
            writes.append(DocumentWrite(id, content, entry.attributes if entry else None))
        tree = self.tree.updated(hashes)
        header = BlockHeader(
            origin=self.origin,
            height=self.next_height,
            prev=GENESIS_PREV if self.header is None else self.header.hash,
            time=format_time(time_ns),
            state_root=tree.root.hex(),
            state_count=tree.count,
            events_root=tree_root([event.encode() for event in events]).hex(),
            events_first=self.end_seq,
            events_count=len(events),
        )
        return Proposal(header, header.encode(), events, encode_events(events), tuple(writes), tree, extension)

    def adopt(self, proposal: Proposal) -> None:
        """Make a durable block HEAD; nothing is pending any more."""
        # no await from here to the end: readers see the old block or the new one
        extension = proposal.extension
        self.tips.extend(self.pending.moves)
        self.tips.extend((event.id, tip) for event, tip in zip(extension.events, extension.tips, strict=True))
        self.pending = Pending()
        self.header = proposal.header
        self.tree = proposal.tree
        self.blocks.append(proposal.name)
        self.catalog.update(proposal.name, extension.entries)

    def _time_ns(self, now_ns: int) -> int:
        """Time never goes back: neither that of blocks nor that of events."""
        head_ns = now_ns if self.header is None else parse_time(self.header.time)
        return max(now_ns, head_ns, self.pending.newest_ns)


def _entry_after(
    event: Event, tip: Tip, old: Entry | None, content: bytes | None, attributes: FileAttributes | None
) -> Entry | None:
    """The element in the catalog after `event`, which set its document to `content` unless that is None."""
    if event.content is None:
        return None
    kept = old.attributes if old else DEFAULT_ATTRIBUTES
    return Entry(
        id=event.id,
        content_hash=bytes.fromhex(event.content),
        size=len(content) if content is not None else old.size if old else 0,
        attributes=kept if content is None else attributes or kept,
        height=tip.version.height,
        last_event=tip.version.event,
        author=tip.version.author,
        standing=tip.standing,
    )


def _whose(entry: Entry | None, old: Entry | None) -> FileAttributes:
    known = entry or old
    return known.attributes if known else NOBODYS


def _tips_of(tips: Tips, events: Sequence[Event], height: int) -> list[tuple[ElementId, Tip]]:
    """What becomes of `tips` through the events of one block."""
    newest: dict[ElementId, Tip] = {}
    moves = []
    for event in events:
        newest[event.id] = tip = tip_after(newest.get(event.id) or tips.get(event.id), event, height)
        moves.append((event.id, tip))
    return moves


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
    unrestored: set[ElementId] = set()
    if tree.root.hex() != header.state_root:
        committed, tree = _read_block(store, head, header)
        unrestored = _repair_layer(store, head, documents, committed)
        documents = committed
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
            height=tip.version.height,
            last_event=tip.version.event,
            author=tip.version.author,
            standing=tip.standing,
        )
    catalog.update(head, entries)
    return Chain(header.origin, header, tree, catalog, tips, blocks, unrestored)


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


def _read_block(store: SnapshotStore, head: BlockName, header: BlockHeader) -> tuple[list[StoredDocument], StateTree]:
    documents = list(store.scan_block(head))
    tree = StateTree.of((document.id, hash_bytes(document.content)) for document in documents)
    if tree.root.hex() != header.state_root:
        raise IntegrityError(f"the documents of block {head} are not those its header commits to")
    return documents, tree


def _repair_layer(
    store: SnapshotStore, head: BlockName, layer: Sequence[StoredDocument], committed: Sequence[StoredDocument]
) -> set[ElementId]:
    """Put back what a crash between writing the layer and the snapshot left half done; returns what could not be.

    That is no reason not to serve: nobody reads the layer, and no block is made before it is put back.
    """
    wanted = {document.id: document.content for document in committed}
    found = {document.id: document.content for document in layer}
    differing = {id for id in wanted.keys() | found.keys() if wanted.get(id) != found.get(id)}
    log.warning("the layer differs from %s in %d documents: restoring them", head, len(differing))
    try:
        store.restore_layer(head, differing)
    except (NoSpace, CommitUnknown) as error:
        log.error("the layer is not restored, the next block will have to do it: %s", error)
        return differing
    return set()


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
        tips.extend(_tips_of(tips, unseen, height))
    return tips
