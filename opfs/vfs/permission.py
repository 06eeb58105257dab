"""What the owner and mode of a document let a caller do, where the kernel is not there to ask; pure.

The kernel checks every file it opens. What shows a document's content elsewhere (a report over many of them, a plan)
has no such file, and asks here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opfs.ports import FileAttributes
    from opfs.vfs.node import Caller

    Groups = Callable[[Caller], Iterable[int]]
    """The caller's group and supplementary groups."""

READ, WRITE = 0o4, 0o2


def may(caller: Caller, wanted: int, file: FileAttributes, groups: Groups) -> bool:
    """Whether the caller has all the `wanted` permissions (READ, WRITE) of a file. Source: path_resolution(7)."""
    if caller.uid == 0:
        return True
    if caller.uid == file.uid:
        granted = file.mode >> 6
    elif file.gid in groups(caller):
        granted = file.mode >> 3
    else:
        granted = file.mode
    return granted & wanted == wanted
