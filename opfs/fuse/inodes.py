"""Inode numbers of nodes, for as long as the kernel knows them.

One inode per `Node.key` and file type. A number is derived from the key, so it is the same after a forget
and after a restart; a removed or replaced node keeps its number until the kernel forgets it, and a new one
under the same name gets another, as on any disk. Trio thread only; no method blocks.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from errno import ESTALE
from hashlib import blake2b
from typing import TYPE_CHECKING

from opfs.vfs.node import Directory, File

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opfs.vfs.node import Node, NodeKey

ROOT = 1
MAX_FLEETING = 4096
"""Inodes of names that anybody may think of; some 3 MB."""
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
        self._fleeting: OrderedDict[int, None] = OrderedDict()
        """Those that may have to go, looked up longest ago first."""
        self.on_crowd: Callable[[], None] = lambda: None
        """Called when there are too many of them: `take_surplus` says which."""

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
        inode = self._inodes[number] if number is not None else None
        if number is not None and inode is not None and _file_type(inode.node) is _file_type(node):
            inode.node = node
            inode.lookup_count += 1
        else:
            number = self._free_number(node.key)
            self._inodes[number] = _Inode(node, 1)
            self._numbers[node.key] = number
        if node.cache.is_fleeting:
            self._note_fleeting(number, node)
        return number

    def take_surplus(self) -> Sequence[tuple[int, bytes]]:
        """Directories and names of what the kernel is to forget, beyond half of MAX_FLEETING: looked up longest ago
        and not open. Each is named once, until it is looked up again."""
        surplus = []
        for number in list(self._fleeting)[: len(self._fleeting) - MAX_FLEETING // 2]:
            inode = self._inodes[number]
            if inode.open_count:
                self._fleeting.move_to_end(number)
                continue
            del self._fleeting[number]
            parent = self._numbers.get(inode.node.shown[:-1])
            if parent is not None:
                surplus.append((parent, inode.node.shown[-1].encode()))
        return surplus

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

    def exchange(self, first: Node, second: Node) -> None:
        """Two inodes have changed names: the nodes are those that the names stand for now."""
        numbers = self._numbers.pop(second.key, None), self._numbers.pop(first.key, None)
        for number, node in zip(numbers, (first, second), strict=True):
            if number is not None:
                self._inodes[number].node = node
                self._numbers[node.key] = number

    def _note_fleeting(self, number: int, node: Node) -> None:
        parent = self._numbers.get(node.shown[:-1])
        if parent is not None and parent in self._fleeting:
            self._fleeting.move_to_end(parent)  # it may be somebody's current directory, and is not looked up itself
        self._fleeting[number] = None
        self._fleeting.move_to_end(number)
        if len(self._fleeting) > MAX_FLEETING:
            self.on_crowd()

    def _drop_if_unused(self, number: int, inode: _Inode) -> None:
        if number == ROOT or inode.lookup_count > 0 or inode.open_count > 0:
            return
        del self._inodes[number]
        self._fleeting.pop(number, None)
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
