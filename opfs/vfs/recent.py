"""What each user searched for lately, for the listings of /search; only that user sees it.

Bounded for each directory and over all. Trio thread only.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.vfs.node import NodeKey

RECENT_PER_DIRECTORY = 20
RECENT_DIRECTORIES = 1000
"""Of all users together."""


class RecentQueries:
    """The last names used in each directory, newest first."""

    def __init__(self) -> None:
        self._names: OrderedDict[tuple[int, NodeKey], OrderedDict[str, None]] = OrderedDict()

    def add(self, uid: int, key: NodeKey) -> None:
        """A query of that path was answered: each of its names is known in its directory from now on."""
        for depth in range(1, len(key)):
            self._add(uid, key[:depth], key[depth])

    def names(self, uid: int, key: NodeKey) -> Sequence[str]:
        return list(self._names.get((uid, key), ()))

    def _add(self, uid: int, key: NodeKey, name: str) -> None:
        names = self._names.setdefault((uid, key), OrderedDict())
        self._names.move_to_end((uid, key))
        names[name] = None
        names.move_to_end(name, last=False)
        if len(names) > RECENT_PER_DIRECTORY:
            names.popitem()
        if len(self._names) > RECENT_DIRECTORIES:
            self._names.popitem(last=False)
