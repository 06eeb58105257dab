"""What every file of every block must be, known from HEAD alone: reads below /chain are checked against it.

HEAD's header and state tree are in memory. Each header holds the full hash of the one before, so headers are
believed from HEAD downwards. The state tree of another block is the one of a neighbour with the changes between
them done or undone, or is built from the block's own documents, whichever is nearer; it is believed when its root
is the one in the block's header. Trees share what they have in common, so a block costs a few hashes and 2 KB.
A tree holds the content hash of every document: checking one is then a look-up and a hash.

No file of a block is believed before: neither the documents nor the events that a tree is made from.

Concurrency: `remember` on one thread, everything else on any threads; `is_known` never waits for a disk.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING

from opfs.core.audit import EVENTS, HEADER, SHORT_HASH_DIGITS, STATE
from opfs.core.canonical import hash_bytes, hash_hex
from opfs.core.event import decode_events
from opfs.core.header import BlockHeader
from opfs.core.merkle import tree_root
from opfs.core.names import DOCUMENT_SUFFIX, BlockName, ElementId
from opfs.core.statetree import StateTree
from opfs.errors import Erased, IntegrityError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opfs.ports import FileAttributes, SnapshotStore

MAX_TREES_COST = 250_000
"""Nodes of trees kept, each counted where it first appeared: some 60 MB at the worst."""

MAX_HEADERS = 4096
STEP_COST = 8
"""Files and hashes that going from a block to the next takes, beside two for each event."""

_NODES_PER_CHANGE = 20


class VerifiedBlocks:
    """Checks files of the blocks of `store`; `blocks` gives their names, lowest first.

    `true_header` may give another copy of a header by its height, from the log: where the stored one is
    damaged, what lies below it can still be believed.
    """

    def __init__(
        self,
        store: SnapshotStore,
        blocks: Callable[[], Sequence[BlockName]],
        head: BlockHeader,
        tree: StateTree,
        *,
        true_header: Callable[[int], bytes | None] = lambda _: None,
    ) -> None:
        self._store = store
        self._blocks = blocks
        self._true_header = true_header
        self._hashes: dict[int, str] = {}
        """Full hashes by height, from the lowest one known to HEAD's."""
        self._lowest = head.height
        self._headers: OrderedDict[int, BlockHeader] = OrderedDict()
        self._trees: OrderedDict[int, tuple[StateTree, int]] = OrderedDict()
        self._trees_cost = 0
        self._caches = threading.Lock()
        self._learning = threading.Lock()
        self.remember(head, tree)

    def remember(self, head: BlockHeader, tree: StateTree) -> None:
        """Take in a new HEAD that this process has made."""
        self._hashes[head.height] = head.hash
        self._keep_header(head)
        self._keep_tree(head.height, tree, _NODES_PER_CHANGE * head.events_count)

    # --- checking --------------------------------------------------------------------------------------

    def is_known(self, block: BlockName, path: str) -> bool:
        """Whether `check` of this file answers from memory."""
        return block.height in (self._trees if path.startswith(STATE) else self._headers)

    def check(self, block: BlockName, path: str, content: bytes) -> None:
        """Raise IntegrityError unless the file `path` of the block consists of these bytes."""
        if path == HEADER:
            if hash_hex(content) != self._hash(block):
                raise IntegrityError(f"{path} of block {block} is not what the chain commits to", hint=_HINT)
        elif path == EVENTS:
            if tree_root(content.split(b"\n")[:-1]).hex() != self._header(block).events_root or (
                content and not content.endswith(b"\n")
            ):
                raise IntegrityError(f"{path} of block {block} is not what its header commits to", hint=_HINT)
        else:
            id = _document(path)
            said = self._tree(block).content_hash(id) if id else None
            if said is None:
                raise IntegrityError(f"block {block} commits to no file {path}", hint=_HINT)
            if hash_bytes(content) != said:
                raise IntegrityError(f"{path} of block {block} is not what its header commits to", hint=_HINT)

    def check_absent(self, block: BlockName, path: str) -> None:
        """Raise IntegrityError if the block commits to a file `path`."""
        id = _document(path)
        if path in (HEADER, EVENTS) or (id is not None and self._tree(block).content_hash(id) is not None):
            raise IntegrityError(f"{path} of block {block} is missing", hint=_HINT)

    # --- headers, from HEAD down -----------------------------------------------------------------------

    def _hash(self, block: BlockName) -> str:
        if self._lowest > block.height:
            with self._learning:
                self._go_down(block.height)
        found = self._hashes.get(block.height)
        if found is None or BlockName(block.height, found[: len(block.short_hash)]) != block:
            raise IntegrityError(f"the chain has another block of height {block.height} than {block}", hint=_HINT)
        return found

    def _go_down(self, height: int) -> None:
        """Learn the hashes of all blocks down to this one; raises IntegrityError where that ends before."""
        while self._lowest > height:
            self._hashes[self._lowest - 1] = self._load_header(self._lowest).prev
            self._lowest -= 1

    def _header(self, block: BlockName) -> BlockHeader:
        self._hash(block)
        kept = self._headers.get(block.height)
        if kept is not None:
            return kept
        with self._learning:
            return self._load_header(block.height)

    def _load_header(self, height: int) -> BlockHeader:
        """The header of a height whose hash is known."""
        kept = self._headers.get(height)
        if kept is not None:
            return kept
        expected = self._hashes[height]
        stored: bytes | None = None
        with suppress(NotFound, IntegrityError):
            stored = self._store.read_header(BlockName(height, expected[:SHORT_HASH_DIGITS]))
        if stored is None or hash_hex(stored) != expected:
            stored = self._true_header(height)
        if stored is None or hash_hex(stored) != expected:
            raise IntegrityError(f"the header of block {height} is not what the chain commits to", hint=_HINT)
        header = BlockHeader.decode(stored)
        self._keep_header(header)
        return header

    def _keep_header(self, header: BlockHeader) -> None:
        with self._caches:
            self._headers[header.height] = header
            while len(self._headers) > MAX_HEADERS:
                self._headers.popitem(last=False)

    # --- state trees -----------------------------------------------------------------------------------

    def _tree(self, block: BlockName) -> StateTree:
        found = self._kept_tree(block.height)
        if found is not None:
            self._hash(block)  # the height alone is no block
            return found
        header = self._header(block)
        with self._learning:
            found = self._kept_tree(block.height) or self._approach(header)
            # A document that was changed behind our back spoils one way to the tree, not all of them.
            found = found or self._scan(header) or self._around(header)
        if found is None:
            raise IntegrityError(f"too much of block {block} was changed to know what its documents were", hint=_HINT)
        return found

    def _kept_tree(self, height: int) -> StateTree | None:
        with self._caches:
            kept = self._trees.get(height)
            if kept is None:
                return None
            self._trees.move_to_end(height)
            return kept[0]

    def _keep_tree(self, height: int, tree: StateTree, cost: int) -> StateTree:
        with self._caches:
            if height not in self._trees:
                self._trees[height] = (tree, cost)
                self._trees_cost += cost
            while self._trees_cost > MAX_TREES_COST and len(self._trees) > 2:
                self._trees_cost -= self._trees.popitem(last=False)[1][1]
        return tree

    def _approach(self, header: BlockHeader) -> StateTree | None:
        """From the nearest tree there is, if that is nearer than the block's own documents."""
        budget = max(header.state_count, 4 * STEP_COST)
        for distance in range(1, budget // STEP_COST + 1):
            for start in (header.height - distance, header.height + distance):
                if start in self._trees:
                    return self._walk(start, header.height, budget)
        return None

    def _walk(self, start: int, end: int, budget: int) -> StateTree | None:
        """Step by step from the tree of one height to another; None where a step fails or it takes too long."""
        step, take = (1, self._step_up) if end > start else (-1, self._step_down)
        try:
            for height in range(start, end, step):
                changed = self._load_header(max(height, height + step))
                budget -= STEP_COST + 2 * changed.events_count
                if budget < 0 or take(changed) is None:
                    return None
        except (IntegrityError, NotFound):
            return None
        return self._kept_tree(end)

    def _step_up(self, header: BlockHeader) -> StateTree | None:
        """The tree of this block from the one below: its events say what changed."""
        below = self._kept_tree(header.height - 1)
        events = decode_events(self._store.read_events(header.name))
        changes = {event.id: bytes.fromhex(event.content) if event.content else None for event in events}
        return None if below is None else self._believe(header, below.updated(changes), len(changes))

    def _step_down(self, header: BlockHeader) -> StateTree | None:
        """The tree of the block below this one: what changed since is there as it was."""
        above = self._kept_tree(header.height)
        if above is None:
            return None
        below = self._load_header(header.height - 1)
        changes: dict[ElementId, bytes | None] = {}
        for event in decode_events(self._store.read_events(header.name)):
            try:
                changes[event.id] = hash_bytes(self._store.read_document(below.name, event.id))
            except Erased as error:
                changes[event.id] = error.content
            except NotFound:
                changes[event.id] = None
        return self._believe(below, above.updated(changes), len(changes))

    def _scan(self, header: BlockHeader) -> StateTree | None:
        """The tree of the documents that the block has."""
        try:
            contents = [(document.id, document.content_hash) for document in self._store.scan_block(header.name)]
        except (IntegrityError, NotFound):
            return None
        return self._believe(header, StateTree.of(contents), len(contents))

    def _around(self, header: BlockHeader) -> StateTree | None:
        """By way of a neighbour's documents, where the block's own are damaged."""
        for height in (header.height - 1, header.height + 1):
            if not 0 <= height <= self._blocks()[-1].height:
                continue
            with suppress(IntegrityError):
                self._go_down(height)
                if self._kept_tree(height) or self._scan(self._load_header(height)):
                    found = self._walk(height, header.height, MAX_TREES_COST)
                    if found is not None:
                        return found
        return None

    def _believe(self, header: BlockHeader, tree: StateTree, changed: int) -> StateTree | None:
        """The tree, kept, if it is the one that the header commits to."""
        if tree.root.hex() != header.state_root or tree.count != header.state_count:
            return None
        return self._keep_tree(header.height, tree, min(_NODES_PER_CHANGE * changed, 2 * tree.count + 1))


class CheckedReads:
    """Reads of single files of blocks that raise IntegrityError rather than return wrong bytes. Blocking."""

    def __init__(self, store: SnapshotStore, verified: VerifiedBlocks) -> None:
        self._store = store
        self._verified = verified

    def read_header(self, name: BlockName) -> bytes:
        return self._checked(name, HEADER, self._store.read_header(name))

    def read_events(self, name: BlockName) -> bytes:
        return self._checked(name, EVENTS, self._store.read_events(name))

    def read_document(self, name: BlockName, id: ElementId) -> bytes:
        """Raises NotFound only where the block commits to that."""
        try:
            content = self._store.read_document(name, id)
        except NotFound:
            self._verified.check_absent(name, STATE + id.path)
            raise
        return self._checked(name, STATE + id.path, content)

    def document_attributes(self, name: BlockName, id: ElementId) -> FileAttributes:
        """Not what a block commits to, so not checked."""
        return self._store.document_attributes(name, id)

    def _checked(self, name: BlockName, path: str, content: bytes) -> bytes:
        self._verified.check(name, path, content)
        return content


_HINT = "opfs verify names everything that was changed"


def _document(path: str) -> ElementId | None:
    """The element whose document is at `path` of a block; None where no document can be."""
    if not (path.startswith(STATE) and path.endswith(DOCUMENT_SUFFIX)):
        return None
    try:
        id = ElementId.parse(path.removeprefix(STATE))
    except InvalidRequest:
        return None
    return id if STATE + id.path == path else None
