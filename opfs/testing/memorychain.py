"""A chain with its log, in memory and without a host: every block, event, document and checkpoint there ever was.

It makes proof bundles straight from the definitions, with nothing read from a pool, for tests of whatever checks
them. Not thread-safe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opfs.core.bundle import BlockProof, ConsistencyBundle, ElementBundle, EventBundle
from opfs.core.canonical import hash_bytes
from opfs.core.event import Event
from opfs.core.header import GENESIS_PREV, BlockHeader
from opfs.core.merkle import consistency_proof, inclusion_proof, leaf_hash, nodes_of_hashes, root_at, tree_root
from opfs.core.note import Checkpoint
from opfs.core.notekeys import Kind, Signer, sign_checkpoint
from opfs.core.stateproof import prove_state
from opfs.core.statetree import StateTree
from opfs.core.timestamp import NS_PER_S, format_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.core.names import ElementId
    from opfs.core.notekeys import Verifier

START_S = 1_800_000_000
"""When genesis was; block N follows N seconds later."""


@dataclass(frozen=True, slots=True)
class MemoryBlock:
    """A block and all that it stands for."""

    header: BlockHeader
    events: tuple[Event, ...]
    documents: Mapping[ElementId, bytes]
    tree: StateTree


@dataclass(slots=True)
class MemoryChain:
    """Begins with genesis; its keys follow from `origin`, so that two chains of one name have the same."""

    origin: str = "test.example/opfs"
    blocks: list[MemoryBlock] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.blocks:
            self.commit({})

    @property
    def signers(self) -> tuple[Signer, Signer]:
        """The log's Ed25519 and ML-DSA-44 keys."""
        seed = hash_bytes(self.origin.encode())
        return Signer(self.origin, Kind.ED25519, seed), Signer(self.origin, Kind.ML_DSA_44, seed)

    @property
    def keys(self) -> tuple[Verifier, ...]:
        return tuple(signer.verifier for signer in self.signers)

    @property
    def size(self) -> int:
        """How many blocks there are."""
        return len(self.blocks)

    def commit(self, changes: Mapping[ElementId, bytes | None]) -> MemoryBlock:
        """Add a block in which each element has the document given, or none."""
        last = self.blocks[-1] if self.blocks else None
        height = self.size
        time = format_time((START_S + height) * NS_PER_S)
        first = last.header.events_first + last.header.events_count if last else 0
        hashes = {id: None if content is None else hash_bytes(content) for id, content in changes.items()}
        events = tuple(
            Event(
                seq=seq,
                id=id,
                op="delete" if content is None else "update",
                content=None if content is None else content.hex(),
                prev_event=self._last_event(id),
                time=time,
                actor={"uid": 1000, "user": "alice", "source": "mount"},
            )
            for seq, (id, content) in enumerate(hashes.items(), first)
        )
        documents = {**(last.documents if last else {}), **changes}
        tree = (last.tree if last else StateTree()).updated(hashes)
        header = BlockHeader(
            origin=self.origin,
            height=height,
            prev=last.header.hash if last else GENESIS_PREV,
            time=time,
            state_root=tree.root.hex(),
            state_count=tree.count,
            events_root=tree_root([event.encode() for event in events]).hex(),
            events_first=first,
            events_count=len(events),
        )
        present = {id: content for id, content in documents.items() if content is not None}
        self.blocks.append(MemoryBlock(header, events, present, tree))
        return self.blocks[-1]

    def checkpoint(self, size: int | None = None, cosigners: Sequence[Signer] = ()) -> str:
        """The signed note over the first `size` blocks; cosigners sign a minute after the log."""
        size = self.size if size is None else size
        checkpoint = Checkpoint(self.origin, size, root_at(size, nodes_of_hashes(self._leaves())))
        time_s = START_S + size
        note = sign_checkpoint(checkpoint, self.signers, time_s)
        return note.with_signatures([c.sign(checkpoint.text, time_s + 60) for c in cosigners]).encode().decode()

    def prove_element(
        self, id: ElementId, height: int, *, with_document: bool = False, checkpoint: str = "", size: int | None = None
    ) -> ElementBundle:
        """The element in the block at `height`, under `checkpoint`, or one made here, of `size` blocks."""
        block = self.blocks[height]
        content, path = prove_state(block.tree, id)
        document = block.documents[id].decode() if with_document else None
        return ElementBundle(id, content, path, self._prove_block(height, checkpoint, size), document)

    def prove_event(self, seq: int, *, with_document: bool = False, checkpoint: str = "") -> EventBundle:
        """The event of that number."""
        block = next(b for b in self.blocks if 0 <= seq - b.header.events_first < b.header.events_count)
        index = seq - block.header.events_first
        event = block.events[index]
        hashes = [leaf_hash(event.encode()) for event in block.events]
        path = inclusion_proof(index, len(hashes), nodes_of_hashes(hashes))
        document = block.documents[event.id].decode() if with_document else None
        return EventBundle(
            event.encode().decode(), tuple(path), self._prove_block(block.header.height, checkpoint, None), document
        )

    def prove_consistency(self, old_size: int, new_size: int) -> ConsistencyBundle:
        """The first `old_size` blocks are a beginning of the first `new_size`."""
        path = consistency_proof(old_size, new_size, nodes_of_hashes(self._leaves()))
        return ConsistencyBundle(self.checkpoint(old_size), self.checkpoint(new_size), tuple(path))

    def _prove_block(self, height: int, checkpoint: str, size: int | None) -> BlockProof:
        path = inclusion_proof(height, size or self.size, nodes_of_hashes(self._leaves()))
        return BlockProof(
            self.blocks[height].header.encode().decode(), tuple(path), checkpoint or self.checkpoint(size)
        )

    def _leaves(self) -> list[bytes]:
        return [leaf_hash(block.header.encode()) for block in self.blocks]

    def _last_event(self, id: ElementId) -> str | None:
        events = (event for block in reversed(self.blocks) for event in block.events if event.id == id)
        return next((event.hash for event in events), None)
