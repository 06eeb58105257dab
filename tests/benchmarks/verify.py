"""How fast a pool is verified, beside b3sum over the same documents, both with everything in memory.

    scripts/bench verify [--rounds 5] [--json FILE]

Two pools, one of documents of 1 MiB and one of 300 bytes, each with several blocks: every block is a snapshot that
shares most of its documents with the one before, and every document of every block is read by both. `opfs verify`
is the command a person runs, start of Python and all of its other checks included. They take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.pools import ORIGIN, Filler, daemon_environment, document
from harness.table import VERDICT_HEADINGS, Sample, Verdict, end_progress, format_table, number, progress, step
from harness.workspace import Workspace

from opfs.btrfs.pool import Pool
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.tlog.keys import DIRECTORY as KEYS
from opfs.tlog.keys import KeyStore
from opfs.tlog.log import FileLog

if TYPE_CHECKING:
    from collections.abc import Callable

POOL_BYTES = 4 << 30
MIB = 1 << 20


def large_document(index: int, revision: int) -> bytes:
    """1 MiB that does not compress."""
    noise = random.Random(index << 32 | revision).randbytes(MIB // 2 - 8).hex()
    return f'{{"n": "{noise}"}}'.encode().ljust(MIB)


@dataclass(frozen=True, slots=True)
class Load:
    """What a pool is filled with: so many documents in the first block, and so many blocks that change one each."""

    title: str
    documents: int
    blocks: int
    content: Callable[[int, int], bytes]


LOADS = (
    Load("1 MiB", 128, 31, large_document),
    Load("300 bytes", 20_000, 9, document),
)


@dataclass(slots=True)
class Result:
    """What was measured on one pool."""

    load: Load
    files: int
    size_bytes: int
    verify: Sample
    b3sum: Sample

    def row(self) -> list[str]:
        cells = [self.load.title, f"{self.files:,}", number(self.size_bytes / 1e6)]
        for sample in (self.b3sum, self.verify):
            seconds = sample.percentile_s(50)
            cells += [number(self.size_bytes / 1e6 / seconds), number(self.files / seconds)]
        return [*cells, f"{self.share:.0%}"]

    @property
    def share(self) -> float:
        """The speed of verify in parts of that of b3sum."""
        return self.b3sum.percentile_s(50) / self.verify.percentile_s(50)

    def to_json(self) -> dict[str, object]:
        return {
            "documents_of": self.load.title,
            "files": self.files,
            "bytes": self.size_bytes,
            "verify_s": self.verify.durations_s,
            "b3sum_s": self.b3sum.durations_s,
        }


def fill(pool: Path, load: Load) -> None:
    """A pool with its log, as a daemon would have left it; its index is empty."""
    Pool.create(pool, origin=ORIGIN, created_ns=time.time_ns()).close()
    with closing(Filler(pool, load.content)) as filler:
        filler.add_elements(load.documents)
        for made in filler.add_blocks(load.blocks, load.documents):
            progress(f"{load.title}: block {made} of {load.blocks}")
    with BtrfsSnapshotStore(pool) as store:
        log = FileLog.open(pool / "@log", ORIGIN, KeyStore(pool / KEYS, ORIGIN))
        log.append((store.read_header(name) for name in store.list_blocks()), time.time_ns())
        log.store()


def documents_of(pool: Path) -> list[str]:
    return sorted(str(path) for path in (pool / "@chain").glob("*/state/*/*.json"))


def run_b3sum(paths: bytes) -> None:
    # as few processes as the length of a command line allows
    subprocess.run(["xargs", "-0", "b3sum", "--no-names"], input=paths, stdout=subprocess.DEVNULL, check=True)


def run_verify(pool: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-P", "-m", "opfs", "--pool", str(pool), "verify", "--fresh"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"verify found something wrong with {pool}:\n{done.stdout}{done.stderr}")


def measure(load: Load, rounds: int, workspace: Workspace) -> Result:
    with ExitStack() as resources:
        pool = workspace.filesystem(load.title.replace(" ", "-"), POOL_BYTES, resources)
        with step(f"{load.title}: filling a pool"):
            fill(pool, load)
        paths = documents_of(pool)
        arguments = b"\0".join(map(os.fsencode, paths))
        environment = daemon_environment(workspace.path)
        result = Result(load, len(paths), sum(os.path.getsize(path) for path in paths), Sample(), Sample())
        for number_of_round in range(rounds + 1):
            progress(f"{load.title}: round {number_of_round} of {rounds}")
            verify, b3sum = (result.verify, result.b3sum) if number_of_round else (Sample(), Sample())
            b3sum.measure(lambda: run_b3sum(arguments))
            verify.measure(lambda: run_verify(pool, environment))
        return result


def verdicts(results: list[Result]) -> list[Verdict]:
    large, small = results
    per_second = small.files / small.verify.percentile_s(50)
    return [
        Verdict("verify, 1 MiB, of the speed of b3sum", 100 * large.share, 70, "%", at_most=False),
        Verdict("verify, 300 bytes", per_second, 20_000, "documents/s", at_most=False),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each; the median counts")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    if shutil.which("b3sum") is None:
        parser.error("b3sum is not installed (apt-get install b3sum)")
    with Workspace() as workspace:
        results = [measure(load, arguments.rounds, workspace) for load in LOADS]
    end_progress()
    headings = ("documents of", "files", "MB", "b3sum MB/s", "files/s", "verify MB/s", "files/s", "share")
    print(format_table(headings, [result.row() for result in results]))
    print()
    print(format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts(results)]))
    if arguments.json:
        figures = {
            "results": [result.to_json() for result in results],
            "verdicts": [verdict.to_json() for verdict in verdicts(results)],
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
