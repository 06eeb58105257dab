"""The root of the mount: what is there is decided by whoever starts the daemon.

Adds nothing to a fixed directory but the check that every node sits where its key says, because the key
is its identity for the kernel. No I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.vfs.generated import FixedDirectory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opfs.vfs.node import Node


def make_root(nodes: Iterable[Node], *, time_ns: int = 0) -> FixedDirectory:
    """The root directory with `nodes` in it, in the order that a listing shows; names are the nodes' keys."""
    by_name: dict[str, Node] = {}
    for node in nodes:
        (name,) = node.key
        if name in by_name:
            raise ValueError(f"two nodes are called {name}")
        by_name[name] = node
    return FixedDirectory((), by_name, time_ns=time_ns)
