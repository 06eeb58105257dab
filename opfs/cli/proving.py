"""Making proof bundles from the files of a chain and its log, through the mount or straight from the pool.

The proof of an element is made from all documents of its block, because its path passes the hashes of the others:
a pass over the block, and only for who may read all of it. The log is asked for O(log n) hashes. Synchronous.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.cli.output import with_progress
from opfs.core.bundle import BlockProof, ConsistencyBundle, ElementBundle, EventBundle
from opfs.core.merkle import (
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    nodes_of_hashes,
    root_at,
)
from opfs.core.note import Checkpoint, parse_checkpoint, parse_note
from opfs.core.notekeys import Verifier
from opfs.core.stateproof import prove_state
from opfs.core.statetree import StateTree
from opfs.core.tiles import nodes_from_tiles
from opfs.errors import Erased, IntegrityError, InvalidRequest, NotFound
from opfs.tlog.files import LogFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from opfs.cli.chain import Chain
    from opfs.core.header import BlockHeader
    from opfs.core.merkle import Nodes
    from opfs.core.names import BlockName, ElementId

_ATTEMPTS = 3
"""A tile may be replaced by a wider one between the look at a directory and the look into it."""


class Prover:
    """Proofs of one chain, under the newest checkpoint of its log or, `witnessed`, the newest that had a quorum."""

    def __init__(self, chain: Chain, *, witnessed: bool = False) -> None:
        self._chain = chain
        self._witnessed = witnessed
        self._log = LogFiles(chain.log_directory)

    def keys(self) -> list[Verifier]:
        """The keys of the log, of now and of before."""
        return [Verifier.parse(line) for line in self._log.read_verifier_keys().decode().splitlines()]

    def element(self, id: ElementId, block: BlockName, *, with_document: bool) -> ElementBundle:
        """What the element was in the block; raises IntegrityError where the block is damaged."""
        header = self._chain.header(block)
        documents = with_progress(self._chain.documents(block), header.state_count, "reading documents")
        document: str | None = None
        hashes = []
        for found in documents:
            hashes.append((found.id, found.content_hash))
            if found.id == id and with_document:
                if found.erasure is not None:
                    raise Erased(
                        f"{id} of block {block} was erased in block {found.erasure.block}",
                        hint="its hash is proved without the document",
                    )
                document = _text(found.content, id)
        tree = StateTree.of(hashes)
        if tree.root.hex() != header.state_root:
            raise IntegrityError(
                f"the documents of block {block} are not those its header commits to",
                hint="opfs verify names the one that was changed",
            )
        if with_document and document is None:
            raise NotFound(f"block {block} has no document of {id}", hint="its absence is proved without one")
        content_hash, path = prove_state(tree, id)
        return ElementBundle(id, content_hash, path, self._prove_block(header), document)

    def event(self, seq: int, *, with_document: bool) -> EventBundle:
        """That the event of that number was recorded."""
        block = self._chain.block_of_event(seq)
        header, events = self._chain.header(block), self._chain.events(block)
        hashes = [leaf_hash(event.encode()) for event in events]
        nodes = nodes_of_hashes(hashes)
        if root_at(len(hashes), nodes).hex() != header.events_root:
            raise IntegrityError(f"the events of block {block} are not those its header commits to")
        index = seq - header.events_first
        event = events[index]
        document = None
        if with_document:
            document = _text(self._chain.document(block, event.id), event.id)
        path = inclusion_proof(index, len(hashes), nodes)
        return EventBundle(event.encode().decode(), tuple(path), self._prove_block(header), document)

    def consistency(self, old: Checkpoint | int, old_note: str = "") -> ConsistencyBundle:
        """That what an earlier checkpoint (its note: `old_note`), or so many blocks, held is still in the log."""
        old_size = old if isinstance(old, int) else old.size
        text: list[str] = []

        def prove(checkpoint: Checkpoint, nodes: Nodes) -> list[bytes]:
            if old_size > checkpoint.size:
                raise InvalidRequest(f"the log has {checkpoint.size} blocks, the older checkpoint {old_size}")
            root = root_at(old_size, nodes)
            if isinstance(old, Checkpoint) and (old.origin, old.root) != (checkpoint.origin, root):
                raise IntegrityError(
                    f"no proof can be made: {old_size} blocks of {checkpoint.origin} have the root {root.hex()}",
                    hint=f"the older checkpoint says {old.root.hex()} of {old.origin}",
                )
            text[:] = [Checkpoint(checkpoint.origin, old_size, root).text]
            return consistency_proof(old_size, checkpoint.size, nodes)

        note, path = self._prove(prove)
        return ConsistencyBundle(old_note or text[0], note, tuple(path))

    def _prove_block(self, header: BlockHeader) -> BlockProof:
        def prove(checkpoint: Checkpoint, nodes: Nodes) -> list[bytes]:
            if header.height >= checkpoint.size:
                where, say = (
                    ("checkpoint.witnessed", "opfs witness status") if self._witnessed else ("log", "opfs status")
                )
                raise NotFound(
                    f"block {header.name} is not in the {where} yet, which has {checkpoint.size}",
                    hint=f"{say} says what keeps it back",
                )
            path = inclusion_proof(header.height, checkpoint.size, nodes)
            check_inclusion(leaf_hash(header.encode()), header.height, checkpoint.size, path, checkpoint.root)
            return path

        note, path = self._prove(prove)
        return BlockProof(header.encode().decode(), tuple(path), note)

    def _prove(self, prove: Callable[[Checkpoint, Nodes], list[bytes]]) -> tuple[str, list[bytes]]:
        """The checkpoint, and what `prove` makes of the tree under it."""
        for attempt in range(1, _ATTEMPTS + 1):
            note = self._log.read_witnessed() if self._witnessed else self._log.read_checkpoint()
            checkpoint = parse_checkpoint(parse_note(note).text)
            try:
                return note.decode(), prove(checkpoint, nodes_from_tiles(checkpoint.size, self._log.read_tile))
            except NotFound:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")


def _text(content: bytes, id: ElementId) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise IntegrityError(f"the document of {id} is not UTF-8, which no document is") from None
