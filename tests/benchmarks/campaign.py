"""How often the daemon can be killed: writers, readers and searches at work, kill -9 at random moments.

    scripts/bench campaign [--rounds 300] [--seed N] [--interval per-op] [--json FILE]

A round is a start, the check of everything that was ever acknowledged, a random time of work by six processes, and the
kill; one start in four is killed before it serves (tests/survival/campaign.py). Pools are changed now and then. A
failure prints the seed of its pool: the same seed repeats the plan, not the course of the processes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from harness.table import VERDICT_HEADINGS, Verdict, end_progress, format_table, progress
from harness.workspace import Workspace
from survival.campaign import Campaign, Course
from survival.machine import Machine

ROUNDS_PER_POOL = 50
POOL_BYTES = 4 << 30


def main() -> None:
    arguments = _parse()
    courses: list[Course] = []
    started = time.perf_counter()
    with Workspace() as workspace, ExitStack() as resources:
        disk = workspace.filesystem("pools", POOL_BYTES, resources)
        done = 0
        while done < arguments.rounds and not any(course.problems for course in courses):
            rounds = min(ROUNDS_PER_POOL, arguments.rounds - done)
            number = len(courses)
            machine = Machine(disk / f"machine-{number}", workspace.path / f"mnt-{number}", arguments.interval)
            machine.disk.mkdir()
            machine.make_pool()
            courses.append(Campaign(machine, f"{arguments.seed}-{len(courses)}").run(rounds))
            done += rounds
            progress(f"{done} of {arguments.rounds} rounds, seed {courses[-1].seed}: {courses[-1].kills} kills")
    seconds = time.perf_counter() - started
    end_progress()
    for course in courses:
        for problem in course.problems:
            print(f"seed {course.seed}: {problem}")
    rows = [
        ["rounds", f"{_sum(courses, 'rounds'):,}"],
        ["kills", f"{_sum(courses, 'kills'):,}"],
        ["of them while it started", f"{_sum(courses, 'kills_while_starting'):,}"],
        ["acknowledged changes", f"{_sum(courses, 'acknowledged'):,}"],
        ["changes without an answer", f"{_sum(courses, 'unanswered'):,}"],
        ["rounds of reading and searching", f"{_sum(courses, 'reads'):,}"],
        ["blocks", f"{_sum(courses, 'blocks'):,}"],
        ["seconds", f"{seconds:.0f}"],
    ]
    print(format_table(("kills at random moments", ""), rows))
    print()
    known = _sum(courses, "lost") + _sum(courses, "unverifiable") + _sum(courses, "deaths")
    verdicts = [
        Verdict("lost acknowledgements", _sum(courses, "lost"), 0, ""),
        Verdict("chains or logs that do not verify", _sum(courses, "unverifiable"), 0, ""),
        Verdict("deaths of the mount but by kill -9", _sum(courses, "deaths"), 0, ""),
        Verdict(
            "host and chain that disagree, or anything else",
            sum(len(course.problems) for course in courses) - known,
            0,
            "",
        ),
        Verdict("kills", _sum(courses, "kills"), arguments.rounds, "", at_most=False),
    ]
    print(format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts]))
    if arguments.json:
        arguments.json.write_text(json.dumps([verdict.to_json() for verdict in verdicts], indent=2) + "\n")
    sys.exit(1 if any(course.problems for course in courses) else 0)


def _sum(courses: list[Course], name: str) -> int:
    return sum(int(getattr(course, name)) for course in courses)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench campaign", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=300, help="how many rounds (default: 300)")
    parser.add_argument("--seed", default="1", help="where the random numbers start (default: 1)")
    parser.add_argument("--interval", default="per-op", help="how often blocks are made (default: per-op)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
