"""What the daemon holds on to: its memory before and after many open files, many writers and many searches.

    scripts/bench memory [--files 10000] [--writers 1000] [--searches 20000] [--rounds 3] [--json FILE]

Each load is run several times over: the first round shows what it takes, the later ones what stays. Resident memory
is VmRSS of /proc/<pid>/status; the kernel's own caches are not in it. A search is a query of its own each time, so no
cache answers it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.pools import NOOP_NAME, Daemon, Filler, document, element_name
from harness.table import VERDICT_HEADINGS, Verdict, end_progress, format_table, number, progress
from harness.workspace import Workspace

from opfs.btrfs.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

ORIGIN = "bench.example/opfs"
POOL_BYTES = 4 << 30
ELEMENTS, BLOCKS = 1_000, 50
GROWTH_MB = 32.0
"""What a daemon may have more after the last round than after the first: allocators do not give all back."""


@dataclass(slots=True)
class Growth:
    """Resident memory in MB: before a load, and after each round of it."""

    what: str
    before: float
    after: list[float] = field(default_factory=list)

    @property
    def stays(self) -> float:
        """How much more there is after the last round than after the first."""
        return self.after[-1] - self.after[0]

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
        loads: list[tuple[str, Callable[[int], None]]] = [
            (f"{arguments.files:,} open files", lambda _: _open_files(daemon.mount, arguments.files)),
            (f"{arguments.writers:,} writers at once", lambda n: _write(daemon.mount, arguments.writers, n)),
            (f"{arguments.searches:,} searches", lambda n: _search(daemon.mount, arguments.searches, n)),
        ]
        growths = []
        for what, load in loads:
            growth = Growth(what, daemon.memory_mb("VmRSS"))
            for round_number in range(arguments.rounds):
                progress(f"{what}, round {round_number + 1} …")
                load(round_number)
                growth.after.append(daemon.memory_mb("VmRSS"))
            growths.append(growth)
        peak = daemon.memory_mb("VmHWM")
    end_progress()
    headings = ["MB resident", "before", *(f"round {n + 1}" for n in range(arguments.rounds)), "stays"]
    print(format_table(headings, [growth.row() for growth in growths]))
    print(f"\nat most {number(peak)} MB at any time; {ELEMENTS:,} elements, {BLOCKS + 1} blocks\n")
    verdicts = [Verdict(f"growth over {growth.what}", growth.stays, GROWTH_MB, "MB") for growth in growths]
    print(format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts]))
    if arguments.json:
        arguments.json.write_text(json.dumps([verdict.to_json() for verdict in verdicts], indent=2) + "\n")
    sys.exit(0 if all(verdict.outcome == "ok" for verdict in verdicts) else 1)


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


def _search(mount: Path, count: int, round_number: int) -> None:
    """Half of them below a filter of their own; one in ten is a directory of links, which is listed and followed."""
    search = mount / "search"
    for index in range(count):
        text = f"memory of web server {round_number} {index}"
        narrowed = search / f"since:2020-01-01T00:00:{round_number:02}.{index:09}Z" / "limit:5"
        if index % 10 == 9:
            for entry in os.scandir(narrowed / "results" / text):
                os.readlink(entry.path)
        else:
            ((narrowed if index % 2 else search) / "similar" / text).read_bytes()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench memory", description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=10_000, help="files open at once (default: 10000)")
    parser.add_argument("--writers", type=int, default=1_000, help="writers at once (default: 1000)")
    parser.add_argument("--searches", type=int, default=20_000, help="searches a round (default: 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each load is repeated (default: 3)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
