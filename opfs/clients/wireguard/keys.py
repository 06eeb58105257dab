"""WireGuard's keys: 32 bytes of Curve25519, written in base64; pure. Source: wg(8), RFC 7748."""

from __future__ import annotations

import base64
import binascii

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from opfs.errors import InvalidRequest

KEY_BYTES = 32
KEY_PATTERN = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"
"""What schemas take for a key: 32 bytes in base64, and no other bits."""


def parse_key(text: str) -> bytes:
    """The 32 bytes of a key. Raises InvalidRequest, which does not repeat the text: it may be a private key."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES or show_key(key) != text:
        raise InvalidRequest(
            "this is not a WireGuard key", hint="a key is 44 characters of base64, as `wg genkey` gives"
        )
    return key


def show_key(key: bytes) -> str:
    return base64.b64encode(key).decode()


def public_key_of(private_key: bytes) -> bytes:
    """The public key that belongs to a private one."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
