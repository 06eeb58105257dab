"""Which blocks keep their snapshots; pure.

A pruned block loses nothing but its snapshot: its events and documents are in the archive and read as before. So
retention is about the cost of snapshots, which grows with their number, and not about what is remembered.

Where the pool has less room than it shall have, what is kept only for its hour, day, week or quarter goes as well, the
oldest first.

Kept are the newest blocks, those that have a label, and for each of the last hours, days, weeks and quarters in which
there were blocks the last one of it: the rule of the original proposal (heritage.md). Periods are those of UTC; weeks
begin on Monday.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from opfs.core.timestamp import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from opfs.core.names import BlockName


_PERCENT = re.compile(r"(\d{1,2}(?:\.\d{1,3})?)\s*%\Z", re.ASCII)
_BYTES = re.compile(r"(\d{1,12})\s*([KMGT]?)(?:i?B)?\Z", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MinFree:
    """How much room a pool shall have left: so many bytes, or this part of it in percent; nothing for none."""

    size_bytes: int = 0
    percent: float = 0.0

    @classmethod
    def parse(cls, text: str) -> MinFree:
        """Read `10%`, `2G` or a number of bytes; raises ValueError with what would be right."""
        if match := _PERCENT.match(text.strip()):
            return cls(percent=float(match[1]))
        if match := _BYTES.match(text.strip()):
            return cls(int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2].upper()])
        raise ValueError("give a part of the pool, e.g. 10%, or a size, e.g. 2G, or 0 for none")

    def of(self, total_bytes: int) -> int:
        """In bytes, of a pool that large."""
        return self.size_bytes + int(total_bytes * self.percent / 100)

    def __str__(self) -> str:
        return f"{self.percent:g}%" if self.percent else str(self.size_bytes)


@dataclass(frozen=True, slots=True)
class Retention:
    """How many of each keep their snapshots; 0 for none. `newest` is at least 1: HEAD has to have its own."""

    newest: int = 100
    hourly: int = 5
    daily: int = 5
    weekly: int = 5
    quarterly: int = 5
    min_free: MinFree = MinFree()


RULE, ROOM = "rule", "room"
"""Why a snapshot goes: no rule keeps it, or its room is needed."""


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """`kept` says of each block why; `pruned` are the others, lowest first; but for room, `for_room` would be kept."""

    kept: Mapping[BlockName, str]
    pruned: Sequence[BlockName]
    for_room: frozenset[BlockName] = field(default_factory=frozenset)

    @property
    def spare(self) -> Sequence[BlockName]:
        """What may still go where room is needed, the oldest first: neither labelled nor among the newest."""
        return sorted(block for block, why in self.kept.items() if why not in (NEWEST, LABELLED))

    def without(self, blocks: Sequence[BlockName]) -> RetentionPlan:
        """The same plan, but some of `spare` go for their room."""
        going = self.for_room.union(blocks)
        kept = {block: why for block, why in self.kept.items() if block not in going}
        return RetentionPlan(kept, sorted({*self.pruned, *blocks}), going)

    def why_pruned(self, block: BlockName) -> str:
        return ROOM if block in self.for_room else RULE


def _hour(moment: datetime) -> object:
    return moment.year, moment.month, moment.day, moment.hour


def _day(moment: datetime) -> object:
    return moment.year, moment.month, moment.day


def _week(moment: datetime) -> object:
    return moment.isocalendar()[:2]


def _quarter(moment: datetime) -> object:
    return moment.year, (moment.month - 1) // 3


NEWEST, LABELLED = "newest", "labelled"
_PERIODS: tuple[tuple[str, Callable[[datetime], object]], ...] = (
    ("hourly", _hour),
    ("daily", _day),
    ("weekly", _week),
    ("quarterly", _quarter),
)


def plan_retention(
    blocks: Sequence[BlockName],
    time_ns: Callable[[BlockName], int],
    labelled: Collection[BlockName],
    retention: Retention,
) -> RetentionPlan:
    """What to keep of `blocks`, lowest first, which all have snapshots; the last one is HEAD."""
    newest = max(1, retention.newest)
    kept = dict.fromkeys(blocks[-newest:], NEWEST)
    kept |= dict.fromkeys((block for block in blocks if block in labelled), LABELLED)
    wanted = {name: getattr(retention, name) for name, _ in _PERIODS}
    seen: dict[str, set[object]] = {name: set() for name, _ in _PERIODS}
    for block in reversed(blocks):
        if not any(wanted.values()):
            break
        moment = datetime.fromtimestamp(time_ns(block) // NS_PER_S, UTC)
        for name, period_of in _PERIODS:
            period = period_of(moment)
            if wanted[name] and period not in seen[name]:
                seen[name].add(period)
                wanted[name] -= 1
                kept.setdefault(block, name)
    return RetentionPlan(kept, [block for block in blocks if block not in kept])


def describe_kept(plan: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """For people: of the entries of /chain/.retention, how many snapshots are kept for which reason."""
    reasons = [NEWEST, LABELLED, *(name for name, _ in _PERIODS)]
    counts = [(f"kept, {reason}", sum(entry["why"] == reason for entry in plan)) for reason in reasons]
    return [(text, count) for text, count in counts if count]


def describe_pruned(plan: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """For people: of the entries of /chain/.retention, how many snapshots would go for which reason."""
    going = [entry["why"] for entry in plan if entry["snapshot"] == "prune"]
    counts = [("to go, no rule keeps it", going.count(RULE)), ("to go, oldest first, for room", going.count(ROOM))]
    return [(text, count) for text, count in counts if count]
