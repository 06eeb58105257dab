"""The Merkle tree hash of RFC 6962, section 2.1, over SHA-256; pure."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def tree_root(entries: Sequence[bytes]) -> bytes:
    """MTH(entries), 32 bytes; of no entries it is the hash of the empty string.

    Works level by level: a lone last node moves up unchanged, which gives the same tree as the RFC's
    split at the largest power of two below n.
    """
    if not entries:
        return sha256(b"").digest()
    level = [leaf_hash(entry) for entry in entries]
    while len(level) > 1:
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]
