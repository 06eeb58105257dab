"""Keys that sign notes, and what each kind of signature is made over (C2SP signed-note and tlog-cosignature); pure.

    kind                    message                                        signature bytes
    0x01 Ed25519            the note's text                                64
    0x04 Ed25519 cosigner   "cosignature/v1\\n" "time <t>\\n" text           u64 t ‖ 64
    0x06 ML-DSA-44          struct "subtree/v1\\n\\0" … of the checkpoint    u64 t ‖ 2,420

Signing draws randomness for ML-DSA (hedged, FIPS 204); there is no other input than the arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from opfs.core.note import (
    KEY_ID_BYTES,
    MAX_SIZE,
    Checkpoint,
    Note,
    SignatureLine,
    from_base64,
    is_key_name,
    parse_checkpoint,
    to_base64,
)
from opfs.errors import IntegrityError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

SEED_BYTES = 32
_TIME_BYTES = 8
_SECRET_PREFIX = "PRIVATE+KEY+"


class Kind(IntEnum):
    """The signature type byte of signed-note."""

    ED25519 = 0x01
    COSIGNATURE = 0x04
    ML_DSA_44 = 0x06


_PUBLIC_BYTES = {Kind.ED25519: 32, Kind.COSIGNATURE: 32, Kind.ML_DSA_44: 1312}
_SIGNATURE_BYTES = {Kind.ED25519: 64, Kind.COSIGNATURE: _TIME_BYTES + 64, Kind.ML_DSA_44: _TIME_BYTES + 2420}


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """SHA-256(name ‖ 0x0A ‖ kind ‖ public key)[:4]."""
    return sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:KEY_ID_BYTES]


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with the name and the kind of signature it is known by."""

    name: str
    kind: Kind
    public: bytes

    @property
    def key_id(self) -> bytes:
        return key_id(self.name, self.kind, self.public)

    @property
    def vkey(self) -> str:
        """`name+hex(key id)+base64(kind ‖ public key)`."""
        return f"{self.name}+{self.key_id.hex()}+{to_base64(bytes([self.kind]) + self.public)}"

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """Read a verifier key; raises InvalidRequest, also for a kind that opfs does not know."""
        name, id_text, kind, public = _parse_key(vkey.strip(), "a verifier key", "name+id+base64, as in log.vkey")
        if len(public) != _PUBLIC_BYTES[kind]:
            raise InvalidRequest(f"the key of {name} is {len(public)} bytes long, not {_PUBLIC_BYTES[kind]}")
        verifier = cls(name, kind, public)
        if verifier.key_id.hex() != id_text:
            raise InvalidRequest(f"the key of {name} has the id {verifier.key_id.hex()}, not {id_text}")
        return verifier

    def check(self, text: str, signature: bytes) -> int | None:
        """Raise IntegrityError unless this key made `signature` (a line's, without key id) over the note's text.

        Returns the time in it, in seconds since the epoch; None for a kind that has none.
        """
        if len(signature) != _SIGNATURE_BYTES[self.kind]:
            raise IntegrityError(f"the signature of {self.name} is {len(signature)} bytes long")
        time_s = None
        if self.kind is not Kind.ED25519:
            time_s = int.from_bytes(signature[:_TIME_BYTES])
            signature = signature[_TIME_BYTES:]
        message = _message(self.kind, self.name, text, time_s)
        try:
            if self.kind is Kind.ML_DSA_44:
                MLDSA44PublicKey.from_public_bytes(self.public).verify(signature, message)
            else:
                Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise IntegrityError(f"the signature of {self.name}+{self.key_id.hex()} is not good") from None
        return time_s


