"""Two lanes to one model: queries, which somebody waits for, and bulk, which goes on when no query is there.

Bulk work asks for a place before each batch and gets none while a query runs or waits, so a query shares the
processor with the batches that were already under way and with nothing else. A lane holds `width` runs at a time:
that bounds the memory, since every run needs some of its own. Computes nothing.

Concurrency: safe from any thread; waiting blocks the thread.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 0.5
"""Bulk work that was kept waiting for so long gets its turn: queries without end must not stop the index."""


class Lanes:
    """Who may run now."""

    def __init__(self, width: int, *, patience_s: float = PATIENCE_S) -> None:
        self._width = width
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._queries = 0
        """Queries that run or wait for a place of their lane."""
        self._running_queries = 0
        self._running_bulk = 0

    @contextmanager
    def query(self) -> Iterator[None]:
        """Run now, or as soon as fewer than `width` queries run."""
        with self._changed:
            self._queries += 1
            self._changed.wait_for(lambda: self._running_queries < self._width)
            self._running_queries += 1
        try:
            yield
        finally:
            with self._changed:
                self._queries -= 1
                self._running_queries -= 1
                self._changed.notify_all()

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """Run one batch when no query is there, or when patience ends."""
        with self._changed:
            self._changed.wait_for(lambda: not self._queries, timeout=self._patience_s)
            self._changed.wait_for(lambda: self._running_bulk < self._width)
            self._running_bulk += 1
        try:
            yield
        finally:
            with self._changed:
                self._running_bulk -= 1
                self._changed.notify_all()
