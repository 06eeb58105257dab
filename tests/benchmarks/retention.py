"""What many blocks cost: commits beside many live snapshots and while they are pruned, and what remains on disk.

    scripts/bench retention [--blocks 10000] [--elements 1000] [--rounds 100] [--reads 300]

The blocks are made by the commit path's own code without a mount, one change of 300 bytes each; commits are measured
through the mount, with 10, 100 and 1,000 live snapshots and while all blocks but those of the policy are pruned. Then
everything is verified, and blocks without a snapshot are read at random through the mount. What stays on disk for a
block are the archive's packs and the files of the log; what the whole pool grew by is printed as well.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from threading import Event, Thread

from harness.clients import write_document
from harness.pools import NOOP_NAME, ORIGIN, Daemon, Filler, changed_element, document, element_name
from harness.table import VERDICT_HEADINGS, Sample, Verdict, format_table, progress, step
from harness.workspace import Workspace

from opfs.btrfs import ioctl
from opfs.btrfs.pool import Pool
from opfs.btrfs.space import used_bytes
from opfs.btrfs.store import BtrfsSnapshotStore

LIVE = (10, 100, 1_000)
SLOWER, KIB_PER_BLOCK = 2.0, 4.0
POOL_BYTES = 32 << 30
NEWEST = 100


class Bench:
    """One pool, filled further and further, and a daemon that serves it in between."""

    def __init__(self, workspace: Workspace, resources: ExitStack, options: argparse.Namespace) -> None:
        self.options = options
        self.pool = workspace.filesystem("fs", POOL_BYTES, resources) / "pool"
        self.pool.mkdir(mode=0o700)
        Pool.create(self.pool, origin=ORIGIN, created_ns=time.time_ns()).close()
        (workspace.path / "opfs.toml").write_text(
            f"max_live_blocks = 0\nretain_newest = {NEWEST}\nscrub_interval_s = 0\n"
        )
        self.daemon = Daemon(self.pool, workspace.path / "mount", workspace.path / "daemon.log")
        resources.callback(self.daemon.stop)
        self._revision = 1_000_000

    def fill(self, live: int) -> None:
        """Make blocks until so many have snapshots."""
        with closing(Filler(self.pool)) as filler:
            count = live - len(self.live())
            for made in filler.add_blocks(max(0, count), self.options.elements):
                if made % 500 == 0:
                    progress(f"{made:,} of {count:,} blocks made")

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
        index = changed_element(self._revision, self.options.elements)
        path = str(self.daemon.mount / "state" / NOOP_NAME / f"{element_name(index)}.json")
        content = document(index, self._revision)
        sample.measure(lambda: write_document(path, content))

    def commits(self, rounds: int) -> Sample:
        sample = Sample()
        for _ in range(5):
            self.commit(Sample())
        for _ in range(rounds):
            self.commit(sample)
        return sample

    def prune(self) -> tuple[Sample, float]:
        """Prune by the policy, with commits all the while; returns those, and the seconds that pruning took."""
        done, during = Event(), Sample()
        took: list[float] = []

        def run() -> None:
            start = time.perf_counter()
            try:
                (self.daemon.mount / "ctl").write_text("prune\n")
            except TimeoutError:  # a request is not kept waiting for ever; what it began goes on
                while self._would_go() > self.options.rounds * 10:
                    time.sleep(1)
            took.append(time.perf_counter() - start)
            done.set()

        thread = Thread(target=run)
        thread.start()
        while not done.is_set():
            self.commit(during)
        thread.join()
        return during, took[0]

    def _would_go(self) -> int:
        lines = (self.daemon.mount / "chain/.retention").read_text().splitlines()
        return sum(json.loads(line)["snapshot"] == "prune" for line in lines)

    def read_blocks(self, count: int) -> Sample:
        """Documents of blocks without a snapshot, at random, each compared with what was written."""
        mount, live = self.daemon.mount, set(self.live())
        pruned = [name for name in os.listdir(mount / "chain") if name[:1].isdigit() and name not in live]
        pick, sample = random.Random(1), Sample()
        for name in pick.sample(pruned, min(count, len(pruned))):
            events = (mount / "chain" / name / "events.jsonl").read_text().splitlines()
            for event in map(json.loads, events):
                if event["plugin"] != NOOP_NAME:
                    continue
                path = mount / "chain" / name / "state" / NOOP_NAME / f"{event['element']}.json"
                sample.measure(lambda path=path: json.loads(path.read_bytes()))
                break
        return sample

    def verify(self) -> float:
        """Seconds of `opfs verify` of everything; raises CalledProcessError where something is wrong."""
        command = [sys.executable, "-m", "opfs", "--pool", self.pool, "--mount", self.daemon.mount, "verify"]
        start = time.perf_counter()
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=10_000)
    parser.add_argument("--elements", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--reads", type=int, default=300)
    options = parser.parse_args()
    rows: list[list[str]] = []
    medians: dict[int, float] = {}
    with Workspace() as workspace, ExitStack() as resources:
        bench = Bench(workspace, resources, options)
        with closing(Filler(bench.pool)) as filler:
            filler.add_elements(options.elements)
        base = bench.used()
        for live in (number for number in LIVE if number < options.blocks):
            bench.fill(live)
            bench.daemon.start()
            sample = bench.commits(options.rounds)
            bench.daemon.stop()
            medians[live] = sample.p50_ms
            rows.append([f"commit, {live:,} live snapshots", f"{sample.p50_ms:.1f}", f"{sample.p99_ms:.1f}"])
        bench.fill(options.blocks)
        full = bench.used()
        bench.daemon.start()
        bench.daemon.wait_indexed()
        most = len(bench.live())
        before = bench.commits(options.rounds)
        rows.append([f"commit, {most:,} live snapshots", f"{before.p50_ms:.1f}", f"{before.p99_ms:.1f}"])
        with step("pruning"):
            during, pruning_s = bench.prune()
        rows.append(["commit while pruning", f"{during.p50_ms:.1f}", f"{during.p99_ms:.1f}"])
        gone = most - len(bench.live()) + len(during) + options.rounds
        reads = bench.read_blocks(options.reads)
        rows.append(["a document of a pruned block read", f"{reads.p50_ms:.1f}", f"{reads.p99_ms:.1f}"])
        bench.daemon.stop()
        with step("verifying"):
            verify_s = bench.verify()
        log = bench.pool / "@log"
        packs = sum(path.stat().st_size for path in (log / "archive").iterdir())
        kept = sum(path.stat().st_blocks * 512 for path in log.rglob("*") if path.is_file())
        left = bench.used()
    print(format_table(["", "p50 ms", "p99 ms"], rows))
    print(f"\n{gone:,} snapshots pruned in {pruning_s:.1f} s; everything verified in {verify_s:.1f} s")
    print(f"disk per block with its snapshot: {(full - base) / options.blocks / 1024:.1f} KiB")
    print(f"packs for each pruned block: {packs / gone / 1024:.2f} KiB")
    print(
        f"the pool afterwards, index, ballast and {NEWEST} snapshots included: {(left - base) / (1 << 20):.0f} MiB more"
    )
    print(f"load {os.getloadavg()[0]:.1f}\n")
    verdicts = [
        Verdict(
            "commits with 1,000 live snapshots, beside 10", medians.get(1_000, float("nan")) / medians[10], SLOWER, "x"
        ),
        Verdict("commits while pruning, beside before", during.p50_ms / before.p50_ms, SLOWER, "x"),
        Verdict("archive and log on disk, for each block", kept / options.blocks / 1024, KIB_PER_BLOCK, "KiB"),
    ]
    print(format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts]))
    return 0 if all(verdict.outcome in ("ok", "not measured") for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