class Signer:
    """A private key, given by its 32-byte seed."""

    __slots__ = ("_ed25519", "_ml_dsa", "_seed", "verifier")

    def __init__(self, name: str, kind: Kind, seed: bytes) -> None:
        if not is_key_name(name):
            raise InvalidRequest(f"{name!r} cannot name a key", hint="no blanks, no plus sign")
        if len(seed) != SEED_BYTES:
            raise InvalidRequest(f"the seed of a key is {SEED_BYTES} bytes long, not {len(seed)}")
        self._seed = seed
        self._ed25519 = Ed25519PrivateKey.from_private_bytes(seed) if kind is not Kind.ML_DSA_44 else None
        self._ml_dsa = MLDSA44PrivateKey.from_seed_bytes(seed) if kind is Kind.ML_DSA_44 else None
        public = (self._ed25519 or self._ml_dsa_key).public_key().public_bytes_raw()
        self.verifier = Verifier(name, kind, public)

    def __repr__(self) -> str:
        return f"Signer({self.verifier.name}+{self.verifier.key_id.hex()})"

    @property
    def _ml_dsa_key(self) -> MLDSA44PrivateKey:
        if self._ml_dsa is None:
            raise ValueError("not a key of ML-DSA")
        return self._ml_dsa

    @property
    def secret(self) -> str:
        """`PRIVATE+KEY+name+hex(key id)+base64(kind ‖ seed)`: what a key file holds."""
        verifier = self.verifier
        seed = to_base64(bytes([verifier.kind]) + self._seed)
        return f"{_SECRET_PREFIX}{verifier.name}+{verifier.key_id.hex()}+{seed}"

    @classmethod
    def parse(cls, secret: str) -> Signer:
        """Read a key file's line; raises InvalidRequest, which never shows any of the secret."""
        text = secret.strip()
        if not text.startswith(_SECRET_PREFIX):
            raise InvalidRequest("this is no private key", hint=f"it begins with {_SECRET_PREFIX}")
        name, id_text, kind, seed = _parse_key(text.removeprefix(_SECRET_PREFIX), "a private key", "name+id+base64")
        signer = cls(name, kind, seed)
        if signer.verifier.key_id.hex() != id_text:
            raise InvalidRequest(f"the private key of {name} has the id {signer.verifier.key_id.hex()}, not {id_text}")
        return signer

    def sign(self, text: str, time_s: int) -> SignatureLine:
        """The line over a note's text; `time_s` is signed by the kinds that have a time."""
        verifier = self.verifier
        if verifier.kind is Kind.ED25519:
            return SignatureLine(verifier.name, verifier.key_id, self._raw(text.encode()))
        message = _message(verifier.kind, verifier.name, text, time_s)
        return SignatureLine(verifier.name, verifier.key_id, time_s.to_bytes(_TIME_BYTES) + self._raw(message))

    def _raw(self, message: bytes) -> bytes:
        return self._ed25519.sign(message) if self._ed25519 else self._ml_dsa_key.sign(message)


def sign_checkpoint(checkpoint: Checkpoint, signers: Iterable[Signer], time_s: int) -> Note:
    """The signed note of a checkpoint."""
    text = checkpoint.text
    return Note(text, tuple(signer.sign(text, time_s) for signer in signers))


def _message(kind: Kind, name: str, text: str, time_s: int | None) -> bytes:
    """What a signature of that kind is made over; raises IntegrityError for a text that it cannot be made over."""
    if time_s is None:
        return text.encode()
    if not 0 <= time_s <= MAX_SIZE:
        raise IntegrityError(f"{time_s} is not the time of a signature")
    checkpoint = parse_checkpoint(text)
    if kind is Kind.COSIGNATURE:
        return f"cosignature/v1\ntime {time_s}\n{text}".encode()
    return b"".join(
        (
            b"subtree/v1\n\x00",
            _short(name),
            time_s.to_bytes(8),
            _short(checkpoint.origin),
            (0).to_bytes(8),
            checkpoint.size.to_bytes(8),
            checkpoint.root,
        )
    )


def _short(text: str) -> bytes:
    data = text.encode()
    if not 1 <= len(data) <= 255:
        raise IntegrityError(f"the name {text[:40]!r} is {len(data)} bytes long; 1 to 255 can be signed")
    return bytes([len(data)]) + data


def _parse_key(text: str, what: str, hint: str) -> tuple[str, str, Kind, bytes]:
    """Name, key id in hex, kind and key bytes; the base64 at the end may have plus signs of its own."""
    parts = text.split("+", 2)
    try:
        name, id_text, encoded = parts
        material = from_base64(encoded)
        if not is_key_name(name) or len(id_text) != 2 * KEY_ID_BYTES or not material:
            raise ValueError
    except (ValueError, IntegrityError):
        raise InvalidRequest(f"this is not {what}", hint=hint) from None
    try:
        kind = Kind(material[0])
    except ValueError:
        raise InvalidRequest(f"the key of {name} is of kind {material[0]:#04x}", hint="known: 01, 04, 06") from None
    return name, id_text, kind, material[1:]
