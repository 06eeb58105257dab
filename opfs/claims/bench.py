"""Where claims are measured: a directory of its own, btrfs in an image of its own, all of it removed at the end.

Blocking, one thread. Needs root, for the loop device and the mount.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opfs import __version__
from opfs.btrfs import ioctl
from opfs.btrfs.image import attach, create_image, detach
from opfs.btrfs.mounts import mount_at
from opfs.core.timestamp import format_time
from opfs.errors import PoolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

IMAGE_BYTES = 4 << 30
_TWO_COPIES = 1 << 5  # BTRFS_BLOCK_GROUP_DUP
_GLOBAL_RESERVE = 1 << 49
_BUSY_SHARE = 0.3
_CLEANING_S, _LOOK_S = 60.0, 0.1


class Effort(IntEnum):
    """How much is measured: seconds, minutes, or tens of minutes."""

    QUICK = 0
    NORMAL = 1
    FULL = 2


@dataclass(frozen=True, slots=True)
class Bench:
    """What measuring has at hand; `progress` is told how many of how many steps of a claim are done."""

    directory: Path
    effort: Effort
    models: Path
    progress: Callable[[int, int], None]
    remembered: dict[str, Any] = field(default_factory=dict)
    """What one claim measured and another needs."""

    @contextmanager
    def filesystem(self, size_bytes: int = IMAGE_BYTES) -> Iterator[Path]:
        """A new btrfs as a pool has it, mounted; gone afterwards."""
        place = Path(tempfile.mkdtemp(prefix="fs-", dir=self.directory))
        image, mount_point = place / "image", place / "mount"
        mount_point.mkdir()
        create_image(image, size_bytes)
        attach(image, mount_point)
        try:
            yield mount_point
        finally:
            _unmount(mount_point, image)
            shutil.rmtree(place, ignore_errors=True)

    def by_effort(self, quick: int, normal: int, full: int | None = None) -> int:
        return (quick, normal, normal if full is None else full)[self.effort]


@contextmanager
def open_bench(
    effort: Effort, models: Path, progress: Callable[[int, int], None], below: Path, remembered: dict[str, Any]
) -> Iterator[Bench]:
    """A bench with a directory below `below`, removed at the end; `remembered` outlives it."""
    directory = Path(tempfile.mkdtemp(prefix="opfs-claims-", dir=below))
    try:
        yield Bench(directory, effort, models, progress, remembered)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _unmount(mount_point: Path, image: Path) -> None:
    """A loop device that is slow to let go does so by itself; a mount that stays is an error."""
    try:
        if mount_at(mount_point) is not None:
            detach(mount_point, image)
    except PoolError:
        if mount_at(mount_point) is not None:
            raise


def used_bytes(directory: Path) -> int:
    """What a btrfs takes of its device when everything is written or freed, both copies of metadata counted."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + _CLEANING_S
    try:
        ioctl.sync_filesystem(descriptor)
        while ioctl.is_cleaning(descriptor) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
            ioctl.sync_filesystem(descriptor)
        ioctl.sync_filesystem(descriptor)
        return sum(
            chunk.used_bytes * (2 if chunk.flags & _TWO_COPIES else 1)
            for chunk in ioctl.space_info(descriptor)
            if not chunk.flags & _GLOBAL_RESERVE
        )
    finally:
        os.close(descriptor)


def describe_machine() -> Sequence[str]:
    """The machine, and whether it had other things to do."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0]
    busy = "BUSY with other work, so times are too long and ratios better than figures"
    return (
        f"{_processor()}, {cores} cores, {_memory_gib():.0f} GiB memory, Linux {platform.release()}",
        f"load {load:.1f} at the start: {busy if load > cores * _BUSY_SHARE else 'nothing else was going on'}",
        f"btrfs in an image on a loop device, opfs {__version__}, "
        f"{format_time(time.time_ns())[:16].replace('T', ' ')} UTC",
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
