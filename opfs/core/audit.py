"""What each block of a chain must be, given all blocks before it: the rules of format.md, checked; pure.

`ChainAudit.check` takes the bytes of one block after the other, lowest first, and names what disagrees: the block,
the path in it, and which of its hashes does not fit. One change gives one finding, or as few as it can: what
follows from a bad block is not held against the next one. Not thread-safe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from opfs.core.erasure import erased_content
from opfs.core.event import Event, decode_events
from opfs.core.header import GENESIS_PREV, BlockHeader
from opfs.core.merkle import tree_root
from opfs.core.names import DOCUMENT_SUFFIX, BlockName, ElementId
from opfs.core.statetree import StateTree
from opfs.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

HEADER = "block.json"
EVENTS = "events.jsonl"
STATE = "state/"

SHORT_HASH_DIGITS = 12
_REBUILD_ABOVE_SHARE = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement.

    `block` is None for what is in no block; then `path` is below the pool (`@state/…`, `@log/…`, `@index/…`),
    else below the block. `disagrees` is one of stored bytes, name, tree, header, event, block, layer, log,
    signature, index.
    """

    block: BlockName | None
    path: str
    disagrees: str
    problem: str

    def __str__(self) -> str:
        place = "/".join(filter(None, (str(self.block or ""), self.path)))
        return f"{place}: {self.disagrees}: {self.problem}"


@dataclass(frozen=True, slots=True)
class BlockBytes:
    """What is on disk of one block; documents by their path below `state/`, which is also their name in the tree.

    `contents` holds the hashes of the documents that were read: all of `documents`, unless this is a sample.
    `unreadable` says why what should be read could not be: documents, the header or the events (then empty).
    `foreign` lists everything in the block that no block has. Of a block that `is_archived` there are only the
    documents that its own events set: the others are those of the blocks before it. `erased` are documents of which
    only the hash is left, and the block that is said to have erased them.
    """

    name: BlockName
    header: bytes
    events: bytes
    documents: frozenset[str]
    contents: Mapping[str, bytes]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    is_archived: bool = False
    erased: Mapping[str, BlockName] = field(default_factory=dict)

    @property
    def is_sample(self) -> bool:
        return len(self.contents) + sum(path.startswith(STATE) for path in self.unreadable) < len(self.documents)


