"""A checkpoint and who signed it: what is asked of its log's keys and of its witnesses; pure.

Whether a signature's time is late is the reader's to judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.note import Note, parse_checkpoint, parse_note
from opfs.core.notekeys import Kind
from opfs.core.policy import NONE, Policy
from opfs.core.timestamp import NS_PER_S, format_time
from opfs.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.core.note import Checkpoint
    from opfs.core.notekeys import Verifier


@dataclass(frozen=True, slots=True)
class Cosigners:
    """Whose cosignatures are asked for: of all witnesses given, and enough for the quorum of the policy."""

    witnesses: Sequence[Verifier]
    policy: Policy

    def __bool__(self) -> bool:
        return bool(self.witnesses) or self.policy.quorum != NONE


class SignedCheckpoint:
    """A checkpoint's text, to be held to the `keys` of its log; `parse` comes first and fills in the rest.

    Each step returns what it found, for a person, and raises IntegrityError where it does not hold.
    """

    checkpoint: Checkpoint
    note: Note

    def __init__(self, text: str, keys: Sequence[Verifier]) -> None:
        self._text = text
        self._keys = keys

    def parse(self, *, may_be_unsigned: bool = False) -> str:
        """Read origin, size and root."""
        if may_be_unsigned and "\n\n" not in self._text:
            self.note = Note(self._text, ())
        else:
            self.note = parse_note(self._text.encode())
        self.checkpoint = parse_checkpoint(self.note.text)
        if self.checkpoint.extensions:
            # ML-DSA-44 signatures do not cover them
            raise IntegrityError("the checkpoint has more lines than origin, size and root")
        return f"{self.checkpoint.origin}, {self.checkpoint.size} blocks, root {self.checkpoint.root.hex()[:12]}"

    def check_signatures(self) -> str:
        """Of each kind of key, one must have signed."""
        for key in self._keys:
            if key.name != self.checkpoint.origin:
                raise IntegrityError(f"the key is of the log {key.name}, the checkpoint of {self.checkpoint.origin}")
        signed = {key: told for key in self._keys if (told := self._check(key))}
        for key in self._keys:
            if key.kind not in {signer.kind for signer in signed}:
                others = " or another key given" if sum(other.kind == key.kind for other in self._keys) > 1 else ""
                raise IntegrityError(f"the checkpoint is not signed by {name_of(key)}{others}")
        return f"signed by {', '.join(signed.values())}"

    def check_cosignatures(self, wanted: Cosigners) -> str:
        """All witnesses that are wanted, and the quorum of the policy."""
        known = wanted.policy.witnesses
        keys = dict.fromkeys([*wanted.witnesses, *(witness.key for witness in known.values())])
        cosigned = {key: told for key in keys if (told := self._check(key)) is not None}
        for key in wanted.witnesses:
            if key not in cosigned:
                raise IntegrityError(f"the checkpoint is not cosigned by {name_of(key)}")
        names = [name for name, witness in known.items() if witness.key in cosigned]
        if not wanted.policy.is_witnessed(names):
            raise IntegrityError(
                f"the quorum {wanted.policy.quorum} did not cosign, but {', '.join(names) or 'nobody'}"
            )
        return f"cosigned by {', '.join(cosigned.values())}"

    def _check(self, key: Verifier) -> str | None:
        """Who signed and when, where the key has a line; raises IntegrityError for a line of it that is not good."""
        lines = [line for line in self.note.signatures if (line.name, line.key_id) == (key.name, key.key_id)]
        if not lines:
            return None
        times = sorted({key.check(self.note.text, line.signature) or 0 for line in lines} - {0})
        return name_of(key) + "".join(f" at {_when(time_s)}" for time_s in times)


def name_of(key: Verifier) -> str:
    """A key for a person: name, id and kind."""
    kinds = {Kind.ED25519: "Ed25519", Kind.COSIGNATURE: "Ed25519", Kind.ML_DSA_44: "ML-DSA-44"}
    return f"{key.name}+{key.key_id.hex()} ({kinds[key.kind]})"


def _when(time_s: int) -> str:
    try:
        return format_time(time_s * NS_PER_S)[:19] + "Z"
    except OverflowError:  # a time after the year 9999
        return f"second {time_s}"
