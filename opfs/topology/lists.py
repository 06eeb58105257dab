"""Lists of processors and nodes as the kernel writes them: "0-3,8,10-11". No I/O.

Source: the kernel's admin-guide/cputopology and core-api/printk-formats (%*pbl).
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_NUMBER = 1 << 16
"""Linux knows 8192 processors and 1024 nodes at most; more is not from a kernel."""

_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?\Z", re.ASCII)


def parse_list(text: str) -> frozenset[int]:
    """The numbers of a list; an empty one has none. Raises ValueError for what is no list."""
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        match = _RANGE.match(part)
        first = int(match[1]) if match else -1
        last = int(match[2]) if match and match[2] else first
        if not 0 <= first <= last < MAX_NUMBER:
            raise ValueError(f"{part[:20]!r} in a list of numbers")
        numbers.update(range(first, last + 1))
    return frozenset(numbers)


def format_list(numbers: Iterable[int]) -> str:
    """The shortest list of these numbers; "none" where there is none."""
    ordered = sorted(numbers)
    starts = [ordered[0]] if ordered else []
    ends = []
    for before, number in pairwise(ordered):
        if number != before + 1:
            ends.append(before)
            starts.append(number)
    ends += ordered[-1:]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)) or "none"