@dataclass(slots=True)
class ChainAudit:
    """The state of one pass over a chain.

    `true_header` gives another copy of a block's header by its height, from the log: with it, what follows a
    damaged header can be checked all the same. It is used only where it fits the block's name.
    """

    true_header: Callable[[int], bytes | None] = field(default=lambda _: None)
    documents: dict[str, bytes] | None = None
    """The content hashes after the last block, None where they cannot be known."""
    previous: BlockHeader | None = None
    previous_name: BlockName | None = None
    tips: dict[ElementId, str] = field(default_factory=dict)
    """The hash of each element's last event; an element that is not in it may have any."""
    tree: StateTree = field(default_factory=StateTree)
    is_complete: bool = True
    """Whether `tips` holds every element that ever was."""
    missing: dict[tuple[BlockName, bytes], list[tuple[BlockName, str]]] = field(default_factory=dict)
    """What is said to have been erased: by the block that did it and its hash, where it was. See `unproved`."""
    erasures: set[tuple[BlockName, bytes]] = field(default_factory=set)
    """The blocks whose events erase something, and its hash."""

    def check(self, block: BlockBytes) -> Iterator[Finding]:
        """Every disagreement of the block; it is then the one that the next follows."""
        name = block.name
        yield from self._check_height(name)
        header, problem = self._read_header(block)
        if problem:
            yield Finding(name, HEADER, "header", problem)
        if header is not None:
            yield from (Finding(name, HEADER, "header", text) for text in self._check_links(header))
        events, problem = _read_events(block, header)
        if problem:
            yield Finding(name, EVENTS, "event", problem)
            self.tips, self.is_complete = {}, False
        else:
            yield from (Finding(name, EVENTS, "event", text) for text in self._check_events(events, header))
        yield from (Finding(name, path, "name", "no block has such a file") for path in block.foreign)
        yield from self._check_documents(block, header, None if problem else events)
        for path, eraser in block.erased.items():
            self.missing.setdefault((eraser, block.contents[path]), []).append((name, STATE + path))
        self.note_erasures(name, events)
        self.previous, self.previous_name = header, name

    def note_erasures(self, name: BlockName, events: Iterable[Event]) -> None:
        """Take in what the events of a block erase."""
        self.erasures.update((name, content) for event in events if (content := erased_content(event)) is not None)

    def unproved(self) -> Iterator[tuple[BlockName, list[tuple[BlockName, str]]]]:
        """By the block that should have erased it, what is missing though no event of that block erases it."""
        for (eraser, content), places in self.missing.items():
            if (eraser, content) not in self.erasures:
                yield eraser, places

    def skip(self, name: BlockName, header: bytes, events: bytes) -> None:
        """Take in a block that an earlier pass has checked; its documents are learned from the next one."""
        decoded = BlockHeader.decode(header)
        self.previous, self.previous_name = decoded if decoded.name == name else None, name
        decoded_events = decode_events(events)
        self.tips.update((event.id, event.hash) for event in decoded_events)
        self.note_erasures(name, decoded_events)
        self.documents = None

    def skip_unreadable(self, name: BlockName) -> None:
        """Pass over a block of which nothing can be learned."""
        self.previous, self.previous_name, self.documents = None, name, None
        self.tips, self.is_complete = {}, False

    # --- the block in its row --------------------------------------------------------------------------

    def _check_height(self, name: BlockName) -> Iterator[Finding]:
        due = 0 if self.previous_name is None else self.previous_name.height + 1
        if name.height == due:
            return
        self.tips, self.is_complete = {}, False
        if name.height < due:
            yield Finding(name, "", "block", f"it is a second block of height {name.height}")
            return
        self.previous = self.previous_name = self.documents = None
        missing = f"block {due} is" if due == name.height - 1 else f"blocks {due} to {name.height - 1} are"
        yield Finding(name, "", "block", f"{missing} missing before it")

    def _read_header(self, block: BlockBytes) -> tuple[BlockHeader | None, str]:
        """The header that the block's name commits to, wherever it was found, and what is wrong with the stored one."""
        name = block.name
        if HEADER in block.unreadable:
            problem = block.unreadable[HEADER]
        else:
            try:
                header = BlockHeader.decode(block.header)
            except IntegrityError as error:
                problem = str(error)
            else:
                if header.name == name:
                    return header, ""
                if header.height == name.height:
                    problem = f"its hash begins with {header.hash[:SHORT_HASH_DIGITS]}, the name says {name.short_hash}"
                else:
                    problem = f"it is the header of block {header.name}"
        return self._copy_of_header(name), problem

    def _copy_of_header(self, name: BlockName) -> BlockHeader | None:
        copy = self.true_header(name.height)
        try:
            header = BlockHeader.decode(copy) if copy else None
        except IntegrityError:
            return None
        return header if header is not None and header.name == name else None

    def _check_links(self, header: BlockHeader) -> Iterator[str]:
        if header.height == 0 and header.prev != GENESIS_PREV:
            yield "the genesis block names a block before it"
        name, previous = self.previous_name, self.previous
        if name is None or header.height != name.height + 1:
            return
        if header.prev[:SHORT_HASH_DIGITS] != name.short_hash or (previous and header.prev != previous.hash):
            yield f"it does not link to block {name}"
        if previous is None:
            return
        if header.time < previous.time:
            yield "its time is before the previous block's"
        due = previous.events_first + previous.events_count
        if header.events_first != due:
            yield f"its first event is {header.events_first}, not {due}"
        if header.origin != previous.origin:
            yield f"its origin is {header.origin}, not {previous.origin}"

    # --- the events ------------------------------------------------------------------------------------

    def _check_events(self, events: tuple[Event, ...], header: BlockHeader | None) -> Iterator[str]:
        for position, event in enumerate(events):
            if header is not None and event.seq != header.events_first + position:
                yield f"event {header.events_first + position} calls itself {event.seq}"
            before = self.tips.get(event.id)
            known = before is not None or self.is_complete
            if known and event.prev_event != before:
                yield f"event {event.seq} does not follow the last event of {event.id}"
            self.tips[event.id] = event.hash

    # --- the documents ---------------------------------------------------------------------------------

    def _check_documents(
        self, block: BlockBytes, header: BlockHeader | None, events: tuple[Event, ...] | None
    ) -> Iterator[Finding]:
        """Three things say what the documents are: the files, the events and the header's root. Two that agree win."""
        # before genesis there was nothing
        before = {} if self.documents is None and block.name.height == 0 else self.documents
        said = None if before is None or events is None else _after(before, events)
        if said is not None:
            tree = self._tree_of(said, {event.id.path for event in events or ()})
            if header is None or tree.root.hex() == header.state_root:
                yield from _compare_changed(block, events or ()) if block.is_archived else _compare(block, said)
                yield from self._move(block.name, said, tree, header)
                return
        is_whole = not block.is_archived and not block.is_sample and len(block.contents) == len(block.documents)
        if header is not None and is_whole:
            tree = self._tree_of(block.contents, block.contents.keys() | (self.documents or {}).keys())
            if tree.root.hex() == header.state_root:
                yield from (Finding(block.name, EVENTS, "event", text) for text in _untold(block, said, events or ()))
                yield from self._move(block.name, dict(block.contents), tree, header)
                return
        yield from self._explain(block, header, events, said)
        self.documents = None

    def _explain(
        self,
        block: BlockBytes,
        header: BlockHeader | None,
        events: tuple[Event, ...] | None,
        said: Mapping[str, bytes] | None,
    ) -> Iterator[Finding]:
        """No two agree, or there is nothing to compare with: say as much as is known."""
        if said is not None and not block.is_archived:
            yield from _compare(block, said)
        elif events is not None:
            yield from _compare_changed(block, events)
        elif self.documents is not None:
            changes = list(_compare_untold(block, self.documents))
            yield from changes
            if changes:
                return
        if header is None:
            problem = "without the header it cannot be known whether the documents are right"
        elif block.is_sample:
            problem = "a sample does not show whether the documents are right: verify this block in full"
        else:
            problem = f"neither the documents nor the events lead to the header's root {header.state_root[:16]}…"
        yield Finding(block.name, STATE.rstrip("/"), "tree", problem)

    def _tree_of(self, contents: Mapping[str, bytes], suspects: Iterable[str]) -> StateTree:
        """The tree of `contents`, which differ from the documents before in no other paths than `suspects`."""
        before = self.documents
        if before is None:
            return StateTree.of(_by_id(contents.items()))
        changes = {path: contents.get(path) for path in suspects if contents.get(path) != before.get(path)}
        if len(changes) * _REBUILD_ABOVE_SHARE > len(before):
            return StateTree.of(_by_id(contents.items()))
        return self.tree.updated(dict(_by_id(changes.items())))

    def _move(
        self, name: BlockName, contents: dict[str, bytes], tree: StateTree, header: BlockHeader | None
    ) -> Iterator[Finding]:
        self.documents, self.tree = contents, tree
        if header is not None and header.state_count != tree.count:
            problem = f"it says {header.state_count} documents, and its root is that of {tree.count}"
            yield Finding(name, HEADER, "header", problem)


