"""Signed notes and checkpoints as C2SP defines them: their text, read strictly and written; pure.

A note is text, an empty line and signature lines. A checkpoint is a note whose text names a log, a size and a root.
Lines of unknown keys are carried along and never trusted. Keys and signatures are opfs.core.notekeys'.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.merkle import HASH_BYTES
from opfs.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from opfs.core.notekeys import Verifier

MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 100
MAX_SIZE = 2**63 - 1
KEY_ID_BYTES = 4
_LINE_START = "— "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SIZE = re.compile(r"(?:0|[1-9]\d{0,18})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One line below a note: who claims to have signed (`key_id` is 4 bytes), and the bytes that show it."""

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        """The line as it is written, with its newline."""
        return f"{_LINE_START}{self.name} {to_base64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """`text` ends with a newline; nothing about the signatures has been checked."""

    text: str
    signatures: tuple[SignatureLine, ...]

    def encode(self) -> bytes:
        return f"{self.text}\n{''.join(map(str, self.signatures))}".encode()

    def with_signatures(self, lines: Iterable[SignatureLine]) -> Note:
        """The note with more lines; one of the same key takes the place of the old one."""
        by_key = {(line.name, line.key_id): line for line in (*self.signatures, *lines)}
        return Note(self.text, tuple(by_key.values()))


def parse_note(data: bytes) -> Note:
    """Read a note; raises IntegrityError for bytes that `Note.encode` would not write."""
    if len(data) > MAX_NOTE_BYTES:
        raise IntegrityError(f"the note is {len(data)} bytes long", hint=f"at most {MAX_NOTE_BYTES} are read")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise IntegrityError(f"the note is not UTF-8 at byte {error.start + 1}") from None
    if _CONTROL.search(whole):
        raise IntegrityError("the note has a control character in it")
    text, separator, lines = whole.rpartition("\n\n")
    if not separator:
        raise IntegrityError("the note has no empty line between text and signatures")
    if not lines.endswith("\n"):
        raise IntegrityError("the note does not end with a newline")
    split = lines[:-1].split("\n")
    if len(split) > MAX_SIGNATURES:
        raise IntegrityError(f"the note has {len(split)} signatures", hint=f"at most {MAX_SIGNATURES} are read")
    return Note(text + "\n", tuple(_parse_line(line) for line in split))


def _parse_line(line: str) -> SignatureLine:
    name, _, encoded = line.removeprefix(_LINE_START).partition(" ")
    if not line.startswith(_LINE_START) or not is_key_name(name):
        raise IntegrityError(f"{line[:80]!r} is not a signature line")
    data = from_base64(encoded)
    if len(data) <= KEY_ID_BYTES:
        raise IntegrityError(f"the signature of {name} is too short")
    return SignatureLine(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


def is_key_name(name: str) -> bool:
    """Whether a key may have this name: not empty, no blank of any kind, no plus sign, no control character."""
    return name != "" and not any(char.isspace() or char == "+" or char < " " for char in name)


# --- opening -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VerifiedSignature:
    """A signature that was checked; `time_s` is when the signer says it was made, None where it does not say."""

    verifier: Verifier
    time_s: int | None


@dataclass(frozen=True, slots=True)
class OpenedNote:
    """A note of which at least one signature is good; `verified` holds all that are."""

    note: Note
    verified: tuple[VerifiedSignature, ...]

    @property
    def text(self) -> str:
        return self.note.text


def open_note(data: bytes, verifiers: Collection[Verifier]) -> OpenedNote:
    """Read a note and check every signature of a known key.

    Raises IntegrityError where one of them is wrong, or where none of the keys has signed.
    """
    note = parse_note(data)
    verified = []
    for line in note.signatures:
        for verifier in verifiers:
            if (line.name, line.key_id) == (verifier.name, verifier.key_id):
                verified.append(VerifiedSignature(verifier, verifier.check(note.text, line.signature)))
    if not verified:
        signers = ", ".join(f"{line.name}+{line.key_id.hex()}" for line in note.signatures)
        raise IntegrityError(f"the note is signed by none of the keys asked for, but by {signers}")
    return OpenedNote(note, tuple(verified))


# --- checkpoints ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint's text says: the log, its number of leaves, its 32-byte root, lines of other makers."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The note text, which signatures are made over."""
        lines = (self.origin, str(self.size), to_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a note's text; raises IntegrityError for text that `Checkpoint.text` would not write."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() != "" or "" in lines:
        raise IntegrityError("a checkpoint is origin, size and root, a line each, and no empty line")
    origin, size, root, *extensions = lines
    if not _SIZE.match(size) or int(size) > MAX_SIZE:
        raise IntegrityError(f"{size[:40]!r} is not the size of a log")
    root_hash = from_base64(root)
    if len(root_hash) != HASH_BYTES:
        raise IntegrityError(f"the root of the checkpoint is {len(root_hash)} bytes long, not {HASH_BYTES}")
    return Checkpoint(origin, int(size), root_hash, tuple(extensions))


# --- base64 --------------------------------------------------------------------------------------------


def to_base64(data: bytes) -> str:
    """RFC 4648, section 4, with padding."""
    return base64.b64encode(data).decode()


def from_base64(text: str) -> bytes:
    """The one decoding of which `text` is the one encoding; raises IntegrityError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = None
    if data is None or to_base64(data) != text:
        raise IntegrityError(f"{text[:40]!r} is not base64")
    return data
