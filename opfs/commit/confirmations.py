"""Confirmations of destructive changes: granted once, used once, forgotten after five minutes.

In memory on purpose: a confirmation must not outlive the person who looked. Trio thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opfs.core.names import ElementId
    from opfs.ports import Clock

VALID_NS = 300 * 1_000_000_000
MAX_PENDING = 10_000


class Confirmations:
    """Which user confirmed which change of which element, and until when."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._expiry_ns: dict[tuple[str, ElementId, int], int] = {}

    def grant(self, op: str, id: ElementId, uid: int) -> None:
        """Let `uid` do one destructive `op` (`delete` or `update`) on `id` within five minutes."""
        now_ns = self._clock.now_ns()
        self._expiry_ns = {key: expiry for key, expiry in self._expiry_ns.items() if expiry > now_ns}
        while len(self._expiry_ns) >= MAX_PENDING:
            self._expiry_ns.pop(next(iter(self._expiry_ns)))
        self._expiry_ns[op, id, uid] = now_ns + VALID_NS

    def has(self, op: str, id: ElementId, uid: int) -> bool:
        """Whether there is a confirmation that `use` would consume."""
        return self._expiry_ns.get((op, id, uid), 0) > self._clock.now_ns()

    def use(self, op: str, id: ElementId, uid: int) -> bool:
        """Consume the confirmation; False where there is none or it is too old."""
        return self._expiry_ns.pop((op, id, uid), 0) > self._clock.now_ns()
