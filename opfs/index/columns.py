"""What a search needs of every event, in memory: its vector's row and who may read it.

Eight bytes an event. Few distinct owners, groups and modes occur, so events refer to them by number and the
permission check is made once per distinct triple, not once per event. Does no I/O.

Concurrency: one thread appends; the arrays that it hands out are never changed afterwards, so any number of
threads may go on using them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from opfs.core.ranking import readable_by

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray


class GrowingColumn:
    """An array of uint32 that grows at its end in amortised constant time."""

    def __init__(self) -> None:
        self._values = np.empty(1024, dtype=np.uint32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, values: Sequence[int] | NDArray[np.uint32]) -> None:
        end = self._count + len(values)
        if end > len(self._values):
            grown = np.empty(max(end, 2 * len(self._values)), dtype=np.uint32)
            grown[: self._count] = self._values[: self._count]
            self._values = grown
        # Behind every view handed out so far: those end at or before the old count.
        self._values[self._count : end] = values
        self._count = end

    def view(self) -> NDArray[np.uint32]:
        return self._values[: self._count]


class AccessTable:
    """The distinct (uid, gid, mode) of the index, numbered in order of appearance. Immutable."""

    def __init__(self, triples: Sequence[tuple[int, int, int]] = ()) -> None:
        self.triples = tuple(triples)
        self._numbers = {triple: number for number, triple in enumerate(self.triples)}
        columns = np.array(self.triples, dtype=np.int64).reshape(-1, 3)
        self._uids = columns[:, 0].astype(np.uint32)
        self._gids = columns[:, 1].astype(np.uint32)
        self._modes = columns[:, 2].astype(np.uint16)

    def number(self, triple: tuple[int, int, int]) -> int:
        return self._numbers[triple]

    def including(self, triples: Collection[tuple[int, int, int]]) -> AccessTable:
        """This table, or a longer one with the new triples after the old ones."""
        new = [triple for triple in dict.fromkeys(triples) if triple not in self._numbers]
        return AccessTable((*self.triples, *new)) if new else self

    def readable(self, numbers: NDArray[np.uint32], uid: int, gids: Collection[int]) -> NDArray[np.bool_] | None:
        """Which events, given by their triples' numbers, the user may read; None means all."""
        if uid == 0:
            return None
        allowed = readable_by(uid, gids, uids=self._uids, groups=self._gids, modes=self._modes)
        return None if allowed.all() else allowed[numbers]
