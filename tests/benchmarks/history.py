"""How fast the past is looked at: an element's versions listed, a time found among many blocks.

    scripts/bench history [--blocks 10000] [--elements 10] [--rounds 200]

The blocks are made by the commit path's own code without a mount, one change each, so every element has blocks /
elements versions. All else goes through the kernel, as `ls` and `readlink` do it. Beside the listing stands one of an
ordinary directory of btrfs with as many files. Prints milliseconds, and the processor time of the daemon, which other
work on the machine does not change; gates nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from harness.pools import NOOP_NAME, ORIGIN, Daemon, Filler, document, element_name
from harness.workspace import Workspace

from opfs.btrfs.pool import Pool
from opfs.core.header import BlockHeader
from opfs.core.timestamp import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable

LISTING_LIMIT_MS, AT_LIMIT_MS = 50.0, 10.0
POOL_BYTES = 16 << 30


class _Bench:
    """Measures, and prints a line for each thing measured."""

    def __init__(self, pid: int) -> None:
        self._tasks = Path(f"/proc/{pid}/task")

    def show(self, what: str, rounds: int, work: Callable[[], object], base: float = 0, limit_ms: float = 0) -> float:
        """Print the median and the 99th percentile, how often `base` that is, and whether it is within the limit."""
        times = []
        cpu_ns = self._cpu_ns()
        for _ in range(rounds):
            start = time.perf_counter()
            work()
            times.append((time.perf_counter() - start) * 1e3)
        cpu_ms = (self._cpu_ns() - cpu_ns) / 1e6 / rounds
        times.sort()
        p50, p99 = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
        ratio = f"{p50 / base:6.1f} x" if base else ""
        verdict = f"≤ {limit_ms:.0f} ms  {'ok' if p50 <= limit_ms else 'OVER'}" if limit_ms else ""
        print(
            f"{what:40} p50 {p50:7.2f}  p99 {p99:7.2f}  daemon {cpu_ms:6.2f} {ratio:9} {verdict}".rstrip(), flush=True
        )
        return p50

    def _cpu_ns(self) -> int:
        """What the daemon's threads have run, of all that are there (proc_pid_schedstat)."""
        return sum(int((task / "schedstat").read_text().split()[0]) for task in self._tasks.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=10_000)
    parser.add_argument("--elements", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    with Workspace() as workspace, ExitStack() as resources:
        root = workspace.filesystem("fs", POOL_BYTES, resources)
        pool = root / "pool"
        pool.mkdir(mode=0o700)
        Pool.create(pool, origin=ORIGIN, created_ns=time.time_ns()).close()
        start = time.perf_counter()
        with closing(Filler(pool)) as filler:
            filler.add_elements(options.elements)
            for _ in filler.add_blocks(options.blocks, options.elements):
                pass
        print(f"{options.blocks:,} blocks made in {time.perf_counter() - start:.1f} s", flush=True)
        daemon = Daemon(pool, workspace.path / "mount", workspace.path / "daemon.log")
        resources.callback(daemon.stop)
        print(f"mount ready after {daemon.start():.2f} s", flush=True)
        versions = daemon.mount / "history" / NOOP_NAME / element_name(0)
        start = time.perf_counter()
        count = _wait_listed(versions)
        print(f"history made from the blocks after {time.perf_counter() - start:.1f} s", flush=True)
        bench = _Bench(daemon.pid)
        _listings(bench, root, versions, count, options.rounds)
        _times(bench, daemon.mount, options.rounds)
        _versions(bench, versions, options.rounds)
        print(f"load {os.getloadavg()[0]:.1f}")


def _wait_listed(versions: Path) -> int:
    """Wait until the history has every block; returns how many versions there are."""
    while True:
        with suppress(TimeoutError):  # a request is not kept waiting for ever
            return len(os.listdir(versions))


def _listings(bench: _Bench, root: Path, versions: Path, count: int, rounds: int) -> None:
    plain = root / "plain"
    plain.mkdir()
    for number in range(count):
        (plain / f"{number}.json").write_bytes(document(0, number))
    few = max(10, rounds // 10)
    base = bench.show(f"listdir of {count:,} plain files", few, lambda: os.listdir(plain))
    bench.show(f"listdir of {count:,} versions", few, lambda: os.listdir(versions), base, LISTING_LIMIT_MS)
    base = bench.show(f"ls of {count:,} plain files", few, lambda: _run("ls", plain))
    bench.show(f"ls of {count:,} versions", few, lambda: _run("ls", versions), base, LISTING_LIMIT_MS)
    base = bench.show(f"ls -l of {count:,} plain files", few, lambda: _run("ls", "-l", plain))
    bench.show(f"ls -l of {count:,} versions", few, lambda: _run("ls", "-l", versions), base, LISTING_LIMIT_MS)


def _times(bench: _Bench, mount: Path, rounds: int) -> None:
    blocks = sorted(name for name in os.listdir(mount / "chain") if name[:1].isdigit())
    first, last = (
        parse_time(BlockHeader.decode((mount / "chain" / name / "block.json").read_bytes()).time)
        for name in (blocks[0], blocks[-1])
    )
    pick = random.Random(1)

    def at(name: str) -> str:
        return os.readlink(mount / "at" / name)

    base = bench.show("readlink chain/HEAD", rounds, lambda: os.readlink(mount / "chain" / "HEAD"))
    what = f"of {len(blocks):,} blocks"
    bench.show(f"at/<time>, the first {what}", 1, lambda: at(format_time(pick.randint(first, last))), base, AT_LIMIT_MS)
    bench.show(f"at/<time> {what}", rounds, lambda: at(format_time(pick.randint(first, last))), base, AT_LIMIT_MS)
    bench.show(f"at/<height> {what}", rounds, lambda: at(str(pick.randrange(len(blocks)))), base, AT_LIMIT_MS)
    bench.show(f"at/<block> {what}", rounds, lambda: at(pick.choice(blocks)), base, AT_LIMIT_MS)
    bench.show("at/now", rounds, lambda: at("now"), base, AT_LIMIT_MS)
    (mount / "ctl").write_text("label bench 1\n")
    bench.show("at/<label>", rounds, lambda: at("bench"), base, AT_LIMIT_MS)


def _versions(bench: _Bench, versions: Path, rounds: int) -> None:
    names = os.listdir(versions)
    pick = random.Random(2)
    bench.show("one version read", rounds, lambda: (versions / pick.choice(names)).read_bytes())
    bench.show(".versions read", max(10, rounds // 10), lambda: (versions / ".versions").read_bytes())


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
