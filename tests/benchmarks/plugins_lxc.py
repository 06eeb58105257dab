"""How fast 100 containers are observed and planned, half of them running, beside what `lxc-ls` needs to list them.

    scripts/bench plugins_lxc [--count 100] [--rounds 20] [--running 50]

Busybox containers below an LXC directory of their own; each has limits, and its control groups are read.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from typing import TYPE_CHECKING

import trio
from harness.table import VERDICT_HEADINGS, Sample, Verdict, format_table, number
from lxcworld import lxc_directory, new_name

from opfs.plugins.lxc.plugin import LxcPlugin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from opfs.core.action import Document

OBSERVE_TARGET_MS = 1000


async def make(plugin: LxcPlugin, wanted: Mapping[str, Document]) -> None:
    limit = trio.CapacityLimiter(4)

    async def make_one(element: str, document: Document) -> None:
        async with limit:
            for action in plugin.plan(element, None, document).actions:
                await plugin.apply(action)

    async with trio.open_nursery() as nursery:
        for element, document in wanted.items():
            nursery.start_soon(make_one, element, document)


def bench(lxcpath: Path, base: str, count: int, running: int, rounds: int) -> None:
    plugin = LxcPlugin(lxcpath)
    wanted: dict[str, Document] = {
        f"{base}-{index}": {
            "memory": 64,
            "cores": 1,
            "tags": "bench",
            "nameserver": "192.0.2.53",
            "state": "running" if index < running else "stopped",
        }
        for index in range(count)
    }
    making = Sample()
    making.measure(lambda: trio.run(make, plugin, wanted))
    found: Mapping[str, Document] = {}

    async def observe(elements: list[str] | None) -> None:
        nonlocal found
        found = await plugin.observe(elements)

    def plan_all() -> None:
        actions = [plugin.plan(name, found[name], document).actions for name, document in wanted.items()]
        assert not any(actions), "the plan is not empty"

    one = next(iter(wanted))
    work: dict[str, Callable[[], None]] = {
        f"observe one of {count}": lambda: trio.run(observe, [one]),
        f"observe all {count}": lambda: trio.run(observe, None),
        "no-op plan of all": plan_all,
        "lxc-ls --fancy of all": lambda: list_with_lxc(lxcpath),
    }
    samples = {what: Sample() for what in work}
    for _ in range(rounds):
        for what, operation in work.items():
            samples[what].measure(operation)
    rows = [[what, number(len(s)), number(s.p50_ms), number(s.p99_ms)] for what, s in samples.items()]
    rows.append([f"make all {count}, {running} of them started", "1", number(making.p50_ms), number(making.p99_ms)])
    print(format_table(["", "n", "p50 ms", "p99 ms"], rows))
    observed = samples[f"observe all {count}"]
    print(f"per container: {observed.p50_ms / count:.2f} ms")
    verdict = Verdict(f"observe all {count}, {running} running, p50", observed.p50_ms, OBSERVE_TARGET_MS, "ms")
    print(format_table(VERDICT_HEADINGS, [verdict.cells()]))


def list_with_lxc(lxcpath: Path) -> None:
    subprocess.run(["lxc-ls", "-P", lxcpath, "--fancy"], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="how many containers")
    parser.add_argument("--running", type=int, default=50, help="how many of them run")
    parser.add_argument("--rounds", type=int, default=20, help="how often each is measured")
    options = parser.parse_args()
    name = new_name()
    with lxc_directory(name, tempfile.gettempdir()) as lxcpath:
        bench(lxcpath, name, options.count, options.running, options.rounds)


if __name__ == "__main__":
    main()
