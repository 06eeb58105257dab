"""The whole fault table: every point of every run, as often as it is passed, with everything that can go wrong there.

    scripts/bench faults [--stages 2] [--run used/write …]

CI plays about a tenth of it (tests/faults/test_fault_table.py). Prints every row in which a promise was broken, and a
line for each run; exits with 1 if there was such a row. The runs know nothing of each other: with `--run`, as often
as wanted, the table is divided among processes.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from harness.table import end_progress, progress
from harness.workspace import Workspace

sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))

from faulttable import RUNS, play_all, rows_of
from rows import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rows import Row

IMAGE_BYTES = 4 << 30
ROWS_BETWEEN_WORDS = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", type=int, default=2, help="how many rows are played at a time")
    parser.add_argument("--run", action="append", choices=[f"{template}/{script}" for template, script in RUNS])
    options = parser.parse_args()
    played = broken = 0
    points: set[str] = set()
    with Workspace() as workspace, ExitStack() as resources:
        root = workspace.filesystem("fs", IMAGE_BYTES, resources)
        stages = [resources.enter_context(Stage(root / f"stage-{number}")) for number in range(options.stages)]
        print(f"{'run':24} {'points':>7} {'rows':>7} {'broken':>7} {'seconds':>8}")
        for template, script in RUNS:
            if options.run and f"{template}/{script}" not in options.run:
                continue
            start = time.perf_counter()
            rows = play_run(template, script, stages)
            wrong = [row for row in rows if row.problems]
            found = {row.fault.point for row in rows if row.fault}
            elapsed = time.perf_counter() - start
            print(
                f"{template}/{script:<{23 - len(template)}} {len(found):7} {len(rows):7} {len(wrong):7} {elapsed:8.0f}"
            )
            played, broken, points = played + len(rows), broken + len(wrong), points | found
        print(f"{'all':24} {len(points):7} {played:7} {broken:7}")
    return 1 if broken else 0


def play_run(template: str, script: str, stages: Sequence[Stage]) -> list[Row]:
    """Every row of one run, in the order in which they were done."""
    stages[0].reset(template)
    traced = stages[0].play(script, None)
    planned = list(rows_of(template, script, traced.points))
    rows: list[Row] = []

    def tell(row: Row) -> None:
        rows.append(row)
        if row.problems:  # at once, so that also a run that is interrupted has told of it
            print(f"  {row}", *row.problems, sep="\n      ", flush=True)
        if len(rows) % ROWS_BETWEEN_WORDS == 0:
            progress(f"{template}/{script}: {len(rows)} of {len(planned)} rows")

    play_all(planned, stages, tell)
    end_progress()
    return rows


if __name__ == "__main__":
    sys.exit(main())
