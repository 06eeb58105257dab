"""How far the search index is behind, as the line of /status says it; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(r"(?P<indexed>\d+) events, (?P<words>\d+) behind(?:; by meaning (?P<meaning>\d+) behind)?")


@dataclass(frozen=True, slots=True)
class IndexLag:
    """Events that can be found by words, those that cannot yet, and those that cannot be found by meaning yet."""

    indexed: int
    words: int
    meaning: int

    def __str__(self) -> str:
        line = f"{self.indexed} events, {self.words} behind"
        return f"{line}; by meaning {self.meaning} behind" if self.meaning else line


def parse_lag(line: str) -> IndexLag | None:
    """What the line says; None for one that says something else, such as why the index stands still."""
    found = _LINE.fullmatch(line)
    return IndexLag(*(int(number or 0) for number in found.groups())) if found else None
