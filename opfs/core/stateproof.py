"""The proof that an element has a document, or has none, under a state root (format.md, "State path"); pure.

The way from the root towards an element's key is fixed by the key's bits, so under one root it has one end:
the element's own leaf (present), an empty slot, or the leaf of another element (absent). A proof gives the
siblings along the way and, where another leaf stands at its end, that leaf. Nothing a proof says is believed
before the root computed from it is the root asked about.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.canonical import HASH_BYTES, ZERO_HASH
from opfs.core.statetree import KEY_BITS, leaf_hash, node_hash, tree_key
from opfs.errors import IntegrityError, InvalidRequest

if TYPE_CHECKING:
    from opfs.core.names import ElementId
    from opfs.core.statetree import StateTree

_HEX_HASH = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class OtherLeaf:
    """The leaf of another element: its 32-byte key and content hash, neither of which says its name."""

    key: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class StateProof:
    """`siblings` from the top, 32 bytes each, zero for an empty subtree; `other` only in a proof of absence."""

    siblings: tuple[bytes, ...]
    other: OtherLeaf | None = None

    def check(self, id: ElementId, content: bytes | None, root: bytes) -> None:
        """Raise IntegrityError unless this proves that `id` has this 32-byte content hash, or is absent (None)."""
        key = tree_key(id)
        depth = len(self.siblings)
        if depth > KEY_BITS:
            raise IntegrityError(f"the path has {depth} siblings; a key has {KEY_BITS} bits")
        if depth and self.siblings[-1] == ZERO_HASH:
            raise IntegrityError("the path goes on below a subtree with one leaf or none", hint="it would end there")
        if content is not None:
            if self.other is not None:
                raise IntegrityError("the path of a document that is present ends at another's leaf")
            computed = leaf_hash(key, content)
        elif self.other is not None:
            if self.other.key == key:
                raise IntegrityError(f"the leaf that should prove that {id} is absent is its own")
            if _first_bits(self.other.key, depth) != _first_bits(key, depth):
                raise IntegrityError(f"the other leaf does not stand on the way to {id}")
            computed = leaf_hash(self.other.key, self.other.content)
        else:
            computed = ZERO_HASH
        number = int.from_bytes(key)
        for level in range(depth - 1, -1, -1):
            sibling = self.siblings[level]
            if number >> (KEY_BITS - 1 - level) & 1:
                computed = node_hash(sibling, computed)
            else:
                computed = node_hash(computed, sibling)
        if computed != root:
            raise IntegrityError(f"the path leads to {computed.hex()}, not to the state root {root.hex()}")

    def to_json(self) -> dict[str, object]:
        """The object that stands in a bundle."""
        return {
            "siblings": [None if sibling == ZERO_HASH else sibling.hex() for sibling in self.siblings],
            "other": {"key": self.other.key.hex(), "content": self.other.content.hex()} if self.other else None,
        }

    @classmethod
    def from_json(cls, value: object) -> StateProof:
        """Read what `to_json` gives, and nothing else; raises InvalidRequest."""
        if not isinstance(value, dict) or value.keys() != {"siblings", "other"}:
            raise InvalidRequest("a state path has siblings and other, and nothing else")
        siblings, other = value["siblings"], value["other"]
        if not isinstance(siblings, list) or len(siblings) > KEY_BITS:
            raise InvalidRequest(f"the siblings of a state path are a list of at most {KEY_BITS}")
        if other is not None and (not isinstance(other, dict) or other.keys() != {"key", "content"}):
            raise InvalidRequest("the other leaf of a state path has a key and a content")
        return cls(
            tuple(ZERO_HASH if sibling is None else parse_hash(sibling) for sibling in siblings),
            None if other is None else OtherLeaf(parse_hash(other["key"]), parse_hash(other["content"])),
        )


def prove_state(tree: StateTree, id: ElementId) -> tuple[bytes | None, StateProof]:
    """The element's content hash (None: it is absent) and the proof of that under the tree's root."""
    key = tree_key(id)
    siblings, leaf = tree.descend(key)
    if leaf is not None and leaf[0] == key:
        return leaf[1], StateProof(siblings)
    return None, StateProof(siblings, None if leaf is None else OtherLeaf(*leaf))


def parse_hash(value: object) -> bytes:
    """32 bytes from 64 lower-case hex digits; raises InvalidRequest.

    The hash of nothing but zeros is no hash of anything: where it has a meaning, null is written instead.
    """
    if not isinstance(value, str) or not _HEX_HASH.match(value) or value == "0" * 2 * HASH_BYTES:
        raise InvalidRequest("a hash is written as 64 lower-case hex digits that are not all zero")
    return bytes.fromhex(value)


def _first_bits(key: bytes, count: int) -> int:
    return int.from_bytes(key) >> (KEY_BITS - count)
