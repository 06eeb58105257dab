"""Throw a million altered inputs at everything that reads what others wrote, and print what became of them.

    scripts/bench fuzz [--inputs 1000000] [--seed 0] [--only TARGET]

Inputs follow from the seed: another seed, other inputs. Every failure names its target and seed, which
`opfs.testing.fuzzing.make_input` turns back into the input. Exit code 1 if there is one. One process per processor.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

from harness.table import end_progress, format_table, number, progress

from opfs.testing.fuzzing import Failure, Tally, Target, fuzz
from opfs.testing.fuzztargets import all_targets

CHUNK = 2000


@cache
def targets() -> dict[str, Target]:
    """Built once in each process, with a directory of its own."""
    place = Path(tempfile.mkdtemp(prefix=f"fuzz-{os.getpid()}-", dir=os.environ["OPFS_FUZZ_PLACE"]))
    return {target.name: target for target in all_targets(place)}


def work(name: str, first: int, count: int) -> tuple[str, Tally, list[Failure]]:
    return name, *fuzz(targets()[name], range(first, first + count))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0, help="where the seeds of the inputs begin")
    parser.add_argument("--only", help="one target, by its name")
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="opfs-fuzz-") as place:
        os.environ["OPFS_FUZZ_PLACE"] = place
        chosen = [target for target in targets().values() if arguments.only in (None, target.name)]
        if not chosen:
            parser.error(f"there is no target {arguments.only!r}; there is: {', '.join(targets())}")
        each = arguments.inputs / sum(target.weight for target in chosen)
        jobs = []
        for target in chosen:
            last = arguments.seed + round(each * target.weight)
            for first in range(arguments.seed, last, CHUNK):
                jobs.append((target.name, first, min(CHUNK, last - first)))
        tallies = {target.name: Tally() for target in chosen}
        failures: list[Failure] = []
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            for done, (name, tally, found) in enumerate(pool.map(work, *zip(*jobs, strict=True)), 1):
                total = tallies[name]
                total.accepted += tally.accepted
                total.refused += tally.refused
                total.slowest = max(total.slowest, tally.slowest)
                failures += found
                progress(f"{done} of {len(jobs)} parts, {len(failures)} failures")
        end_progress()
    rows = [
        (name, number(t.count), number(t.accepted), number(t.refused), f"{t.slowest[0] * 1000:.1f}", str(t.slowest[1]))
        for name, t in tallies.items()
    ]
    print(format_table(("target", "inputs", "accepted", "refused", "slowest ms", "its seed"), rows))
    count = sum(tally.count for tally in tallies.values())
    print(f"\n{number(count)} inputs in {time.perf_counter() - started:.0f} s, {len(failures)} failures")
    for failure in failures[:50]:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