_Hash = TypeVar("_Hash", bytes, "bytes | None")


def _by_id(contents: Iterable[tuple[str, _Hash]]) -> Iterator[tuple[ElementId, _Hash]]:
    return ((_id_of(path), content) for path, content in contents)


def _id_of(path: str) -> ElementId:
    plugin, _, file_name = path.partition("/")
    return ElementId(plugin, file_name.removesuffix(DOCUMENT_SUFFIX))


def _read_events(block: BlockBytes, header: BlockHeader | None) -> tuple[tuple[Event, ...], str]:
    """The events, and what is wrong with them as a whole."""
    if EVENTS in block.unreadable:
        return (), block.unreadable[EVENTS]
    try:
        events = decode_events(block.events)
    except IntegrityError as error:
        return (), str(error)
    if header is None:
        return events, ""
    if len(events) != header.events_count:
        return (), f"there are {len(events)} events, the header says {header.events_count}"
    if tree_root([event.encode() for event in events]).hex() != header.events_root:
        return (), "the events are not those its header commits to"
    return events, ""


def _after(documents: Mapping[str, bytes], events: Iterable[Event]) -> dict[str, bytes]:
    """The documents after the events."""
    said = dict(documents)
    for event in events:
        if event.content is None:
            said.pop(event.id.path, None)
        else:
            said[event.id.path] = bytes.fromhex(event.content)
    return said


