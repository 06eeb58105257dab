"""How long operations take, told to whoever counts: two looks at the clock for each, and nothing where nobody counts.

The names are the original proposal's, and opfs' own after them. Any thread; `tell` is quick and does not raise.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

HASH, SNAPSHOT, VECTORIZE, ANCHOR, VERIFY, MIGRATE = "hash", "snapshot", "vectorize", "anchor", "verify", "migrate"
COMMIT, ACKNOWLEDGE, APPLY, OBSERVE, SEARCH = "commit", "acknowledge", "apply", "observe", "search"

OPERATIONS: Final = {
    HASH: "the hashes of a block: documents, events, state tree, header",
    SNAPSHOT: "writing the layer and taking the btrfs snapshot",
    VECTORIZE: "turning texts into vectors",
    ANCHOR: "appending a block to the log and signing it",
    VERIFY: "looking at the host after an action, and comparing",
    MIGRATE: "moving blocks between tiers, of which there is one so far",
    COMMIT: "a block, from outcomes to durable and signed",
    ACKNOWLEDGE: "events made durable in the journal, where blocks are made at intervals",
    APPLY: "one action of a plugin, or many that it does together",
    OBSERVE: "one look of a plugin at the host before a plan",
    SEARCH: "one search",
}
"""Every operation that is timed, and what it is."""


class Timings:
    """`with timings(COMMIT):` tells how long its block took, also where that raised."""

    def __init__(self, tell: Callable[[str, float], None] = lambda operation, seconds: None) -> None:
        self.tell = tell

    def __call__(self, operation: str) -> _Span:
        return _Span(self, operation)


class _Span:
    __slots__ = ("_operation", "_started", "_timings")

    def __init__(self, timings: Timings, operation: str) -> None:
        self._timings = timings
        self._operation = operation

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._timings.tell(self._operation, time.perf_counter() - self._started)
