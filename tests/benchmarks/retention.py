"""What many blocks cost: commits beside many live snapshots and while they are pruned, and what remains on disk.

    scripts/bench retention [--blocks 10000] [--elements 1000] [--rounds 100] [--reads 300]

The blocks are made by the commit path's own code without a mount, one change of 300 bytes each; commits are measured
through the mount. Those beside 10, 100 and 1,000 live snapshots take turns on three pools, a tenth of the rounds at a
time, each behind a daemon that has nothing left to index: what disk and machine do meanwhile, they do to all of them.

Then a pool of all blocks is pruned to the policy, while a document is written every tenth of a second; what is left
over of these commits is pruned after them. Everything is verified, and blocks without a snapshot are read at random
through the mount, each document held against the hash in its event. What stays on disk for a block are the archive's
packs and the files of the log; what the whole pool grew by is printed as well.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from threading import Event, Thread
from typing import TYPE_CHECKING

from harness.clients import write_document
from harness.pools import NOOP_NAME, ORIGIN, Daemon, Filler, changed_element, document, element_name
from harness.table import VERDICT_HEADINGS, Sample, Verdict, format_table, progress, step
from harness.workspace import Workspace

from opfs.btrfs import ioctl
from opfs.btrfs.pool import Pool
from opfs.btrfs.space import used_bytes
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.core.canonical import hash_hex

if TYPE_CHECKING:
    from collections.abc import Sequence

LIVE = (10, 100, 1_000)
TURNS = 10
WARM_UP = 5
COMMIT_EVERY_S = 0.1
"""How often somebody writes while snapshots are pruned: at full speed, blocks would come as fast as others go."""
LEFT_OVER = 5
"""Snapshots that may be left to prune: each run records itself in a block, which makes older ones superfluous."""
SLOWER, KIB_PER_BLOCK = 2.0, 4.0
POOL_BYTES = 32 << 30
NEWEST = 100


class Bench:
    """One pool with so many elements, filled further and further, and a daemon that serves it in between."""

    def __init__(self, workspace: Workspace, name: str, resources: ExitStack, elements: int) -> None:
        self.elements = elements
        self.pool = workspace.filesystem(name, POOL_BYTES, resources) / "pool"
        self.pool.mkdir(mode=0o700)
        Pool.create(self.pool, origin=ORIGIN, created_ns=time.time_ns()).close()
        (workspace.path / "opfs.toml").write_text(
            f"max_live_blocks = 0\nretain_newest = {NEWEST}\nscrub_interval_s = 0\n"
        )
        self.daemon = Daemon(self.pool, workspace.path / f"{name}.mount", workspace.path / f"{name}.log")
        resources.callback(self.daemon.stop)
        self._revision = 1_000_000
        with closing(Filler(self.pool)) as filler:
            filler.add_elements(elements)

    def fill(self, live: int) -> None:
        """Make blocks until so many have snapshots."""
        with closing(Filler(self.pool)) as filler:
            count = live - len(self.live())
            for made in filler.add_blocks(max(0, count), self.elements):
                if made % 500 == 0:
                    progress(f"{made:,} of {count:,} blocks made")

    def serve(self) -> None:
        """Start the daemon, and wait until it has indexed what there is, which would go on beside the commits."""
        self.daemon.start()
        self.daemon.wait_indexed()
        self.commits(WARM_UP)

    def live(self) -> list[str]:
        return os.listdir(self.pool / "@chain")

    def used(self) -> int:
        """Bytes that the pool takes, once what was deleted is freed."""
        with BtrfsSnapshotStore(self.pool) as store:
            store.wait_freed()
        descriptor = os.open(self.pool, os.O_RDONLY)
        try:
            return used_bytes(ioctl.space_info(descriptor))
        finally:
            os.close(descriptor)

    def commit(self, sample: Sample) -> None:
        """One document changed through the mount."""
        self._revision += 1
        index = changed_element(self._revision, self.elements)
        path = str(self.daemon.mount / "state" / NOOP_NAME / f"{element_name(index)}.json")
        content = document(index, self._revision)
        sample.measure(lambda: write_document(path, content))

    def commits(self, rounds: int) -> Sample:
        sample = Sample()
        for _ in range(rounds):
            self.commit(sample)
        return sample

    def prune(self) -> tuple[Sample, float]:
        """Prune by the policy; returns the commits meanwhile, and the seconds until nothing was left to prune."""
        done, during = Event(), Sample()
        start = time.perf_counter()

        def run() -> None:
            try:
                self._prune_until(NEWEST)
            finally:
                done.set()

        thread = Thread(target=run)
        thread.start()
        while not done.wait(COMMIT_EVERY_S):
            self.commit(during)
        thread.join()
        self._prune_until(LEFT_OVER)
        return during, time.perf_counter() - start

    def _prune_until(self, most: int) -> None:
        """Ask for runs until the policy would prune no more than `most`."""
        while self._would_go() > most:
            try:
                (self.daemon.mount / "ctl").write_text("prune\n")
            except OSError as error:
                # a request is not kept waiting for ever; what it began goes on, and is busy until it ends
                if error.errno not in (errno.ETIMEDOUT, errno.EBUSY):
                    raise
                time.sleep(2)

    def _would_go(self) -> int:
        lines = (self.daemon.mount / "chain/.retention").read_text().splitlines()
        return sum(json.loads(line)["snapshot"] == "prune" for line in lines)

    def pruned(self) -> list[str]:
        live = set(self.live())
        return [name for name in os.listdir(self.daemon.mount / "chain") if name[:1].isdigit() and name not in live]

    def read_blocks(self, count: int) -> Sample:
        """What blocks without a snapshot set, of blocks at random; raises RuntimeError for a wrong document."""
        chain, pruned, sample = self.daemon.mount / "chain", self.pruned(), Sample()
        for name in random.Random(1).sample(pruned, min(count, len(pruned))):
            events = map(json.loads, (chain / name / "events.jsonl").read_text().splitlines())
            event = next((event for event in events if event["plugin"] == NOOP_NAME), None)
            if event is not None:
                path = chain / name / "state" / NOOP_NAME / f"{event['element']}.json"
                start = time.perf_counter()
                content = path.read_bytes()
                took_s = time.perf_counter() - start
                sample.add([took_s], took_s)
                if hash_hex(content) != event["content"]:
                    raise RuntimeError(f"{path} is not what was committed")
        return sample

    def verify(self) -> tuple[float, str]:
        """Seconds of `opfs verify` of everything, and what it says; raises RuntimeError where something is wrong."""
        command = [sys.executable, "-m", "opfs", "--pool", self.pool, "--mount", self.daemon.mount, "verify", "--fresh"]
        start = time.perf_counter()
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"verify found something wrong:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return time.perf_counter() - start, done.stdout.splitlines()[-1]


def commits_beside(workspace: Workspace, live: Sequence[int], elements: int, rounds: int) -> dict[int, Sample]:
    """Commits beside so many live snapshots, in turns; there are `rounds` more of each in the end."""
    with ExitStack() as resources:
        benches = {}
        for number in live:
            benches[number] = bench = Bench(workspace, f"beside-{number}", resources, elements)
            bench.fill(number)
            bench.serve()
        samples: dict[int, Sample] = {number: Sample() for number in live}
        order = list(live)
        for turn in range(TURNS):
            progress(f"commits beside live snapshots, turn {turn + 1} of {TURNS}")
            for number in order:
                part = benches[number].commits(-(-rounds // TURNS))
                samples[number].add(part.durations_s, part.busy_s)
            order.append(order.pop(0))
        return samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=10_000)
    parser.add_argument("--elements", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--reads", type=int, default=300)
    options = parser.parse_args()
    with Workspace() as workspace, ExitStack() as resources:
        live = [number for number in LIVE if number <= options.blocks]
        beside = commits_beside(workspace, live, options.elements, options.rounds)
        bench = Bench(workspace, "fs", resources, options.elements)
        base = bench.used()
        bench.fill(options.blocks)
        full = bench.used()
        with step("indexing"):
            bench.serve()
        most = len(bench.live())
        before = bench.commits(options.rounds)
        with step("pruning"):
            during, pruning_s = bench.prune()
        gone, kept_count = len(bench.pruned()), len(bench.live())
        reads = bench.read_blocks(options.reads)
        bench.daemon.stop()
        with step("verifying"):
            verify_s, verified = bench.verify()
        log = bench.pool / "@log"
        packs = sum(path.stat().st_size for path in (log / "archive").iterdir())
        kept = sum(path.stat().st_blocks * 512 for path in log.rglob("*") if path.is_file())
        left = bench.used()
    measured = {f"commit, {number:,} live snapshots": sample for number, sample in beside.items()}
    measured |= {f"commit, {most:,} live snapshots": before, "commit while pruning": during}
    measured["a document of a pruned block read"] = reads
    rows = [
        [what, str(len(sample)), f"{sample.p50_ms:.1f}", f"{sample.p99_ms:.1f}"] for what, sample in measured.items()
    ]
    print(format_table(["", "count", "p50 ms", "p99 ms"], rows))
    print(
        f"\n{gone:,} snapshots pruned in {pruning_s:.1f} s, {kept_count} left; verified in {verify_s:.1f} s: {verified}"
    )
    print(f"disk per block with its snapshot: {(full - base) / options.blocks / 1024:.1f} KiB")
    print(f"packs for each pruned block: {packs / gone / 1024:.2f} KiB")
    grown_mib = (left - base) / (1 << 20)
    print(f"the pool afterwards, index, ballast and {kept_count} snapshots included: {grown_mib:.0f} MiB more")
    print(f"load {os.getloadavg()[0]:.1f}\n")
    slowest = beside[1_000].p50_ms / beside[10].p50_ms if 1_000 in beside else float("nan")
    verdicts = [
        Verdict("commits with 1,000 live snapshots, beside 10", slowest, SLOWER, "x"),
        Verdict("commits while pruning, beside before", during.p50_ms / before.p50_ms, SLOWER, "x"),
        Verdict("archive and log on disk, for each block", kept / (gone + kept_count) / 1024, KIB_PER_BLOCK, "KiB"),
    ]
    print(format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts]))
    return 0 if all(verdict.outcome in ("ok", "not measured") for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
