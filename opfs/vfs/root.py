"""The root of the mount: what is there is decided by whoever starts the daemon.

Adds to a fixed directory the check that every node sits where its key says, because the key is its identity for the
kernel, and names that are another node for every caller. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from opfs.vfs.generated import FixedDirectory

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opfs.vfs.node import Caller, Node


class Family(Protocol):
    """Names at the top that are another node for every caller."""

    @property
    def listed(self) -> Sequence[str]:
        """Those that a listing shows."""
        ...

    def find(self, name: str, caller: Caller) -> Node | None:
        """The caller's node, None where the name is not of this family."""
        ...


@dataclass(slots=True)
class Root(FixedDirectory):
    """The fixed nodes, then the families."""

    families: Sequence[Family]

    async def lookup(self, name: str, caller: Caller) -> Node:
        if name not in self.nodes:
            for family in self.families:
                if (found := family.find(name, caller)) is not None:
                    return found
        return await FixedDirectory.lookup(self, name, caller)

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        found = ((name, family.find(name, caller)) for family in self.families for name in family.listed)
        return [*self.nodes.items(), *((name, node) for name, node in found if node is not None)]


def make_root(nodes: Iterable[Node], families: Sequence[Family] = (), *, time_ns: int = 0) -> Root:
    """The root directory with `nodes` in it, in the order that a listing shows; names are the nodes' keys."""
    by_name: dict[str, Node] = {}
    for node in nodes:
        (name,) = node.key
        if name in by_name:
            raise ValueError(f"two nodes are called {name}")
        by_name[name] = node
    return Root((), by_name, families, time_ns=time_ns)
