"""Random file operations beside a model, on drafts and on documents of a real mount, for as long as asked.

    scripts/bench fsx [--operations 100000] [--seed N]

The sequences are those of tests/posix/fsx.py; each has a seed of its own, printed where it fails.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from harness.pools import Daemon
from harness.table import VERDICT_HEADINGS, Verdict, end_progress, format_table, progress
from harness.workspace import Workspace

from opfs.btrfs.pool import Pool

sys.path.insert(0, str(Path(__file__).parents[1] / "posix"))

from fsx import DocumentSequence, DraftSequence, Mismatch, Sequence

ORIGIN = "bench.example/opfs"
POOL_BYTES = 2 << 30
PER_SEQUENCE = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench fsx", description=__doc__.partition("\n")[0])
    parser.add_argument("--operations", type=int, default=100_000, help="how many, of each kind (default: 100000)")
    parser.add_argument("--seed", default="1", help="where the random numbers start (default: 1)")
    arguments = parser.parse_args()
    counts, commits, mismatches = [0, 0], 0, []
    started = time.perf_counter()
    with Workspace() as workspace, ExitStack() as resources:
        pool = workspace.filesystem("pool", POOL_BYTES, resources)
        Pool.create(pool, origin=ORIGIN, created_ns=time.time_ns()).close()
        daemon = Daemon(pool, workspace.path / "mnt", workspace.path / "daemon.log")
        resources.callback(daemon.stop)
        daemon.start()
        state = daemon.mount / "state" / "noop"
        while min(counts) < arguments.operations and not mismatches:
            seed = f"{arguments.seed}-{counts[0]}"
            draft, document = DraftSequence(state / "draft", seed), _document(state / "document.json", seed)
            for index, sequence in enumerate[Sequence]((draft, document)):
                try:
                    sequence.run(PER_SEQUENCE)
                except Mismatch as mismatch:
                    mismatches.append(str(mismatch))
                counts[index] += sequence.count
            commits += document.commits
            progress(f"{min(counts):,} of {arguments.operations:,} operations of each kind")
    end_progress()
    for mismatch in mismatches:
        print(mismatch)
    rows = [
        ["operations on drafts", f"{counts[0]:,}"],
        ["operations on documents", f"{counts[1]:,}"],
        ["documents committed and compared", f"{commits:,}"],
        ["seconds", f"{time.perf_counter() - started:.0f}"],
    ]
    print(format_table(("random operations", ""), rows))
    print()
    verdict = Verdict("differences from the model", len(mismatches), 0, "")
    print(format_table(VERDICT_HEADINGS, [verdict.cells()]))
    sys.exit(1 if mismatches else 0)


def _document(path: Path, seed: str) -> DocumentSequence:
    def read_elsewhere() -> bytes | None:
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                with os.fdopen(theirs, "wb") as pipe:
                    pipe.write(path.read_bytes())
            finally:
                os._exit(0)
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            found = pipe.read()
        os.waitpid(child, 0)
        return found or None

    return DocumentSequence(path, seed, read_elsewhere)


if __name__ == "__main__":
    main()
