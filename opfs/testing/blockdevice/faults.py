"""Which requests to a disk fail, and how: rules and the counting that picks requests. Pure, no I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

Operation = Literal["read", "write", "flush"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Requests that go wrong.

    Of the requests of this `operation` (None: all) that touch bytes from `start` up to, not including, `end`
    (None: the end of the disk; flushes touch everything), the first `skip` are left alone and the next `count`
    (None: all that follow) fail with `errno`. Without `errno` they wait until the fault is cleared, and are then
    carried out. With `persists` a write that fails is on the disk all the same.
    """

    operation: Operation | None = None
    errno: int | None = None
    skip: int = 0
    count: int | None = None
    start: int = 0
    end: int | None = None
    persists: bool = False

    def touches(self, operation: Operation, offset: int, length: int) -> bool:
        if self.operation not in (None, operation):
            return False
        return operation == "flush" or (offset + length > self.start and (self.end is None or offset < self.end))


class FaultTable:
    """The faults in force, each with the number of requests it has seen. Not thread-safe."""

    def __init__(self) -> None:
        self._faults: dict[int, Fault] = {}
        self._seen: Counter[int] = Counter()
        self._next = 1
        self.requests: Counter[str] = Counter()
        """How many requests of each operation there were."""
        self.hits: Counter[int] = Counter()
        """How many requests each fault has hit, also those of cleared faults."""

    def add(self, fault: Fault) -> int:
        """Put a fault in force; returns its number."""
        number, self._next = self._next, self._next + 1
        self._faults[number] = fault
        return number

    def clear(self, number: int | None = None) -> None:
        """Take one fault back, or all of them."""
        if number is None:
            self._faults.clear()
        else:
            self._faults.pop(number, None)

    def is_in_force(self, number: int) -> bool:
        return number in self._faults

    def judge(self, operation: Operation, offset: int = 0, length: int = 0) -> tuple[int, Fault] | None:
        """Count a request and say which fault hits it, the oldest if there are several."""
        self.requests[operation] += 1
        hit = None
        for number, fault in self._faults.items():
            if not fault.touches(operation, offset, length):
                continue
            self._seen[number] += 1
            passed = self._seen[number] - fault.skip
            if hit is None and passed > 0 and (fault.count is None or passed <= fault.count):
                hit = number, fault
                self.hits[number] += 1
        return hit
