"""A log as a witness sees it, in memory: real trees, real signatures, any number of histories.

`fork_at` makes the second history that no honest log has. Polices the one rule of its port: what is cosigned is a
checkpoint that this log signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.core.merkle import consistency_proof, leaf_hash, nodes_of_hashes, root_of_hashes
from opfs.core.note import Checkpoint, Note, open_note
from opfs.core.notekeys import Kind, Signer, sign_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.core.notekeys import Verifier


class GrowingLog:
    """A log of `size` entries; its keys follow from its origin."""

    def __init__(self, origin: str = "log.example/opfs", size: int = 1) -> None:
        seed = origin.encode().ljust(32, b".")[:32]
        self.origin = origin
        self.signers = tuple(Signer(origin, kind, seed) for kind in (Kind.ED25519, Kind.ML_DSA_44))
        self.cosigned: list[tuple[Note, bool]] = []
        """What `cosign` was given: the note, and whether it had a quorum."""
        self._leaves: list[bytes] = []
        self._note = self.grow(size)

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        return tuple(signer.verifier for signer in self.signers)

    @property
    def size(self) -> int:
        return len(self._leaves)

    def grow(self, count: int = 1) -> Note:
        """Append entries and sign the new checkpoint."""
        self._leaves += [leaf_hash(f"entry {number}".encode()) for number in range(self.size, self.size + count)]
        self._note = self.note(self.size)
        return self._note

    def fork_at(self, size: int, count: int) -> GrowingLog:
        """A log with the same name and keys and the same first `size` entries, and `count` others after them."""
        fork = GrowingLog(self.origin, 0)
        fork._leaves = [*self._leaves[:size], *(leaf_hash(f"other {number}".encode()) for number in range(count))]
        fork._note = fork.note(fork.size)
        return fork

    def note(self, size: int) -> Note:
        """The signed checkpoint of the first `size` entries."""
        checkpoint = Checkpoint(self.origin, size, root_of_hashes(self._leaves[:size]))
        return sign_checkpoint(checkpoint, self.signers, time_s=1_700_000_000 + size)

    def proof(self, old_size: int, new_size: int) -> list[bytes]:
        return consistency_proof(old_size, new_size, nodes_of_hashes(self._leaves))

    # --- opfs.witness.client.WitnessedLog ------------------------------------------------------------------

    async def newest(self) -> Note:
        return self._note

    async def witnessed(self) -> Note | None:
        return next((note for note, is_witnessed in reversed(self.cosigned) if is_witnessed), None)

    async def consistency_proof(self, old_size: int, new_size: int) -> Sequence[bytes]:
        return self.proof(old_size, new_size)

    async def cosign(self, note: Note, *, is_witnessed: bool) -> None:
        open_note(note.encode(), self.verifiers)
        self.cosigned.append((note, is_witnessed))
        if note.text == self._note.text:
            self._note = self._note.with_signatures(note.signatures)
