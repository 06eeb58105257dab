"""The compact sparse Merkle tree over the current documents (format.md, "State tree"); pure.

    key  = BLAKE3("<plugin>/<element>.json"), read bit by bit from the most significant bit
    leaf = BLAKE3(0x00 ‖ key ‖ content hash)      node = BLAKE3(0x01 ‖ left ‖ right)
    empty subtree = 32 zero bytes                 a subtree of exactly one leaf is that leaf

The root does not depend on the order of insertion, and a change costs O(log n) hashes. Nodes are immutable
and shared between versions, so an old tree stays valid for free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

from opfs.core.canonical import HASH_BYTES, ZERO_HASH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opfs.core.names import ElementId

KEY_BITS = 8 * HASH_BYTES
_TOP_BIT = KEY_BITS - 1


@dataclass(frozen=True, slots=True)
class _Leaf:
    key: int
    content: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class _Inner:
    left: _Node
    right: _Node
    hash: bytes


_Node = _Leaf | _Inner | None


def tree_key(id: ElementId) -> bytes:
    """The 32-byte key of an element."""
    return blake3(id.path.encode()).digest()


def leaf_hash(key: bytes, content_hash: bytes) -> bytes:
    """The hash of the leaf of a document."""
    return blake3(b"\x00" + key + content_hash).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node over the hashes of its halves."""
    return blake3(b"\x01" + left + right).digest()


def _make_leaf(id: ElementId, content_hash: bytes) -> _Leaf:
    key = tree_key(id)
    return _Leaf(int.from_bytes(key), content_hash, leaf_hash(key, content_hash))


def _hash_of(node: _Node) -> bytes:
    return ZERO_HASH if node is None else node.hash


def _join(left: _Node, right: _Node) -> _Node:
    """The subtree over two halves: a lone leaf rises, everything else becomes an inner node."""
    if left is None and not isinstance(right, _Inner):
        return right
    if right is None and not isinstance(left, _Inner):
        return left
    return _Inner(left, right, node_hash(_hash_of(left), _hash_of(right)))


def _with_leaf(node: _Node, leaf: _Leaf, bit: int) -> _Node:
    """`node`, whose keys agree above `bit`, with `leaf` added or replaced."""
    if node is None:
        return leaf
    if isinstance(node, _Leaf):
        if node.key == leaf.key:
            return leaf
        return _of_leaves([node, leaf], bit)
    if leaf.key >> bit & 1:
        return _join(node.left, _with_leaf(node.right, leaf, bit - 1))
    return _join(_with_leaf(node.left, leaf, bit - 1), node.right)


def _without_key(node: _Node, key: int, bit: int) -> _Node:
    if node is None or isinstance(node, _Leaf):
        return None if node is not None and node.key == key else node
    if key >> bit & 1:
        return _join(node.left, _without_key(node.right, key, bit - 1))
    return _join(_without_key(node.left, key, bit - 1), node.right)


def _of_leaves(leaves: list[_Leaf], bit: int) -> _Node:
    """The subtree over leaves with distinct keys that agree above `bit`."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else None
    ones = [leaf for leaf in leaves if leaf.key >> bit & 1]
    zeros = [leaf for leaf in leaves if not leaf.key >> bit & 1]
    return _join(_of_leaves(zeros, bit - 1), _of_leaves(ones, bit - 1))


@dataclass(frozen=True, slots=True)
class StateTree:
    """One version of the tree; `count` is its number of leaves."""

    _top: _Node = None
    count: int = 0

    @classmethod
    def of(cls, contents: Iterable[tuple[ElementId, bytes]]) -> StateTree:
        """Build from (element, 32-byte content hash) pairs with distinct elements, in any order."""
        leaves = [_make_leaf(id, content_hash) for id, content_hash in contents]
        return cls(_of_leaves(leaves, _TOP_BIT), len(leaves))

    @property
    def root(self) -> bytes:
        """32 bytes; all zero for the empty tree."""
        return _hash_of(self._top)

    def updated(self, changes: Mapping[ElementId, bytes | None]) -> StateTree:
        """The tree after setting (32-byte content hash) or removing (None) each element."""
        top, count = self._top, self.count
        for id, content_hash in changes.items():
            key = int.from_bytes(tree_key(id))
            present = _holds(top, key)
            if content_hash is not None:
                top = _with_leaf(top, _make_leaf(id, content_hash), _TOP_BIT)
                count += not present
            elif present:
                top = _without_key(top, key, _TOP_BIT)
                count -= 1
        return StateTree(top, count)

    def content_hash(self, id: ElementId) -> bytes | None:
        """The content hash of an element's document; None where there is none."""
        node, key, bit = self._top, int.from_bytes(tree_key(id)), _TOP_BIT
        while isinstance(node, _Inner):
            node = node.right if key >> bit & 1 else node.left
            bit -= 1
        return node.content if node is not None and node.key == key else None

    def descend(self, key: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, bytes] | None]:
        """Go from the root towards `key` as far as the tree goes.

        Returns the hashes of the siblings passed, from the top, and where the way ends: key and content hash of
        a leaf, which need not be `key`'s, or None for an empty slot.
        """
        siblings: list[bytes] = []
        node, number, bit = self._top, int.from_bytes(key), _TOP_BIT
        while isinstance(node, _Inner):
            node, sibling = (node.right, node.left) if number >> bit & 1 else (node.left, node.right)
            siblings.append(_hash_of(sibling))
            bit -= 1
        return tuple(siblings), None if node is None else (node.key.to_bytes(HASH_BYTES), node.content)


def _holds(node: _Node, key: int) -> bool:
    bit = _TOP_BIT
    while isinstance(node, _Inner):
        node = node.right if key >> bit & 1 else node.left
        bit -= 1
    return node is not None and node.key == key
