"""What the daemon holds on to: its memory before and after many open files, many writers and many searches.

    scripts/bench memory [--files 10000] [--writers 1000] [--searches 20000] [--rounds 3] [--json FILE]
    scripts/bench memory --searches 1000000 --rounds 10 --readers 4 [--minutes 60]

Each load is run several times over: the first round shows what it takes, the later ones what stays. Opening and writing
is the same in every round; the searches are divided among the rounds, and so are the `--minutes`, after which they end,
all of them asked or not. Resident memory is VmRSS of /proc/<pid>/status; anonymous memory is RssAnon, without the files
that are only mapped. The kernel's own caches are in neither.

Of ten searches seven have a text of their own, so that no cache answers them: four for words, two by meaning, one for
both. One is of all changes, one is asked again, and one is a directory of links, which is listed and followed. Half of
them stand below a filter of their own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.pools import NOOP_NAME, Daemon, Filler, document, element_name
from harness.table import VERDICT_HEADINGS, Verdict, end_progress, format_table, number, progress
from harness.workspace import Workspace

from opfs.btrfs.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ORIGIN = "bench.example/opfs"
POOL_BYTES = 4 << 30
ELEMENTS, BLOCKS = 1_000, 50
_ROLES = ("web server", "database", "mail relay", "build runner", "proxy", "cache", "monitor", "backup")
GROWTH_MB = 32.0
"""What a daemon may have more after the last round than after the first: allocators do not give all back."""


@dataclass(slots=True)
class Growth:
    """Memory in MB: before a load, and after each round of it."""

    what: str
    before: float
    after: list[float] = field(default_factory=list)

    @property
    def stays(self) -> float:
        """How much more there is after the last round than after the first; nan where there was only one."""
        return self.after[-1] - self.after[0] if len(self.after) > 1 else math.nan

    def row(self) -> list[str]:
        return [self.what, number(self.before), *map(number, self.after), number(self.stays)]


def main() -> None:
    arguments = _parse()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = arguments.files + 1_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, room), max(hard, room)))
    with Workspace() as workspace, ExitStack() as resources:
        pool = workspace.filesystem("pool", POOL_BYTES, resources)
        Pool.create(pool, origin=ORIGIN, created_ns=time.time_ns()).close()
        progress("filling the pool …")
        filler = Filler(pool)
        filler.add_elements(ELEMENTS)
        for _ in filler.add_blocks(BLOCKS, ELEMENTS):
            pass
        filler.close()
        daemon = Daemon(pool, workspace.path / "mnt", workspace.path / "daemon.log")
        resources.callback(daemon.stop)
        daemon.start()
        daemon.wait_indexed()
        searches = Searches(daemon.mount, arguments.searches, arguments.rounds, arguments.readers, arguments.minutes)
        loads: list[tuple[str, Callable[[int], None]]] = [
            (f"{arguments.files:,} open files", lambda _: _open_files(daemon.mount, arguments.files)),
            (f"{arguments.writers:,} writers at once", lambda n: _write(daemon.mount, arguments.writers, n)),
            (f"{arguments.searches:,} searches", lambda _: searches.ask()),
        ]
        growths = []
        for what, load in loads:
            daemon.wait_indexed()  # what was written before is not to be done in the time of this load
            resident = Growth(f"{what}, resident", daemon.memory_mb("VmRSS"))
            anonymous = Growth(f"{what}, anonymous", daemon.memory_mb("RssAnon"))
            for round_number in range(arguments.rounds):
                load(round_number)
                resident.after.append(daemon.memory_mb("VmRSS"))
                anonymous.after.append(daemon.memory_mb("RssAnon"))
                said = f"{number(resident.after[-1])} MB resident, {number(anonymous.after[-1])} anonymous"
                progress(f"{what}, round {round_number + 1}: {said}")
            growths += [resident, anonymous]
        peak = daemon.memory_mb("VmHWM")
    end_progress()
    headings = ["MB", "before", *(f"round {n + 1}" for n in range(arguments.rounds)), "stays"]
    print(format_table(headings, [growth.row() for growth in growths]))
    print(f"\n{searches.asked:,} searches by {arguments.readers} readers in {searches.busy_s:,.0f} s")
    print(f"at most {number(peak)} MB at any time; {ELEMENTS:,} elements, {BLOCKS + 1} blocks\n")
    verdicts = [Verdict(f"growth: {growth.what}", growth.stays, GROWTH_MB, "MB") for growth in growths]
    verdicts.append(Verdict("searches", searches.asked, arguments.searches, "", at_most=False))
    print(format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts]))
    if arguments.json:
        arguments.json.write_text(json.dumps([verdict.to_json() for verdict in verdicts], indent=2) + "\n")
    sys.exit(1 if any(verdict.outcome == "missed" for verdict in verdicts) else 0)


def _open_files(mount: Path, count: int) -> None:
    """Documents and drafts, each read, and all closed again."""
    state = mount / "state" / NOOP_NAME
    files = []
    try:
        for index in range(count // 2):
            draft = state / f"draft{index % 100}"
            files.append(os.open(state / f"{element_name(index % ELEMENTS)}.json", os.O_RDONLY))
            files.append(os.open(draft, os.O_RDWR | os.O_CREAT, 0o644))
        for file in files:
            os.pread(file, 1000, 0)
    finally:
        for file in files:
            os.close(file)


def _write(mount: Path, count: int, round_number: int) -> None:
    state = mount / "state" / NOOP_NAME
    barrier = threading.Barrier(count)

    def write(index: int) -> None:
        barrier.wait()
        (state / f"{element_name(index % ELEMENTS)}.json").write_bytes(document(index, 1000 + round_number))

    threading.stack_size(256 << 10)
    threads = [threading.Thread(target=write, args=(index,)) for index in range(min(count, ELEMENTS))]
    barrier = threading.Barrier(len(threads))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Searches:
    """So many searches, asked by several readers at a time, in as many parts as there are rounds."""

    def __init__(self, mount: Path, count: int, rounds: int, readers: int, minutes: float) -> None:
        self._search = mount / "search"
        self._part = -(-count // rounds)
        self._count = count
        self._readers = readers
        self._most_s = minutes * 60 / rounds
        self.asked = 0
        self.busy_s = 0.0

    def ask(self) -> None:
        """The next part of them, or as many as this part of the time is enough for."""
        start = time.perf_counter()
        numbers = iter(range(self.asked, min(self.asked + self._part, self._count)))
        ends = start + self._most_s
        with ThreadPoolExecutor(self._readers) as readers:
            each = [readers.submit(self._read, numbers, ends) for _ in range(self._readers)]
            self.asked += sum(done.result() for done in each)
        self.busy_s += time.perf_counter() - start

    def _read(self, numbers: Iterator[int], ends: float) -> int:
        """Ask those that no other reader has taken; returns how many."""
        asked = 0
        for index in numbers:  # next() of a range is one step, which threads do not share
            self._ask(index)
            asked += 1
            if time.perf_counter() > ends:
                break
        return asked

    def _ask(self, index: int) -> None:
        place = self._search
        if index % 20 >= 10:
            place = place / f"since:2020-01-01T00:00:00.{index:09}Z" / "limit:5"
        text = f"memory of {_ROLES[index % len(_ROLES)]} {index}"
        match index % 10:
            case 0 | 1 | 2 | 3:
                (place / "text" / text).read_bytes()
            case 4 | 5:
                (place / "similar" / text).read_bytes()
            case 6:
                (place / "hybrid" / text).read_bytes()
            case 7:
                (place / "changes").read_bytes()
            case 8:
                (self._search / "similar" / f"memory of {_ROLES[index % len(_ROLES)]}").read_bytes()
            case 9:
                for entry in os.scandir(place / "results" / text):
                    os.readlink(entry.path)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench memory", description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=10_000, help="files open at once (default: 10000)")
    parser.add_argument("--writers", type=int, default=1_000, help="writers at once (default: 1000)")
    parser.add_argument("--searches", type=int, default=20_000, help="searches in all (default: 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each load is repeated (default: 3)")
    parser.add_argument("--readers", type=int, default=1, help="who ask at the same time (default: 1)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="no searches after so long (default: no end)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