def _compare(block: BlockBytes, said: Mapping[str, bytes]) -> Iterator[Finding]:
    """Where the files are not what they have to be."""
    if block.contents == said and not block.unreadable:
        return
    missing = sorted(said.keys() - block.documents)
    moved = {said[path]: path for path in missing}
    for path in missing:
        yield Finding(block.name, STATE + path, "name", "this document is missing")
    for path in sorted(block.documents - said.keys()):
        former = moved.get(block.contents.get(path, b""))
        problem = f"this is {STATE}{former} under another name" if former else "the block has no such document"
        yield Finding(block.name, STATE + path, "name", problem)
    for path in sorted(block.documents & said.keys()):
        reason = block.unreadable.get(STATE + path)
        found = block.contents.get(path)
        if reason is None and found is not None and found != said[path]:
            reason = f"the hash of its bytes begins with {_short(found)}, it has to be {_short(said[path])}"
        if reason is not None:
            yield Finding(block.name, STATE + path, "stored bytes", reason)


def _compare_changed(block: BlockBytes, events: Iterable[Event]) -> Iterator[Finding]:
    """The same for the documents that the block changed, where the others are not known."""
    contents = _after({}, events)
    for path, content in contents.items():
        if path not in block.documents:
            yield Finding(block.name, STATE + path, "name", "this document is missing")
        elif (found := block.contents.get(path)) is not None and found != content:
            problem = f"the hash of its bytes begins with {_short(found)}, its event says {_short(content)}"
            yield Finding(block.name, STATE + path, "stored bytes", problem)
    for path, reason in block.unreadable.items():
        if path.startswith(STATE):
            yield Finding(block.name, path, "stored bytes", reason)


def _compare_untold(block: BlockBytes, before: Mapping[str, bytes]) -> Iterator[Finding]:
    """Where the files are not what they were, and the events that should tell of it are no good."""
    for finding in _compare(block, before):
        problem = f"{finding.problem} unless this block changed it, and no event that can be believed says so"
        yield Finding(finding.block, finding.path, finding.disagrees, problem)


def _untold(block: BlockBytes, said: Mapping[str, bytes] | None, events: Iterable[Event]) -> Iterator[str]:
    """In what the events do not tell of the documents, which are right."""
    told = {event.id.path: event.content for event in events}
    for path, content in told.items():
        found = block.contents.get(path)
        if (found.hex() if found else None) != content:
            yield f"its last event of {_id_of(path)} says {_short(content)}, the document is {_short(found)}"
    if said is not None:
        for path in sorted(said.keys() | block.contents.keys()):
            if path not in told and said.get(path) != block.contents.get(path):
                yield f"{_id_of(path)} changed without an event"


def _short(content: bytes | str | None) -> str:
    if content is None:
        return "none"
    return (content.hex() if isinstance(content, bytes) else content)[:SHORT_HASH_DIGITS]
