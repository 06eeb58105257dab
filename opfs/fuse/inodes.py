"""Inode numbers of nodes, for as long as the kernel knows them.

One inode per `Node.key` and file type. A number is derived from the key, so it is the same after a forget
and after a restart; a removed or replaced node keeps its number until the kernel forgets it, and a new one
under the same name gets another, as on any disk. Trio thread only; no method blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import ESTALE
from hashlib import blake2b
from typing import TYPE_CHECKING

from opfs.vfs.node import Directory, File

if TYPE_CHECKING:
    from opfs.vfs.node import Node, NodeKey

ROOT = 1
_NUMBER_BYTES = 6


@dataclass(slots=True)
class _Inode:
    node: Node
    lookup_count: int
    open_count: int = 0


class Inodes:
    """The table; `lookup_count` follows the kernel's own count, which only it lowers (forget)."""

    def __init__(self, root: Directory) -> None:
        self._inodes: dict[int, _Inode] = {ROOT: _Inode(root, 1)}
        self._numbers: dict[NodeKey, int] = {root.key: ROOT}

    def __len__(self) -> int:
        return len(self._inodes)

    def node(self, number: int) -> Node:
        """The newest node seen for this inode; raises OSError(ESTALE) for a number that was forgotten."""
        if inode := self._inodes.get(number):
            return inode.node
        raise OSError(ESTALE, f"inode {number} is not known")

    def number_of(self, key: NodeKey) -> int | None:
        return self._numbers.get(key)

    def remember(self, node: Node) -> int:
        """Count one lookup and return the node's number."""
        number = self._numbers.get(node.key)
        if number is not None:
            inode = self._inodes[number]
            if _file_type(inode.node) is _file_type(node):
                inode.node = node
                inode.lookup_count += 1
                return number
        number = self._free_number(node.key)
        self._inodes[number] = _Inode(node, 1)
        self._numbers[node.key] = number
        return number

    def forget(self, number: int, lookup_count: int) -> None:
        inode = self._inodes.get(number)
        if inode is None:
            return
        inode.lookup_count -= lookup_count
        self._drop_if_unused(number, inode)

    def opened(self, number: int) -> None:
        self._inodes[number].open_count += 1

    def released(self, number: int) -> None:
        inode = self._inodes[number]
        inode.open_count -= 1
        self._drop_if_unused(number, inode)

    def is_open(self, number: int) -> bool:
        return number in self._inodes and self._inodes[number].open_count > 0

    def detach(self, key: NodeKey) -> None:
        """The name is gone: whoever has the inode open keeps it, the next node of that name gets its own."""
        self._numbers.pop(key, None)

    def move(self, key: NodeKey, node: Node) -> None:
        """The inode named `key` is now `node`, with its key; what had that name is replaced."""
        number = self._numbers.pop(key, None)
        self.detach(node.key)
        if number is not None:
            self._inodes[number].node = node
            self._numbers[node.key] = number

    def _drop_if_unused(self, number: int, inode: _Inode) -> None:
        if number == ROOT or inode.lookup_count > 0 or inode.open_count > 0:
            return
        del self._inodes[number]
        if self._numbers.get(inode.node.key) == number:
            del self._numbers[inode.node.key]

    def _free_number(self, key: NodeKey) -> int:
        digest = blake2b("/".join(key).encode(), digest_size=_NUMBER_BYTES).digest()
        number = int.from_bytes(digest, "big")
        while number <= ROOT or number in self._inodes:
            number += 1
        return number


def _file_type(node: Node) -> type:
    return next((kind for kind in (Directory, File) if isinstance(node, kind)), type(node))
