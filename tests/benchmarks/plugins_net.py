"""How fast 1,000 network interfaces are observed and planned, beside what `ip` needs to list them.

    scripts/bench plugins_net [--count 1000] [--rounds 30]

Bridges, veth pairs and VXLANs, one address each and a route on every tenth, in a network namespace of their own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from harness.table import VERDICT_HEADINGS, Sample, Verdict, format_table, number

sys.path.insert(0, str(Path(__file__).parents[1]))

from namespaces import run_in_namespaces

from opfs.core.schema import DocumentSchema
from opfs.plugins.net.plugin import NetPlugin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opfs.core.action import Document

BY_IP = "ip: links, addresses and routes of all"
OBSERVE_TARGET_MS, PLAN_TARGET_MS = 150, 300


def documents(count: int) -> dict[str, Document]:
    """A third bridges, a third veth ends in pairs, a third VXLANs."""
    wanted: dict[str, Document] = {}
    for index in range(count):
        address = f"10.{index >> 8}.{index & 255}.1/24"
        shared = {"addresses": [address, f"2001:db8:{index:x}::1/64"]}
        if index % 10 == 0:
            shared["routes"] = [{"to": f"172.{16 + (index >> 8)}.{index & 255}.0/24", "via": address[:-4] + "9"}]
        if index % 3 == 0:
            wanted[f"br{index}"] = {"type": "bridge", "bridge": {"ageing_time": 60}, **shared}
        elif index % 3 == 1:
            pair, side = divmod(index // 3, 2)
            wanted[f"ve{pair}-{side}"] = {"type": "veth", "peer": f"ve{pair}-{1 - side}", **shared}
        else:
            wanted[f"vx{index}"] = {"type": "vxlan", "vxlan": {"id": index, "port": 4789}, **shared}
    return wanted


async def make(plugin: NetPlugin, wanted: Mapping[str, Document]) -> None:
    limit = trio.CapacityLimiter(4)

    async def make_one(element: str, document: Document) -> None:
        async with limit:
            found = await plugin.observe([element])
            for action in plugin.plan(element, found.get(element), document).actions:
                await plugin.apply(action)

    async with trio.open_nursery() as nursery:
        for element, document in wanted.items():
            nursery.start_soon(make_one, element, document)


def bench(count: int, rounds: int) -> None:
    plugin, wanted = NetPlugin(), documents(count)
    schema = DocumentSchema(plugin.schema)
    making = Sample()
    making.measure(lambda: trio.run(make, plugin, wanted))
    found: Mapping[str, Document] = {}

    async def observe(elements: list[str] | None) -> None:
        nonlocal found
        found = await plugin.observe(elements)

    def plan_all() -> None:
        actions = [plugin.plan(name, found[name], document).actions for name, document in wanted.items()]
        assert not any(actions), "the plan is not empty"

    def compare_all() -> None:
        assert not any(plugin.compare(name, document, found[name]) for name, document in wanted.items())

    one = next(iter(wanted))
    work: dict[str, Callable[[], None]] = {
        f"observe all {count:,}": lambda: trio.run(observe, None),
        "no-op plan of all": plan_all,
        "compare all": compare_all,
        f"observe one of {count:,}": lambda: trio.run(observe, [one]),
        BY_IP: list_with_ip,
    }
    samples = {what: Sample() for what in work}
    for _ in range(rounds):
        trio.run(observe, None)
        for what, operation in work.items():
            if what.startswith("no-op"):
                trio.run(observe, None)
            samples[what].measure(operation)
    trio.run(observe, None)
    assert all(schema.check(document, b"{}") is None for document in found.values())
    rows = [[what, number(len(s)), number(s.p50_ms), number(s.p99_ms)] for what, s in samples.items()]
    rows = [
        [*row, number(sample.p50_ms / samples[BY_IP].p50_ms)]
        for row, sample in zip(rows, samples.values(), strict=True)
    ]
    rows.append([f"make all {count:,}, four at a time", "1", number(making.p50_ms), number(making.p99_ms), "-"])
    print(format_table(["", "n", "p50 ms", "p99 ms", "x ip"], rows))
    started = time.process_time()
    trio.run(observe, None)
    print(f"CPU time of observing all {count:,}: {(time.process_time() - started) * 1000:.0f} ms\n")
    observed, planned = samples[f"observe all {count:,}"], samples["no-op plan of all"]
    verdicts = [
        Verdict(f"observe all {count:,}, p50", observed.p50_ms, OBSERVE_TARGET_MS, "ms"),
        Verdict("no-op plan of all, observing included, p50", observed.p50_ms + planned.p50_ms, PLAN_TARGET_MS, "ms"),
    ]
    print(format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts]))


def list_with_ip() -> None:
    every = ("route", "show", "table", "all")
    for words in (("-d", "link"), ("addr",), every, ("-6", *every)):
        subprocess.run(["ip", "-j", *words], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="how many interfaces")
    parser.add_argument("--rounds", type=int, default=30, help="how often each is measured")
    options = parser.parse_args()
    run_in_namespaces(lambda: bench(options.count, options.rounds), limit_s=600)


if __name__ == "__main__":
    main()
