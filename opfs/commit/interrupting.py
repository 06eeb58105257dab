"""Foreign code on the trio thread that does not come back is interrupted there, so that everybody else is served again.

Nothing but an exception can end a function from outside, and nothing but a signal can raise one in it. The signals
are looks at the piece of foreign code that is on: each charges it with the processor time that it used since the last,
or, where it used next to none, with the time that it waited. At ten seconds the handler raises `DidNotReturn` in it.
So a process that is starved, stopped, or in a virtual machine that was, accuses nobody. The looks come from two sides:
from the kernel, by processor time used, since a search for a regular expression lets no other thread run; and from a
thread, since code that waits in a system call uses none. While nothing foreign runs there are none.

A piece is one synchronous call (`watched`), or one step of a task between two points where others get their turn: that
is for tasks that are inside `stepping`, and for those that they start. Only where trio runs in the main thread, as
Python has its signals there; elsewhere, and in worker threads, nothing is interrupted. What loops in a library written
in C without asking for signals cannot be helped.
"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

LIMIT_S = 10.0
LOOK_EVERY_S = 0.5
WAITS_BELOW = 0.01
"""What uses a smaller part of a processor than this waits; what is starved by a hundred others uses more."""

_BY_TIME_USED = signal.SIGVTALRM
_BY_THREAD = signal.SIGPROF
_BETWEEN = ("trio", "contextlib", __name__)
"""In these modules an exception would hit no foreign code, but what is around it."""

_is_foreign: ContextVar[bool] = ContextVar("_is_foreign", default=False)


class DidNotReturn(BaseException):
    """Raised in foreign code that did not come back; no `except Exception` there stops it."""


class _Pieces(trio.abc.Instrument):
    """Which piece of foreign code runs on the main thread, by a number that is not used twice; 0 for none."""

    def __init__(self) -> None:
        self.running = 0
        self._count = 0
        self._seen = 0
        self._looked_at = 0.0
        self._used_s = 0.0
        self._charged_s = 0.0
        self._is_busy = threading.Event()
        self._is_ready = False

    def begin(self) -> None:
        self._count += 1
        self.running = self._count
        if not self._is_busy.is_set():
            self._is_busy.set()

    def end(self) -> None:
        self.running = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.context.get(_is_foreign):
            self.begin()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        del task
        self.running = 0

    def prepare(self) -> None:
        """Have the looks made; called in the main thread."""
        if self._is_ready:
            return
        self._is_ready = True
        for number in (_BY_TIME_USED, _BY_THREAD):
            signal.signal(number, self._look)
        # It may reach any thread of the process, and shall not end a system call there.
        signal.siginterrupt(_BY_TIME_USED, False)
        signal.setitimer(signal.ITIMER_VIRTUAL, LOOK_EVERY_S, LOOK_EVERY_S)
        threading.Thread(target=self._look_on, name="foreign code", daemon=True).start()

    def _look_on(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        while True:
            self._is_busy.wait()
            before = self.running
            time.sleep(LOOK_EVERY_S)
            now = self.running
            if before and now == before:
                signal.pthread_kill(main, _BY_THREAD)
            if not now:
                # A piece that begins after this line sets it again; one that began before is seen by the next.
                self._is_busy.clear()
                if self.running:
                    self._is_busy.set()

    def _look(self, number: int, frame: FrameType | None) -> None:
        del number
        now, used_s = time.monotonic(), time.thread_time()
        if not self.running or self.running != self._seen:
            self._seen, self._looked_at, self._used_s, self._charged_s = self.running, now, used_s, 0.0
            return
        passed_s, worked_s = now - self._looked_at, used_s - self._used_s
        if passed_s < LOOK_EVERY_S:
            return
        self._looked_at, self._used_s = now, used_s
        is_waiting = worked_s < WAITS_BELOW * passed_s
        # Between two looks a process may have been stopped for any time.
        self._charged_s += min(passed_s, 2 * LOOK_EVERY_S) if is_waiting else worked_s
        module = "" if frame is None else str(frame.f_globals.get("__name__", ""))
        is_between = any(module == name or module.startswith(f"{name}.") for name in _BETWEEN)
        if self._charged_s >= LIMIT_S and not is_between:
            raise DidNotReturn


_pieces = _Pieces()


@contextmanager
def watched() -> Iterator[None]:
    """Around a synchronous call of foreign code; raises DidNotReturn where it did not come back."""
    if _pieces.running or threading.current_thread() is not threading.main_thread():
        yield
        return
    _pieces.prepare()
    _pieces.begin()
    try:
        yield
    finally:
        _pieces.end()


@contextmanager
def stepping() -> Iterator[None]:
    """Around awaiting foreign code: each step of this task, and of those that it starts, is watched."""
    if threading.current_thread() is threading.main_thread():
        _pieces.prepare()
        trio.lowlevel.add_instrument(_pieces)
    token = _is_foreign.set(True)
    try:
        with watched():  # the step that is under way
            yield
    finally:
        _is_foreign.reset(token)
