"""Canonical bytes and the two hashes of the format; pure.

BLAKE3 names content, SHA-256 is used only inside RFC 6962 trees (opfs.core.merkle).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import rfc8785
from blake3 import blake3

from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

HASH_BYTES = 32
ZERO_HASH = bytes(HASH_BYTES)


def canonical_bytes(value: Mapping[str, object]) -> bytes:
    """RFC 8785 bytes of an object that holds strings, integers within ±2^53, booleans, null, arrays, objects.

    Raises InvalidRequest for anything else, floats included: they have no place in a hashed record.
    """
    _refuse_floats(value)
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except rfc8785.CanonicalizationError as error:
        raise InvalidRequest(f"this record has no canonical form: {error}") from error


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise InvalidRequest(f"the number {value!r} is not an integer", hint="records hold integers only")
    if isinstance(value, dict):
        for member in value.values():
            _refuse_floats(member)
    elif isinstance(value, list | tuple):
        for member in value:
            _refuse_floats(member)


def hash_bytes(data: bytes) -> bytes:
    """BLAKE3, 32 bytes."""
    return blake3(data).digest()


def hash_hex(data: bytes) -> str:
    """BLAKE3, 64 lower-case hex digits."""
    return blake3(data).hexdigest()
