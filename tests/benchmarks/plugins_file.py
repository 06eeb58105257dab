"""How fast 10,000 managed files are observed and planned, beside reading the same files.

    scripts/bench plugins_file [--count 10000] [--rounds 5]

Files of 2 KiB in a hundred directories, each an element with its record.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from harness.table import Sample, format_table, number

from opfs.plugins.file.plugin import FilePlugin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opfs.core.action import Document


def bench(place: Path, count: int, rounds: int) -> None:
    plugin = FilePlugin(place / "records")
    wanted: dict[str, Document] = {}
    for index in range(count):
        directory = place / "files" / f"{index % 100:02}"
        directory.mkdir(parents=True, exist_ok=True)
        wanted[f"f{index}"] = {"path": f"{directory}/{index}", "content": f"{index}\n" * 300, "mode": "0644"}

    async def make() -> None:
        for element, document in wanted.items():
            for action in plugin.plan(element, None, document).actions:
                await plugin.apply(action)

    making = Sample()
    making.measure(lambda: trio.run(make))
    found: Mapping[str, Document] = {}

    async def observe(elements: list[str] | None) -> None:
        nonlocal found
        found = await plugin.observe(elements)

    def plan_all() -> None:
        actions = [plugin.plan(name, found[name], document).actions for name, document in wanted.items()]
        assert not any(actions), "the plan is not empty"

    paths = [Path(document["path"]) for document in wanted.values()]

    def read_all() -> None:
        for path in paths:
            path.read_bytes()

    work: dict[str, Callable[[], None]] = {
        f"observe one of {count:,}": lambda: trio.run(observe, ["f0"]),
        f"observe all {count:,}": lambda: trio.run(observe, None),
        "no-op plan of all": plan_all,
        "read all": read_all,
    }
    samples = {what: Sample() for what in work}
    for _ in range(rounds):
        for what, operation in work.items():
            samples[what].measure(operation)
    rows = [[what, number(len(s)), number(s.p50_ms), number(s.p99_ms)] for what, s in samples.items()]
    rows.append([f"write all {count:,}, one after the other", "1", number(making.p50_ms), number(making.p99_ms)])
    print(format_table(["", "n", "p50 ms", "p99 ms"], rows))
    ratio = samples[f"observe all {count:,}"].p50_ms / samples["read all"].p50_ms
    print(f"observe all is {ratio:.1f} times as long as reading all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="how many files")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="opfs-bench-file-") as place:
        bench(Path(place), options.count, options.rounds)


if __name__ == "__main__":
    main()
