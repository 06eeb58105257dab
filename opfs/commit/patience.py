"""One at a time for each element, and slower the oftener: against a tug of war with whoever changes the host.

Somebody who flips a setting a hundred times a second shall not fill the chain. Trio thread.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opfs.core.names import ElementId

FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 300.0
MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class _Pause:
    """How long the element has rested since, and must rest before its next turn."""

    until: float
    length_s: float


class Patience:
    """Turns by element: the first is at once, one soon after waits, and twice as long each time."""

    def __init__(self) -> None:
        self._held: set[ElementId] = set()
        self._pauses: dict[ElementId, _Pause] = {}

    @asynccontextmanager
    async def turn(self, id: ElementId) -> AsyncIterator[bool]:
        """Wait for the element's turn and give True; False at once where somebody has it or waits for it."""
        if id in self._held:
            yield False
            return
        self._held.add(id)
        try:
            began = trio.current_time()
            pause = self._pauses.get(id)
            if pause is not None:
                await trio.sleep_until(pause.until)
            yield True
        finally:
            self._held.discard(id)
            is_calm = pause is None or began > pause.until + pause.length_s
            length_s = FIRST_PAUSE_S if is_calm or pause is None else min(2 * pause.length_s, LAST_PAUSE_S)
            self._pauses.pop(id, None)
            self._pauses[id] = _Pause(trio.current_time() + length_s, length_s)
            while len(self._pauses) > MAX_REMEMBERED:
                self._pauses.pop(next(iter(self._pauses)))
