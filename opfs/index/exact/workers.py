"""Several threads on one search: numpy lets others run while it computes, so two cores give twice the speed.

The calling thread works too. A search that finds the helpers busy with another one does all of its work alone, so
searches never wait for one another. BLAS must not start threads of its own beside these: callers use what does not
(`numpy.vecdot` over short rows). Makes no decisions about processors; the process' affinity holds for its threads.

Thread-safe.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

Item = TypeVar("Item")
One = TypeVar("One")
Other = TypeVar("Other")


class Workers:
    """`count` threads, one of them the caller's own."""

    def __init__(self, count: int) -> None:
        self._helper_count = max(count, 1) - 1
        # Threads are started when they are first needed.
        self._helpers = ThreadPoolExecutor(max(self._helper_count, 1), thread_name_prefix="vector-search")

    def run(self, begin: Callable[[], Callable[[Item], None]], items: Iterable[Item]) -> None:
        """Do every item with what `begin` returns; `begin` is called once per thread, to have buffers of its own.

        Raises what the work raises; what is under way in other threads is finished first, the rest left undone.
        """
        left = deque(items)

        def drain() -> None:
            work = begin()
            try:
                while True:
                    try:
                        item = left.popleft()
                    except IndexError:
                        return
                    work(item)
            except BaseException:
                left.clear()
                raise

        wanted = min(self._helper_count, len(left) - 1)
        helping: list[Future[None]] = []
        # A search that began before `close` goes on alone, and so does one that finds no room for a thread.
        with suppress(RuntimeError):
            helping.extend(self._helpers.submit(drain) for _ in range(wanted))
        try:
            drain()
        finally:
            # What has not begun by now would find nothing to do.
            begun = [future for future in helping if not future.cancel()]
            errors = [future.exception() for future in begun]
        for error in errors:
            if error is not None:
                raise error

    def both(self, one: Callable[[], One], other: Callable[[], Other]) -> tuple[One, Other]:
        """What both return, side by side where a thread is free; raises what either raises."""
        tasks: list[Callable[[], Any]] = [one, other]
        found: list[Any] = [None, None]

        def work(number: int) -> None:
            found[number] = tasks[number]()

        self.run(lambda: work, range(2))
        return found[0], found[1]

    def close(self) -> None:
        self._helpers.shutdown()
