"""What a rollback costs beside a commit, through a real mount: one element, and many `file` elements as one block.

    scripts/bench rollback [--elements 1000] [--rounds 20]

A commit is a write of one document of the plugin `file`. A rollback is one line written to ctl; the figure of the
command adds the plan that is shown before, without the start of the program.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from harness.clients import write_document
from harness.pools import ORIGIN, Daemon
from harness.table import VERDICT_HEADINGS, Sample, Verdict, format_table, step
from harness.workspace import Workspace

from opfs.btrfs.pool import Pool
from opfs.cli.tree import MountedTree

if TYPE_CHECKING:
    from pathlib import Path

POOL_BYTES = 4 << 30
WRITERS = 32
MOST_COMMITS, MOST_S = 3.0, 3.0


class Files:
    """Elements of the plugin `file` that all live in one directory of the host."""

    def __init__(self, mount: Path, directory: Path) -> None:
        directory.mkdir()
        self._state = mount / "state" / "file"
        self._directory = directory

    def put(self, index: int, revision: int) -> None:
        fields = {"path": str(self._directory / f"f{index:05d}"), "content": f"revision {revision} of {index}\n"}
        write_document(str(self._state / f"f{index:05d}.json"), json.dumps(fields).encode() + b"\n")

    def put_all(self, count: int, revision: int) -> None:
        with ThreadPoolExecutor(WRITERS) as writers:
            list(writers.map(lambda index: self.put(index, revision), range(count)))

    def check(self, count: int, revision: int) -> None:
        """Every file has what that revision says; raises RuntimeError."""
        for index in range(count):
            found = (self._directory / f"f{index:05d}").read_text()
            if found != f"revision {revision} of {index}\n":
                raise RuntimeError(f"f{index:05d} has {found!r}")


def head(daemon: Daemon) -> int:
    return int(os.readlink(daemon.mount / "chain" / "HEAD").partition("-")[0])


def measure_one(daemon: Daemon, files: Files, rounds: int) -> tuple[Sample, Sample]:
    """Commits and rollbacks of one element, in turns."""
    tree, commits, rollbacks = MountedTree(daemon.mount), Sample(), Sample()
    files.put(0, 1)
    for revision in range(2, rounds + 2):
        before = head(daemon)
        commits.measure(lambda revision=revision: files.put(0, revision))
        rollbacks.measure(lambda before=before: tree.command(f"rollback {before} file/f00000"))
    return commits, rollbacks


def measure_many(daemon: Daemon, files: Files, elements: int) -> tuple[float, float]:
    """Seconds of a rollback of all elements, and of the plan of it."""
    tree = MountedTree(daemon.mount)
    with step(f"{elements:,} elements"):
        files.put_all(elements, 1)
    source = head(daemon)
    with step("all of them changed"):
        files.put_all(elements, 2)
        daemon.wait_indexed()
    start = time.perf_counter()
    _, *lines = tree.ask(f"rollback {source} --plan")
    planned_s = time.perf_counter() - start
    if len(lines) != elements:
        raise RuntimeError(f"the plan has {len(lines)} elements")
    before, start = head(daemon), time.perf_counter()
    tree.command(f"rollback {source}")
    done_s = time.perf_counter() - start
    if head(daemon) != before + 1:
        raise RuntimeError(f"it took {head(daemon) - before} blocks")
    files.check(elements, 1)
    return done_s, planned_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with Workspace() as workspace, ExitStack() as resources:
        pool = workspace.filesystem("pool", POOL_BYTES, resources)
        Pool.create(pool, origin=ORIGIN, created_ns=0).close()
        daemon = Daemon(pool, workspace.path / "mount", workspace.path / "daemon.log")
        resources.callback(daemon.stop)
        daemon.start()
        files = Files(daemon.mount, workspace.path / "files")
        commits, rollbacks = measure_one(daemon, files, options.rounds)
        done_s, planned_s = measure_many(daemon, files, options.elements)
    rows = [
        ["commit of one element", f"{commits.p50_ms:.1f}", f"{commits.p99_ms:.1f}"],
        ["rollback of one element", f"{rollbacks.p50_ms:.1f}", f"{rollbacks.p99_ms:.1f}"],
        [f"rollback of {options.elements:,} file elements", f"{done_s * 1000:.0f}", ""],
        ["the plan of it", f"{planned_s * 1000:.0f}", ""],
    ]
    print(format_table(["", "p50 ms", "p99 ms"], rows))
    verdicts = [
        Verdict("rollback of one element, in commits", rollbacks.p50_ms / commits.p50_ms, MOST_COMMITS, "x"),
        Verdict(f"rollback of {options.elements:,} elements as one block", done_s, MOST_S, "s"),
    ]
    print()
    print(format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts]))
    return 0 if all(verdict.outcome == "ok" for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
