"""The keys an object may have by its schema: how to list them, and which of them a misspelt key meant; pure.

Keys that differ by a number only (net0, net1, or a pattern such as ^net[0-9]$) are one family, listed as
net0…net9.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opfs.core.printable import ELLIPSIS, clip, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LISTED = 24
_LONGEST_COMPARED = 100  # difflib is quadratic
_NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]*)\Z")
# What plugins write for numbered keys: ^net[0-9]$, ^(net|mp)\d+$, ^eth[0-9]{1,2}$, ^mp(0|[1-9][0-9]*)$
_NUMBERED_PATTERN = re.compile(
    r"\^\(?(?:\?:)?(?P<stems>[A-Za-z_-]+(?:\|[A-Za-z_-]+)*)\)?"
    r"(?P<digits>\[0-9\]|\\d|\((?:\?:)?0\|\[1-9\]\[0-9\](?:\*|\{[0-9,]+\})\)|\[1-9\]\[0-9\]\*)"
    r"(?P<count>[+*?]|\{[0-9]+(?:,[0-9]*)?\})?\$\Z"
)


@dataclass(slots=True)
class KnownKeys:
    """The keys of one level: names, families of numbered names, and patterns that are neither."""

    names: list[str] = field(default_factory=list)
    families: list[tuple[str, re.Pattern[str], str]] = field(default_factory=list)
    """Stem, what a key of the family matches, and how the family is listed."""
    patterns: list[str] = field(default_factory=list)

    def add(self, schema: Mapping[str, Any]) -> None:
        """Take in `properties` and `patternProperties` of a schema, but for what only the host may report."""
        for name, rule in schema.get("properties", {}).items():
            may_write = rule is not False and not (isinstance(rule, dict) and rule.get("readOnly"))
            if may_write and name not in self.names:
                self.names.append(name)
        for pattern in schema.get("patternProperties", {}):
            families = list(families_of(pattern))
            self.families.extend(families)
            if not families:
                self.patterns.append(pattern)

    def nearest(self, key: str) -> str | None:
        """The known key that `key` looks like a misspelling of, if any does."""
        if len(key) > _LONGEST_COMPARED:
            return None
        candidates = {_plain(name): name for name in reversed(self.names)}
        stem, number = split_number(key)
        for family_stem, pattern, listed in self.families:
            own = f"{family_stem}{number}"
            candidates.setdefault(_plain(family_stem + number), own if pattern.match(own) else listed)
        for wanted in (_plain(key), _plain(stem)):  # hostname1 may have meant hostname
            if close := difflib.get_close_matches(wanted, candidates, n=1, cutoff=0.7):
                return candidates[close[0]]
            if longer := [name for plain, name in candidates.items() if len(wanted) > 2 and plain.startswith(wanted)]:
                return min(longer, key=len)  # mem may have meant memory
        return None

    def listing(self) -> str:
        """All of them in a line, the longest lists cut short; empty where no key is allowed."""
        items = [*_collapse(self.names), *(listed for _, _, listed in self.families)]
        items += [f"keys that match {clip(printable(pattern), 60)}" for pattern in self.patterns]
        extra = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
        return ", ".join(items[:_LISTED]) + extra


def _plain(key: str) -> str:
    """A key without the differences of style: memoryLimit, memory_limit and Memory-Limit are one."""
    return re.sub(r"[_\-. ]", "", key).lower()


def split_number(key: str) -> tuple[str, str]:
    """The stem and the number of a key such as net0; "0" where it has none."""
    match = _NUMBERED.match(key)
    return (match[1], match[2]) if match else (key, "0")


def families_of(pattern: str) -> Iterable[tuple[str, re.Pattern[str], str]]:
    """Of a pattern for numbered keys, each stem, what matches its keys, and how they are listed."""
    match = _NUMBERED_PATTERN.match(pattern)
    if match is None:
        return
    compiled = re.compile(pattern)
    for stem in match["stems"].split("|"):
        numbers = [number for number in (0, 1, 9, 99, 999) if compiled.match(f"{stem}{number}")]
        if not numbers:
            continue
        last = "" if numbers[-1] == 999 else f"{stem}{numbers[-1]}"
        yield stem, compiled, f"{stem}{numbers[0]}{ELLIPSIS}{last}"


def _collapse(names: list[str]) -> Iterable[str]:
    """The names in their order, with a run of numbered ones (net0, net1, net2) as net0…net2."""
    index = 0
    while index < len(names):
        stem, number = split_number(names[index])
        end = index + 1
        if names[index].endswith(number):
            while end < len(names) and names[end] == f"{stem}{int(number) + end - index}":
                end += 1
        if end - index > 2:
            yield f"{printable(names[index])}{ELLIPSIS}{printable(names[end - 1])}"
        else:
            yield from map(printable, names[index:end])
        index = end
