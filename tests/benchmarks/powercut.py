"""How much survives a power cut: recorded runs of the daemon, cut thousands of times, recovered, verified, compared.

    scripts/bench powercut [--cuts 2000] [--seed N] [--interval per-op] [--json FILE]

A run is four writers at once, a new key, a restart and a kill, on a disk that records every write and flush
(tests/survival). Each cut keeps what was flushed before it and, every third time, half of what was written since,
in pieces of 4 KiB. All that had been acknowledged has to be there, in order; the rest wholly or not at all; the chain
and the log have to verify and the host has to be as the chain says. One cut in 100 is also started and checked by
`opfs mount`, `opfs verify` and `btrfs check`. Runs go on, each with a seed of its own, until there are enough cuts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random

from harness.table import VERDICT_HEADINGS, Verdict, end_progress, format_table, number, progress
from harness.workspace import Workspace
from survival.copies import room_for_copies
from survival.powercut import Outcome, Replay, epochs
from survival.recording import Script, record

CUTS_PER_RUN = 500
ATTEMPTS = 6
"""Between two restarts, for each writer: short runs have few blocks, and every cut verifies all of them."""
TORN_OF = 3
BY_COMMAND_OF = 100


def main() -> None:
    arguments = _parse()
    total, runs, recording_s, started = Outcome(), 0, 0.0, time.perf_counter()
    with Workspace() as workspace:
        while total.cuts < arguments.cuts:
            seed = f"{arguments.seed}-{runs}"
            place = workspace.path / f"run-{runs}"
            place.mkdir()
            wanted_cuts = min(CUTS_PER_RUN, arguments.cuts - total.cuts)
            script = Script(seed, attempts=ATTEMPTS, interval=arguments.interval)
            outcome, seconds = _run(place, script, wanted_cuts, total.cuts, arguments.cuts)
            runs, recording_s = runs + 1, recording_s + seconds
            _add(total, outcome)
            for problem in outcome.problems:
                print(f"seed {seed}: {problem}")
    seconds = time.perf_counter() - started
    end_progress()
    rows = [
        ["runs recorded", f"{runs}", f"{recording_s:.0f} s"],
        ["cuts", f"{total.cuts:,}", f"{number((seconds - recording_s) / max(total.cuts, 1) * 1000)} ms each"],
        ["of them torn", f"{total.torn:,}", ""],
        ["of them started and verified by the commands", f"{total.by_command:,}", ""],
        ["acknowledged changes that had to be there, over all cuts", f"{total.acknowledged:,}", ""],
        ["seconds", f"{seconds:.0f}", ""],
    ]
    print(format_table(("power cuts", "", ""), rows))
    print()
    verdicts = [
        Verdict("lost acknowledgements", total.lost, 0, ""),
        Verdict("chains or logs that do not verify", total.unverifiable, 0, ""),
        Verdict(
            "host and chain that disagree, or anything else",
            len(total.problems) - total.lost - total.unverifiable,
            0,
            "",
        ),
        Verdict("cuts", total.cuts, arguments.cuts, "", at_most=False),
    ]
    print(format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts]))
    if arguments.json:
        arguments.json.write_text(json.dumps([verdict.to_json() for verdict in verdicts], indent=2) + "\n")
    sys.exit(1 if total.problems else 0)


def _run(place: Path, script: Script, cuts: int, before: int, of: int) -> tuple[Outcome, float]:
    """Record one run and cut it so many times; also the seconds the recording took."""
    started = time.perf_counter()
    progress(f"recording seed {script.seed} …")
    recording = record(place, script)
    seconds = time.perf_counter() - started
    with ExitStack() as resources:
        copies = resources.enter_context(room_for_copies(place))
        random = Random(script.seed)
        numbers = [epoch.number for epoch in epochs(recording.log) if epoch.writes]
        plain = min(len(numbers), -(-cuts * TORN_OF // (TORN_OF + 1)))
        wanted = sorted(random.sample(numbers, plain))
        torn = random.sample(wanted, min(len(wanted), cuts - plain))
        by_command = random.sample(wanted, max(1, plain // BY_COMMAND_OF))

        def done(outcome: Outcome) -> None:
            if outcome.cuts % 20 < 2:
                progress(f"{before + outcome.cuts:,} of {of:,} cuts, {outcome.lost} lost")

        outcome = Replay(recording, copies, resources).run(wanted, torn, by_command, random, done)
    return outcome, seconds


def _add(total: Outcome, more: Outcome) -> None:
    total.cuts += more.cuts
    total.torn += more.torn
    total.by_command += more.by_command
    total.acknowledged += more.acknowledged
    total.problems += more.problems


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench powercut", description=__doc__.partition("\n")[0])
    parser.add_argument("--cuts", type=int, default=2000, help="how many power cuts (default: 2000)")
    parser.add_argument("--seed", default="1", help="where the random numbers start (default: 1)")
    parser.add_argument("--interval", default="per-op", help="how often blocks are made (default: per-op)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
