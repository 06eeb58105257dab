"""What a commit costs: opfs through its real mount, beside fsync, a bare snapshot, git and etckeeper, in one run.

    scripts/bench commit [--quick] [--elements 1000 10000] [--blocks 10 1000 5000] [--rounds 30] [--json FILE]

For each tree there are file systems of the same kind, each on a loop device: the pool, a tree of as many documents
and live snapshots for the bare snapshot, and one for git and etckeeper. All of them are measured in turns, a few
changes each, so that the machine's noise hits all alike. docs/benchmarks.md explains the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from committing.results import WRITERS, Measured, Started, Tree, print_results, to_json, verdicts_of
from harness.baselines import BareSnapshots, Etckeeper, Fsync, GitRepository, is_etckeeper_here
from harness.clients import run_writers, write_document
from harness.pools import NOOP_NAME, ORIGIN, Daemon, Filler, changed_element, daemon_environment, document, element_name
from harness.table import progress, step
from harness.workspace import Workspace

from opfs.btrfs.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


WRITER_PROCESSES = 4
FILE_ELEMENTS = 16
POOL_BYTES = 16 << 30
START_ELEMENTS, START_BLOCKS = 10_000, 1_000

PER_ROUND = {"fsync": 4, "bare": 10, "noop": 10, "held": 10, "file": 5, "git": 2, "etckeeper": 1}
"""How many changes in a turn: a turn is long enough to be steady and short enough to share the noise."""


# --- one tree --------------------------------------------------------------------------------------------


def measure_tree(workspace: Workspace, tree: Tree, options: argparse.Namespace) -> Measured:
    """Everything on one tree; its file systems and daemon are gone when it returns."""
    measured = Measured(tree)
    with ExitStack() as resources:
        pool = make_pool(workspace, tree, resources)
        bare_root = workspace.filesystem("bare", POOL_BYTES, resources)
        with step(f"{tree}: a bare tree of {tree.elements:,} documents"):
            bare = resources.enter_context(closing(BareSnapshots(bare_root, tree.elements)))
        grow(bare, tree.blocks + 2)  # the pool has genesis and the block of all documents besides
        changes: dict[str, Callable[[], None]] = {
            "fsync": resources.enter_context(closing(Fsync(bare_root))).change,
            "bare": bare.change,
        }
        if tree.with_peers:
            peers = workspace.filesystem("peers", POOL_BYTES, resources)
            with step(f"{tree}: repositories for git and etckeeper"):
                changes["git"] = GitRepository(peers / "git", tree.elements).change
                if is_etckeeper_here():
                    changes["etckeeper"] = Etckeeper(peers / "etckeeper", tree.elements).change
        daemon = Daemon(pool, workspace.path / "mount", workspace.path / "daemon.log")
        resources.callback(daemon.stop)
        daemon.start()
        with step(f"{tree}: waiting for the search index"):
            daemon.wait_indexed()
        changes["noop"] = NoopWriter(daemon.mount, tree.elements).change
        if tree.with_peers:
            changes["held"] = NoopWriter(serve_at_intervals(workspace, tree, resources), tree.elements).change
        changes["file"] = FileWriter(daemon.mount, workspace.path / "files").change
        for _ in range(FILE_ELEMENTS):
            changes["file"]()
        run_rounds(measured, changes, daemon, bare, options)
        measured.blocks_after = daemon.block_count()
    return measured


def serve_at_intervals(workspace: Workspace, tree: Tree, resources: ExitStack) -> Path:
    """The mount of another daemon, on a pool of the same kind, that makes no block while it is measured."""
    pool = make_pool(workspace, tree, resources, "held")
    daemon = Daemon(
        pool, workspace.path / "mount-held", workspace.path / "held.log", {"OPFS_SNAPSHOT_INTERVAL": "weekly"}
    )
    resources.callback(daemon.stop)
    daemon.start()
    daemon.wait_indexed()
    return daemon.mount


def make_pool(workspace: Workspace, tree: Tree, resources: ExitStack, name: str = "pool") -> Path:
    pool = workspace.filesystem(name, POOL_BYTES, resources)
    Pool.create(pool, origin=ORIGIN, created_ns=0).close()
    with closing(Filler(pool)) as filler:
        with step(f"{tree}: a pool of {tree.elements:,} documents"):
            filler.add_elements(tree.elements)
        follow(f"{tree}: blocks of the pool", filler.add_blocks(tree.blocks, tree.elements), tree.blocks)
    return pool


def grow(bare: BareSnapshots, snapshot_count: int) -> None:
    """As many live snapshots as the pool has."""
    follow("snapshots of the bare tree", bare.grow(snapshot_count), snapshot_count)


def follow(what: str, steps: Iterator[int], total: int) -> None:
    for done in steps:
        if done % 200 == 0:
            progress(f"{what}: {done:,} of {total:,}")


class NoopWriter:
    """One program that writes documents of the no-op plugin, one after the other."""

    def __init__(self, mount: Path, elements: int) -> None:
        self._directory = mount / "state" / NOOP_NAME
        self._elements = elements
        self._count = 0

    def change(self) -> None:
        self._count += 1
        index = changed_element(self._count, self._elements)
        write_document(f"{self._directory}/{element_name(index)}.json", document(index, 1_000_000 + self._count))


class FileWriter:
    """The same with plugin file: each document replaces a real file beside the pool."""

    def __init__(self, mount: Path, targets: Path) -> None:
        targets.mkdir(exist_ok=True)
        self._directory = mount / "state" / "file"
        self._targets = targets
        self._count = 0

    def change(self) -> None:
        self._count += 1
        name = element_name(self._count % FILE_ELEMENTS)
        target = {"path": str(self._targets / name), "content": f"revision {self._count}\n" + "# a line\n" * 20}
        write_document(f"{self._directory}/{name}.json", json.dumps(target).encode() + b"\n")


def run_rounds(
    measured: Measured,
    changes: dict[str, Callable[[], None]],
    daemon: Daemon,
    bare: BareSnapshots,
    options: argparse.Namespace,
) -> None:
    """Turns of everything, and between them, so many times, a burst of many writers."""
    kinds = [kind for kind in PER_ROUND if kind in changes]
    for kind in kinds:
        changes[kind]()  # warm: not counted
    daemon.wait_indexed()
    for round_number in range(options.rounds):
        progress(f"{measured.tree}: round {round_number + 1} of {options.rounds}")
        for kind in kinds if round_number % 2 else reversed(kinds):
            for _ in range(PER_ROUND[kind]):
                measured.samples[kind].measure(changes[kind])
            if kind in ("noop", "file"):
                daemon.wait_indexed()  # or embedding goes on while the next one is measured
        grow(bare, daemon.block_count())
        if (round_number + 1) * options.bursts // options.rounds > round_number * options.bursts // options.rounds:
            run_burst(measured, daemon, options.burst_seconds)
            grow(bare, daemon.block_count())


def run_burst(measured: Measured, daemon: Daemon, seconds: float) -> None:
    directory = daemon.mount / "state" / NOOP_NAME
    documents = {f"{directory}/{element_name(index)}.json": document(index, 0) for index in range(WRITERS)}
    progress(f"{measured.tree}: {WRITERS} writers")
    durations_s, busy_s = run_writers(documents, WRITER_PROCESSES, seconds)
    measured.samples["many"].add(durations_s, busy_s)
    with step(f"{measured.tree}: waiting for the search index"):
        measured.lag_s = daemon.wait_indexed()


def measure_starts(workspace: Workspace, options: argparse.Namespace) -> Started:
    """Start on a pool whose index is not made yet, let it be made, look at the memory, then start again."""
    started = Started(options.start_elements, options.start_blocks)
    with ExitStack() as resources:
        pool = make_pool(workspace, Tree(started.elements, started.blocks, with_peers=False), resources)
        daemon = Daemon(pool, workspace.path / "mount", workspace.path / "daemon.log")
        resources.callback(daemon.stop)
        started.first_s = daemon.start()
        with step("waiting for the search index"):
            started.indexed_s = daemon.wait_indexed()
        started.rss_mb, started.anonymous_mb = daemon.memory_mb("VmRSS"), daemon.memory_mb("RssAnon")
        for _ in range(options.starts):
            daemon.stop()
            seconds = daemon.start()
            started.again.add([seconds], seconds)
    command = [sys.executable, "-m", "opfs", "--help"]
    for _ in range(max(5, 2 * options.starts)):
        started.help.measure(lambda: _run_quietly(command, workspace.path))
    return started


def _run_quietly(command: list[str], directory: Path) -> None:
    subprocess.run(command, env=daemon_environment(directory), check=True, stdout=subprocess.DEVNULL)


# --- the program -----------------------------------------------------------------------------------------


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench commit", description="What a commit costs.")
    parser.add_argument("--elements", type=int, nargs="+", default=[1_000, 10_000], help="documents in the trees")
    parser.add_argument(
        "--blocks",
        type=int,
        nargs="+",
        default=[10, 1_000, 5_000],
        help="live blocks; all but the first with the first tree only",
    )
    parser.add_argument("--rounds", type=int, default=30, help="turns of each row")
    parser.add_argument("--bursts", type=int, default=3, help=f"bursts of {WRITERS} writers, spread over the rounds")
    parser.add_argument("--burst-seconds", type=float, default=3.0, help="how long each burst lasts")
    parser.add_argument("--starts", type=int, default=5, help="starts of the daemon; 0 leaves that part out")
    parser.add_argument("--quick", action="store_true", help="a small run, to see that everything works")
    parser.add_argument("--keep", action="store_true", help="leave the images and the daemon's log behind")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    options = parser.parse_args()
    options.start_elements, options.start_blocks = START_ELEMENTS, START_BLOCKS
    if options.quick:
        options.elements, options.blocks, options.rounds = [100], [10, 50], 4
        options.bursts, options.burst_seconds, options.starts = 1, 1.0, 2
        options.start_elements, options.start_blocks = 200, 20
    if min([*options.elements, *options.blocks]) < 1 or min(options.elements) < WRITERS:
        parser.error(f"at least {WRITERS} elements, one for each writer, and one block")
    return options


def main() -> None:
    options = parse_options()
    if os.geteuid() != 0:
        sys.exit("scripts/bench commit: run as root: it mounts file systems of its own")
    sizes = [Tree(elements, options.blocks[0], with_peers=True) for elements in options.elements]
    sizes += [Tree(options.elements[0], blocks, with_peers=False) for blocks in options.blocks[1:]]
    with Workspace(keep=options.keep) as workspace:
        trees = [measure_tree(workspace, tree, options) for tree in sizes]
        started = measure_starts(workspace, options) if options.starts else None
    verdicts = verdicts_of(trees, started)
    print_results(trees, started, verdicts)
    if options.json is not None:
        options.json.write_text(json.dumps(to_json(trees, started, verdicts), indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
