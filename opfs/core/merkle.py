"""The Merkle tree of RFC 6962, section 2.1, over SHA-256: roots, proofs, their verification, append; pure.

Whoever holds a tree hands it in as a `Nodes`: a function that gives the hash of one complete subtree. So proofs
come from leaves in memory and from tiles on a disk alike, and ask for O(log n) hashes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from opfs.errors import IntegrityError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

Nodes = Callable[[int, int], bytes]
"""`nodes(level, index)`: the hash over the leaves [index · 2^level, (index + 1) · 2^level), all of which exist."""


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def tree_root(entries: Sequence[bytes]) -> bytes:
    """MTH(entries), 32 bytes; of no entries it is the hash of the empty string."""
    return root_of_hashes([leaf_hash(entry) for entry in entries])


def root_of_hashes(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, or over any row of nodes of one level of which only the last may be incomplete.

    Works level by level: a lone last node moves up unchanged, which gives the same tree as the RFC's
    split at the largest power of two below n.
    """
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    while len(level) > 1:
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def nodes_of_hashes(hashes: Sequence[bytes]) -> Nodes:
    """The `Nodes` of a tree whose leaf hashes are all at hand; each call hashes its subtree anew."""

    def nodes(level: int, index: int) -> bytes:
        return root_of_hashes(hashes[index << level : (index + 1) << level])

    return nodes


# --- proofs --------------------------------------------------------------------------------------------


def root_at(size: int, nodes: Nodes) -> bytes:
    """The root of the first `size` leaves."""
    return _range_root(0, size, nodes) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """PATH(index, D[0:size]), the leaf's sibling first; raises InvalidRequest for a leaf that is not in the tree."""
    if not 0 <= index < size:
        raise InvalidRequest(f"a tree of {size} leaves has no leaf {index}")
    proof = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_range_root(middle, end, nodes))
            end = middle
        else:
            proof.append(_range_root(start, middle, nodes))
            start = middle
    return proof[::-1]


def consistency_proof(old_size: int, new_size: int, nodes: Nodes) -> list[bytes]:
    """PROOF(old_size, D[0:new_size]); empty where either tree is empty or they are one.

    Raises InvalidRequest where the old tree is larger than the new one.
    """
    if not 0 <= old_size <= new_size:
        raise InvalidRequest(f"a tree of {new_size} leaves has no earlier state of {old_size}")
    if old_size in (0, new_size):
        return []
    proof = []
    start, end = 0, new_size
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            proof.append(_range_root(middle, end, nodes))
            end = middle
        else:
            proof.append(_range_root(start, middle, nodes))
            start = middle
    if start != 0:
        proof.append(_range_root(start, end, nodes))
    return proof[::-1]


def _split(count: int) -> int:
    """The largest power of two below `count`, which is at least 2."""
    return 1 << (count - 1).bit_length() - 1


def _range_root(start: int, end: int, nodes: Nodes) -> bytes:
    """MTH(D[start:end]) of a subtree: `start` is a multiple of the power of two not below the length."""
    root: bytes | None = None
    for level, index in reversed(list(_complete_subtrees(start, end))):
        node = nodes(level, index)
        root = node if root is None else node_hash(node, root)
    if root is None:
        raise ValueError(f"[{start}, {end}) is no range of leaves")
    return root


def _complete_subtrees(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The (level, index) of the complete subtrees that a range which is a subtree is made of, largest first."""
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


# --- verification --------------------------------------------------------------------------------------


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that a leaf hash and its proof lead to (RFC 9162, section 2.1.3.2).

    Raises IntegrityError for a proof of the wrong length. Whoever trusts the root compares it.
    """
    if not 0 <= index < size:
        raise IntegrityError(f"a tree of {size} leaves has no leaf {index}")
    _check_hashes([leaf, *proof])
    node, last, root = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise IntegrityError("the inclusion proof is too long")
        if node & 1 or node == last:
            root = node_hash(sibling, root)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            root = node_hash(root, sibling)
        node >>= 1
        last >>= 1
    if last != 0:
        raise IntegrityError("the inclusion proof is too short")
    return root


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise IntegrityError unless the proof shows that `leaf` (a leaf hash) is number `index` below `root`."""
    if root_from_inclusion(leaf, index, size, proof) != root:
        raise IntegrityError(f"the inclusion proof of leaf {index} does not lead to the root of {size} leaves")


def check_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raise IntegrityError unless the old tree is proved to be a beginning of the new one (RFC 9162, 2.1.4.2).

    Everything begins with the empty tree, which needs no proof and must have the empty tree's root.
    """
    if not 0 <= old_size <= new_size:
        raise IntegrityError(f"a tree of {new_size} leaves is not later than one of {old_size}")
    _check_hashes([old_root, new_root, *proof])
    if old_size in (0, new_size):
        if proof:
            raise IntegrityError("the consistency proof should be empty")
        if old_size == 0 and old_root != EMPTY_ROOT:
            raise IntegrityError("the root of the empty tree is not that of an empty tree")
        if old_size == new_size and old_root != new_root:
            raise IntegrityError(f"there are two roots for one tree of {new_size} leaves")
        return
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise IntegrityError("the consistency proof is empty")
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node >>= 1
        last >>= 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise IntegrityError("the consistency proof is too long")
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        node >>= 1
        last >>= 1
    if last != 0:
        raise IntegrityError("the consistency proof is too short")
    if old != old_root:
        raise IntegrityError(f"the consistency proof does not lead to the old root, of {old_size} leaves")
    if new != new_root:
        raise IntegrityError(f"the consistency proof does not lead to the new root, of {new_size} leaves")


def _check_hashes(hashes: Iterable[bytes]) -> None:
    if any(len(item) != HASH_BYTES for item in hashes):
        raise IntegrityError(f"a hash of a proof is not {HASH_BYTES} bytes long")


# --- appending -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that appending needs of a tree: the roots of its complete subtrees, largest first. Never changed."""

    size: int = 0
    subtrees: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, size: int, nodes: Nodes) -> Frontier:
        """The frontier of the first `size` leaves."""
        return cls(size, tuple(nodes(level, index) for level, index in _complete_subtrees(0, size)))

    @property
    def root(self) -> bytes:
        root = b""
        for subtree in reversed(self.subtrees):
            root = node_hash(subtree, root) if root else subtree
        return root or EMPTY_ROOT

    def with_leaf(self, leaf: bytes) -> Frontier:
        """The frontier after appending one leaf hash: amortised two hashes."""
        node, subtrees, size = leaf, list(self.subtrees), self.size
        while size & 1:
            node = node_hash(subtrees.pop(), node)
            size >>= 1
        return Frontier(self.size + 1, (*subtrees, node))
