"""What the two trees cost as they grow: changing a document in the state tree, appending a block to the log.

    scripts/bench trees [--elements 1000 10000 100000] [--blocks 100 1000 10000 100000] [--rounds 2000] [--json FILE]

Both must be flat. Sizes are measured in turns, so that the machine's noise hits all alike. The log is the real one,
with its keys and files on btrfs; it is filled in one append and measured block by block, signatures included. `signed
ahead` is what of it a commit waits for, because signing is done while the snapshot is made; `files` follow a commit.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from harness.table import VERDICT_HEADINGS, Sample, Verdict, end_progress, format_table, number, progress, step
from harness.workspace import Workspace

from opfs.core.canonical import hash_bytes
from opfs.core.header import GENESIS_PREV, BlockHeader
from opfs.core.names import ElementId
from opfs.core.statetree import StateTree
from opfs.core.timestamp import format_time
from opfs.tlog.keys import KeyStore
from opfs.tlog.log import FileLog

if TYPE_CHECKING:
    from collections.abc import Iterator

ORIGIN = "bench.example/opfs"
FLAT_WITHIN = 2.0
TURN = 100
FILESYSTEM_BYTES = 4 << 30


def element(index: int) -> ElementId:
    return ElementId("noop", f"element-{index}")


class State:
    """A state tree of `elements` documents, of which one is changed at a time."""

    def __init__(self, elements: int) -> None:
        self.size = elements
        self.sample = Sample()
        self._changed = 0
        self._tree = StateTree.of((element(index), hash_bytes(b"%d" % index)) for index in range(elements))

    def turn(self, count: int) -> None:
        for _ in range(count):
            self._changed += 1
            change = {element(self._changed * 7919 % self.size): hash_bytes(b"changed %d" % self._changed)}
            self.sample.measure(lambda change=change: self._update(change))

    def _update(self, change: dict[ElementId, bytes | None]) -> None:
        self._tree = self._tree.updated(change)


class Log:
    """A log of `blocks` headers on disk, to which one is appended at a time."""

    def __init__(self, directory: Path, blocks: int) -> None:
        self.size = blocks
        self.whole, self.ahead, self.files = Sample(), Sample(), Sample()
        (directory / "log").mkdir(parents=True)
        self._log = FileLog.open(directory / "log", ORIGIN, KeyStore(directory / "keys", ORIGIN))
        self._log.append(self._headers(blocks), time.time_ns())
        self._log.store()

    def turn(self, count: int) -> None:
        for round_ in range(count):
            (header,) = self._headers(1)
            now_ns = time.time_ns()
            if round_ % 2:
                self._log.foresee(header, now_ns)
                self.ahead.measure(lambda header=header, now_ns=now_ns: self._log.append((header,), now_ns))
            else:
                self.whole.measure(lambda header=header, now_ns=now_ns: self._log.append((header,), now_ns))
            self.files.measure(self._log.store)

    def _headers(self, count: int) -> Iterator[bytes]:
        for height in range(self._log.size, self._log.size + count):
            yield BlockHeader(
                origin=ORIGIN,
                height=height,
                prev=GENESIS_PREV,
                time=format_time(time.time_ns()),
                state_root=hash_bytes(b"%d" % height).hex(),
                state_count=height,
                events_root=GENESIS_PREV,
                events_first=height,
                events_count=1,
            ).encode()


def take_turns(sizes: list[State] | list[Log], rounds: int, what: str) -> None:
    for done in range(0, rounds, TURN):
        progress(f"{what}: {done} of {rounds}")
        for item in sizes:
            item.turn(min(TURN, rounds - done))
    end_progress()


def microseconds(sample: Sample, percent: float) -> str:
    return number(sample.percentile_s(percent) * 1e6)


def flat(what: str, first: Sample, last: Sample) -> Verdict:
    return Verdict(what, last.percentile_s(50) / first.percentile_s(50), FLAT_WITHIN, "times")


def main() -> None:
    parser = argparse.ArgumentParser(description="the cost of the state tree and of the log, by their size")
    parser.add_argument("--elements", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--blocks", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=2_000, help="changes and appends at each size")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    with ExitStack() as resources:
        workspace = resources.enter_context(Workspace())
        root = workspace.filesystem("logs", FILESYSTEM_BYTES, resources)
        states = []
        for elements in options.elements:
            with step(f"a state tree of {elements:,}"):
                states.append(State(elements))
        take_turns(states, options.rounds, "changing documents")
        logs = []
        for blocks in options.blocks:
            with step(f"a log of {blocks:,}"):
                logs.append(Log(root / str(blocks), blocks))
        take_turns(logs, options.rounds, "appending blocks")
    print("State tree: one document changed, in microseconds\n")
    rows = [[f"{s.size:,} elements", microseconds(s.sample, 50), microseconds(s.sample, 99)] for s in states]
    print(format_table(("", "p50", "p99"), rows))
    print("\nLog: one block appended, in microseconds\n")
    rows = [
        [
            f"{log.size:,} blocks",
            *(microseconds(sample, p) for sample in (log.whole, log.ahead, log.files) for p in (50, 99)),
        ]
        for log in logs
    ]
    print(format_table(("", "p50", "p99", "signed ahead p50", "p99", "files p50", "p99"), rows))
    verdicts = [
        flat("state tree, largest to smallest", states[0].sample, states[-1].sample),
        flat("log, largest to smallest", logs[0].whole, logs[-1].whole),
        flat("files of the log, largest to smallest", logs[0].files, logs[-1].files),
        Verdict("log, what a commit waits for", logs[-1].ahead.p50_ms, 1.0, "ms"),
    ]
    print(f"\n{format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts])}")
    if options.json:
        options.json.write_text(json.dumps([verdict.to_json() for verdict in verdicts], indent=2) + "\n")


if __name__ == "__main__":
    main()
