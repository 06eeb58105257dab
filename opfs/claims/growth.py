"""Blocks as they become more: time and room of a commit and of its snapshot, and what copy-on-write saves."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opfs.btrfs.pool import Pool
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.claims.bench import used_bytes
from opfs.claims.claim import Bars, Finding, Lines, Series, Table, Verdict
from opfs.claims.samples import Sample, in_bytes, in_ms
from opfs.core.names import BlockName, ElementId
from opfs.ports import DocumentWrite, FileAttributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from opfs.claims.bench import Bench

CLAIMED_S = 0.001
CLAIMED_FASTER = 100.0
CLAIMED_SAVING = 0.90
_NOTICEABLE = 1.5
"""So many times as slow is dearer, and not the weather."""
_SAMPLES = 40
DOCUMENTS = 1000
SIZE_BYTES = 600


@dataclass(slots=True)
class Stage:
    """What blocks cost while there are about so many snapshots."""

    snapshots: int
    commits: Sample = field(default_factory=Sample)
    shots: Sample = field(default_factory=Sample)
    bytes_each: float = 0.0


class Writer:
    """Blocks in a pool of its own, each with one changed document of `documents`."""

    def __init__(self, place: Path, documents: int) -> None:
        place.mkdir()
        Pool.create(place, origin="claims.example/opfs", created_ns=0).close()
        self._store = BtrfsSnapshotStore(place)
        self._ids = [ElementId("lxc", f"{number:05d}") for number in range(documents)]
        self._chance = random.Random(documents)
        self.height = self.oldest = 0

    def close(self) -> None:
        self._store.close()

    @property
    def newest(self) -> Path:
        return self._store.block_path(self._name(self.height - 1))

    def write(self, ids: list[ElementId] | None = None, stage: Stage | None = None) -> None:
        """One block; of every document where it is the first."""
        chosen = ids or (self._ids if self.height == 0 else [self._chance.choice(self._ids)])
        writes = [DocumentWrite(id, self._content(), FileAttributes(0o644, 0, 0, self.height)) for id in chosen]
        header, events = (json.dumps({"height": self.height, "of": name, "x": "0" * 500}).encode() for name in "he")
        stage = stage or Stage(0)
        shot = stage.shots.timed()
        with stage.commits.timed():
            self._store.write_block(self._name(self.height), writes, header, events, shot.__enter__)
            shot.__exit__(None, None, None)
        self.height += 1

    def forget_before_newest(self) -> None:
        """Delete every block but the newest."""
        self._store.delete_blocks([self._name(height) for height in range(self.oldest, self.height - 1)])
        self.oldest = self.height - 1

    def some(self, count: int) -> list[ElementId]:
        return self._chance.sample(self._ids, count)

    def _content(self) -> bytes:
        """A document that no compression makes much less."""
        return json.dumps({"hostname": "web", "note": self._chance.randbytes(SIZE_BYTES // 2).hex()}).encode()

    def _name(self, height: int) -> BlockName:
        return BlockName(height, f"{height:012x}")


def grow(bench: Bench, place: Path, goals: tuple[int, ...]) -> Iterator[Stage]:
    """A stage with one snapshot, and one for each number, measured with the last blocks before it is reached."""
    writer = Writer(place / "pool", DOCUMENTS)
    try:
        writer.write()
        first = Stage(1)
        for _ in range(bench.by_effort(10, _SAMPLES)):
            writer.write(stage=first)
            writer.forget_before_newest()
        yield first
        used, before = used_bytes(place), writer.height
        for goal in goals:
            stage = Stage(goal)
            while (live := writer.height - writer.oldest) < goal:
                writer.write(stage=stage if goal - live <= _SAMPLES else None)
                if live % 20 == 0:
                    bench.progress(live, goals[-1])
            now = used_bytes(place)
            stage.bytes_each = (now - used) / (writer.height - before)
            used, before = now, writer.height
            yield stage
    finally:
        writer.close()


def goals_of(bench: Bench) -> tuple[int, ...]:
    return ((20, 60), (100, 1000), (100, 1000, 10_000))[bench.effort]


def _stages(bench: Bench) -> tuple[list[Stage], Sample]:
    """Measured once, for both claims that look at them; and synced files on the same device."""
    if "stages" not in bench.remembered:
        with bench.filesystem(bench.by_effort(1, 4, 16) << 30) as place:
            bench.remembered["stages"] = list(grow(bench, place, goals_of(bench))), _plain_blocks(place)
    measured: tuple[list[Stage], Sample] = bench.remembered["stages"]
    return measured


def measure_snapshots(bench: Bench) -> Finding:
    return judge_snapshots(*_stages(bench))


def measure_cost(bench: Bench) -> Finding:
    return judge_cost(_stages(bench)[0])


def _plain_blocks(place: Path) -> Sample:
    """A block as others keep it: a file that is written and synced, here of one document and its header."""
    sample = Sample()
    for number in range(_SAMPLES):
        with sample.timed():
            descriptor = os.open(place / f"plain-{number}", os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, os.urandom(2 * SIZE_BYTES))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    return sample


def judge_snapshots(stages: list[Stage], plain: Sample) -> Finding:
    """True where a snapshot takes 1 ms at every count, and a block is 100 times as fast as a synced file."""
    shots = [stage.shots.p50_s for stage in stages]
    ratio = plain.p50_s / stages[0].commits.p50_s
    in_time = [shot <= CLAIMED_S for shot in shots]
    verdict = (
        Verdict.TRUE if all(in_time) and ratio >= CLAIMED_FASTER else Verdict.PARTLY if any(in_time) else Verdict.FALSE
    )
    said = (
        f"The snapshot alone takes {in_ms(shots[0])} at the median with {stages[0].snapshots} of them and "
        f"{in_ms(shots[-1])} with {stages[-1].snapshots:,}. What is acknowledged is more than that: documents "
        f"written and synced, and then the snapshot, {in_ms(stages[0].commits.p50_s)} and "
        f"{in_ms(stages[-1].commits.p50_s)}. A block as one synced file takes {in_ms(plain.p50_s)} on the same "
        f"device, so a block here is {ratio:.2g} times as fast as that, not 100 times: both wait for the same device."
    )
    rows = [
        (f"{stage.snapshots:,}", in_ms(stage.shots.p50_s), in_ms(stage.shots.p99_s), in_ms(stage.commits.p50_s),
         in_ms(stage.commits.p99_s))
        for stage in stages
    ]  # fmt: skip
    rows.append(("one synced file", "", "", in_ms(plain.p50_s), in_ms(plain.p99_s)))
    table = Table(("snapshots", "snapshot p50", "p99", "durable block p50", "p99"), tuple(rows))
    return Finding(verdict, said, (table,), (_latency_plot(stages),))


def _latency_plot(stages: list[Stage]) -> Lines:
    return Lines(
        f"A block of one change in {DOCUMENTS:,} documents, median",
        "live snapshots",
        "milliseconds",
        (
            Series("durable block", tuple((stage.snapshots, stage.commits.p50_s * 1000) for stage in stages)),
            Series("snapshot alone", tuple((stage.snapshots, stage.shots.p50_s * 1000) for stage in stages)),
        ),
    )


def judge_cost(stages: list[Stage]) -> Finding:
    """True where neither time nor bytes of a block grow noticeably with the number of snapshots."""
    slower = stages[-1].commits.p50_s / stages[0].commits.p50_s
    grown = [stage for stage in stages if stage.bytes_each > 0]
    larger = grown[-1].bytes_each / grown[0].bytes_each if grown else 1.0
    is_dear = slower > _NOTICEABLE or larger > _NOTICEABLE
    said = (
        f"With {stages[-1].snapshots:,} snapshots a commit takes {slower:.2g} times as long as at the start, and a "
        f"block takes {in_bytes(stages[-1].bytes_each)} of the device, of which the changed document is "
        f"{in_bytes(SIZE_BYTES)}: the rest is metadata, copied on write and kept twice. So the proposal's thousands "
        "of snapshots "
        + ("have a price; opfs keeps a bounded number of them live and archives the others." if is_dear else
           "have their price in room, not in time; opfs keeps a bounded number of them live and archives the others.")
    )  # fmt: skip
    rows = tuple(
        (
            f"{stage.snapshots:,}",
            in_ms(stage.commits.p50_s),
            in_ms(stage.commits.p99_s),
            in_bytes(stage.bytes_each) if stage.bytes_each else "",
        )
        for stage in stages
    )
    plots: list[Lines | Bars] = [_latency_plot(stages)]
    if len(grown) > 1:
        points = tuple((float(stage.snapshots), stage.bytes_each / 1024) for stage in grown)
        plots.append(Lines("Room of a block", "live snapshots", "KiB", (Series("on the device", points),)))
    return Finding(
        Verdict.FALSE if is_dear else Verdict.PARTLY, said,
        (Table(("snapshots", "durable block p50", "p99", "bytes of a block"), rows),), tuple(plots),
    )  # fmt: skip


def measure_saving(bench: Bench) -> Finding:
    """A block against a full copy of the tree, for trees of several sizes."""
    counts = ((10, 100), (10, 100, 1000), (10, 100, 1000, 10_000))[bench.effort]
    blocks = bench.by_effort(10, 50)
    found = []
    for number, count in enumerate(counts):
        with bench.filesystem(2 << 30) as place:
            writer = Writer(place / "pool", count)
            try:
                empty = used_bytes(place)
                writer.write()
                first = used_bytes(place)
                for _ in range(blocks):
                    writer.write()
                found.append((count, first - empty, (used_bytes(place) - first) / blocks))
            finally:
                writer.close()
        bench.progress(number, len(counts))
    return judge_saving(found)


def judge_saving(found: Sequence[tuple[int, float, float]]) -> Finding:
    """(documents, bytes of the whole tree, bytes of a block more): true where at least 90 % is saved in each."""
    savings = [(count, 1 - each / whole) for count, whole, each in found]
    good = [saving >= CLAIMED_SAVING for _, saving in savings]
    verdict = Verdict.TRUE if all(good) else Verdict.PARTLY if any(good) else Verdict.FALSE
    told = ", ".join(f"{saving:.0%} with {count:,} documents" for count, saving in savings)
    said = (
        f"One change, against a copy of the whole tree: {told}. What a block costs hardly depends on the tree, so a "
        "large one saves much and a small one nothing: below a few hundred documents the metadata of a snapshot is "
        "larger than a copy of all documents."
    )
    rows = tuple(
        (f"{count:,}", in_bytes(whole), in_bytes(each), f"{1 - each / whole:.1%}") for count, whole, each in found
    )
    return Finding(verdict, said, (Table(("documents", "all of them", "a block", "saved"), rows),))
