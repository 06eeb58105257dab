"""Whether subvolumes have page caches of their own: hot pages of a file, and writes here or in another subvolume."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from opfs.btrfs import ioctl
from opfs.claims.claim import Bars, Finding, Table, Verdict, unknown
from opfs.claims.residency import resident_share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.claims.bench import Bench

_NAME = f"opfs-claims-{os.getpid()}"
_NOTICEABLE = 0.10
"""Of the hot pages; less is noise."""
WRITES = ("nowhere", "the same subvolume", "another subvolume")
_TIMES_MEMORY = 3
_TIMES_WRITTEN = 5
"""As much as the hot file: more than there is memory."""
READS = {"once": 1, "three times": 3}
"""Once read, a page is among the first to go; read again, it counts as in use."""

Kept = dict[tuple[str, str], float]
"""The share of the pages still in memory, by how often they were read and where was written."""


def measure(bench: Bench) -> Finding:
    place_of_group = _find_groups()
    if place_of_group is None:
        return unknown("It takes a memory cgroup that can be made, and there is none.")
    hot_bytes = bench.by_effort(16, 24, 48) << 20
    rounds = bench.by_effort(1, 3, 5)
    shares: dict[tuple[str, str], list[float]] = {}
    with _memory_group(*place_of_group, _TIMES_MEMORY * hot_bytes) as group, bench.filesystem(2 << 30) as place:
        _prepare(place, hot_bytes)
        directories = dict(zip(WRITES, (None, place / "hot", place / "other"), strict=True))
        for number in range(rounds):
            for read, times in READS.items():
                for where, directory in directories.items():
                    share = _survived(place / "hot/file", times, group, _TIMES_WRITTEN * hot_bytes, directory)
                    shares.setdefault((read, where), []).append(share)
            bench.progress(number, rounds)
        return judge({key: median(each) for key, each in shares.items()}, _snapshot_share(place))


def judge(kept: Kept, snapshot_share: float) -> Finding:
    """A placebo where writes in another subvolume evict as many pages as writes in the same."""
    nowhere, same, other = WRITES
    saves = max(kept[read, other] - kept[read, same] for read in READS)
    evicts = max(kept[read, nowhere] - kept[read, same] for read in READS)
    told = "; ".join(
        f"of pages that were read {read} {kept[read, same]:.0%} and {kept[read, other]:.0%}" for read in READS
    )
    said = (
        f"Under pressure there survive writes in the same and in another subvolume, {told}. The kernel keeps pages "
        "by file and takes them back by age and use, whatever subvolume they are of; what protects a cache is a "
        "memory limit of its own. Where subvolumes do make a difference it costs memory: of a file that is 100% in "
        f"memory, its copy in a snapshot is {snapshot_share:.0%} in memory, and is read again from the device."
    )
    table = Table(
        ("read", *(f"writes in {where}" if where != nowhere else "no writes" for where in WRITES)),
        tuple((read, *(f"{kept[read, where]:.0%}" for where in WRITES)) for read in READS),
    )
    if evicts < _NOTICEABLE:
        return Finding(Verdict.UNKNOWN, f"The writes evicted nothing, so there is nothing to compare. {said}", (table,))
    values = tuple((f"read {read}, {where}", kept[read, where] * 100) for read in READS for where in WRITES)
    bars = Bars("Hot pages that survive writes", "%", values)
    return Finding(Verdict.TRUE if saves > _NOTICEABLE else Verdict.PLACEBO, said, (table,), (bars,))


def _prepare(place: Path, hot_bytes: int) -> None:
    root = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in ("hot", "other"):
            ioctl.create_subvolume(root, name)
        (place / "hot/file").write_bytes(os.urandom(hot_bytes))
        ioctl.sync_filesystem(root)
    finally:
        os.close(root)


def _survived(hot: Path, times: int, group: Path, size_bytes: int, directory: Path | None) -> float:
    """The share of the pages that were hot and still are, in a process of its own."""
    _drop(hot)
    command = [sys.executable, "-m", "opfs.claims.pressure", str(hot), str(times), str(group), str(size_bytes)]
    done = subprocess.run(
        command if directory is None else [*command, str(directory)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the process with little memory failed: {done.stderr.strip()[-200:]}")
    before, after = map(float, done.stdout.split())
    return after / max(before, 1e-9)


def _drop(path: Path) -> None:
    """Out of the page cache, so that it is charged to whoever reads it next."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _snapshot_share(place: Path) -> float:
    """How much of a file is in memory in a snapshot, while all of it is in the subvolume."""
    (place / "hot/file").read_bytes()
    root, hot = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (place, place / "hot"))
    try:
        ioctl.create_snapshot(hot, root, "copy")
    finally:
        os.close(root)
        os.close(hot)
    return resident_share(place / "copy/file")


def _find_groups() -> tuple[Path, str] | None:
    """Where a cgroup with a limit of memory can be made, of version 2 or 1, and the name of the limit's file."""
    top, memory = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")
    if "memory" in _words(top / "cgroup.subtree_control") and os.access(top, os.W_OK):
        return top, "memory.max"
    if (memory / "memory.limit_in_bytes").exists() and os.access(memory, os.W_OK):
        return memory, "memory.limit_in_bytes"
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


@contextmanager
def _memory_group(parent: Path, limit: str, limit_bytes: int) -> Iterator[Path]:
    """A cgroup with so much memory; yields its file for process numbers. Raises OSError."""
    group = parent / _NAME
    group.mkdir()
    try:
        (group / limit).write_text(str(limit_bytes))
        yield group / "cgroup.procs"
    finally:
        group.rmdir()
