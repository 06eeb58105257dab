"""Giving memory back when nothing was asked for a while.

One sleeping thread, there only while there is something to drop; it keeps nothing alive that nobody else holds.

Concurrency: safe from any thread; `drop` is called in the timer's own.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class IdleTimer:
    """Calls `drop`, a bound method, once `idle_s` seconds passed since the last `touch`; never where that is 0."""

    def __init__(self, drop: Callable[[], None], idle_s: float) -> None:
        self._drop = weakref.WeakMethod(drop)
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._touched_s = 0.0
        self._timer: threading.Timer | None = None
        # The timer refers to this object only, and this object to what it drops only weakly.
        weakref.finalize(drop.__self__, self.stop).atexit = False  # type: ignore[attr-defined]

    def touch(self) -> None:
        """It is in use: start over."""
        if not self._idle_s:
            return
        with self._lock:
            self._touched_s = time.monotonic()
            if self._timer is None:
                self._start(self._idle_s)

    def stop(self) -> None:
        """Wait no longer; the next `touch` starts again."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _start(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._look)
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        with self._lock:
            if self._timer is not threading.current_thread():
                return  # stopped, and perhaps started again, while this one woke up
            left_s = self._touched_s + self._idle_s - time.monotonic()
            if left_s > 0:
                self._start(left_s)
                return
            self._timer = None
        drop = self._drop()
        if drop is not None:
            drop()


def return_free_memory() -> None:
    """Hand what was freed back to the kernel, where the C library can (malloc_trim(3), glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
