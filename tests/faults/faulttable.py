"""The fault table: which scripts are played on which pools, and what goes wrong at which of their points.

A point is a system call that changes something (opfs.testing.tracing). `rows_of` makes the rows of one run from its
points; `play_all` plays rows on several stages at a time. The whole table is `scripts/bench faults`; what CI plays
leaves out only what it has played at the same point before.
"""

from __future__ import annotations

import errno
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

from opfs.testing.tracing import SPENDING, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rows import Row, Stage

RUNS = (
    ("used", "write"),
    ("used", "together"),
    ("used", "fail"),
    ("used", "wait"),
    ("used", "attributes"),
    ("half", "index"),
    ("used", "refuse"),
    ("used", "draft"),
    ("used", "rotate"),
    ("used", "prune"),
    ("used", "truncate"),
    ("used", "hold"),
    ("used", "compact"),
    ("half", "start"),
    ("done", "start"),
    ("torn", "start"),
    ("held", "start"),
    ("empty", "start"),
)
"""(template, script): what lives.py does to the pools that rows.py keeps."""

RECOVERING = ("half", "done", "torn", "held")
"""Templates whose start has something to settle or to put back."""

OFTEN = 3
"""A point that is passed more often in one phase, like the writes of a database, is failed this often."""

_DERIVED = ("@index/events.db-shm",)  # memory of SQLite that readers share, in no way durable
_ALIKE = tuple(f"@index/columns/{name}." for name in ("access", "element", "plugin", "op", "actor", "time_ns"))
"""Files that are written as another one is, which has rows."""
_LATE = ("unlink @drafts/plugins/file/undo", "rmdir @drafts/plugins/file/undo")
"""What the plugin does after the answer, in a task of its own and so in no certain order."""
_OF_A_PLUGIN = ("@drafts/plugins/", "host/")
_OF_THE_JOURNAL = ("@log/journal", "snapshot @chain")
_MINOR = ("chmod", "chown", "create", "utime", "write out")
_ASIDE = ("@drafts/", "@index/")


@dataclass(frozen=True)
class Planned:
    """A row to be played."""

    template: str
    script: str
    fault: Fault


def rows_of(template: str, script: str, points: Iterable[tuple[str, str]]) -> Iterator[Planned]:
    """Every row of one run: each point killed and failed before and after its effect, and the pool full from there."""
    for (phase, point), count in Counter(points).items():
        if any(name in point for name in (*_DERIVED, *_ALIKE)):
            continue
        if any(point.startswith(name) for name in _LATE):
            continue
        for nth in range(1, min(count, OFTEN) + 1):
            for number in (None, errno.EIO):
                for after in (False, True):
                    yield Planned(template, script, Fault(point, phase, nth, after, number))
            if point.partition(" ")[0] in SPENDING and phase not in ("end", "close"):
                yield Planned(template, script, Fault(point, phase, nth, False, errno.ENOSPC, lasting=True))


def shortened(rows: Iterable[Planned], seen: set[tuple[str, str, bool, int | None]]) -> Iterator[Planned]:
    """What CI plays: of rows that differ only in the phase, the time or the run, the first.

    A start that recovers is killed at each of its own steps, whoever took the same before.
    A plugin's own points are killed only, since how it fails is tried elsewhere (opfs.testing.contracts.failures).
    Preparing a file, and what is no part of the chain, is killed after its effect and fails before it.
    """
    for row in rows:
        fault = row.fault
        run = ""
        if row.script == "hold" and any(name in fault.point for name in _OF_THE_JOURNAL):
            run = row.script  # what is failed here was failed before, but not with somebody told of it
        if row.template in RECOVERING and fault.phase in ("", "recover"):
            is_chosen, run = fault.number is None and fault.after, row.template
        elif any(name in fault.point for name in _OF_A_PLUGIN):
            is_chosen = fault.number is None and fault.after
        elif fault.point.startswith(_MINOR) or any(name in fault.point for name in _ASIDE):
            is_chosen = not fault.lasting and fault.after == (fault.number is None)
        else:
            is_chosen = True
        kind = (run, fault.point, fault.after, fault.number)
        if is_chosen and kind not in seen:
            seen.add(kind)
            yield row


def play_all(rows: Iterable[Planned], stages: Sequence[Stage], tell: Callable[[Row], None]) -> None:
    """Play rows on the stages, each of which takes the next when it is free; `tell` hears of every one."""
    waiting: SimpleQueue[Planned] = SimpleQueue()
    for row in rows:
        waiting.put(row)

    def work(stage: Stage) -> None:
        while not waiting.empty():
            row = waiting.get()
            tell(stage.row(row.template, row.script, row.fault))

    with ThreadPoolExecutor(len(stages)) as pool:
        try:
            for done in [pool.submit(work, stage) for stage in stages]:
                done.result()
        finally:
            while not waiting.empty():  # whoever is interrupted waits for the rows under way, and for no more
                waiting.get()
