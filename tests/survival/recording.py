"""A scripted run of the real daemon on a disk that records: writers at once, a new key, restarts, a kill.

What writers were told goes into the same log as the disk's writes and flushes: an attempt is marked before it begins
and after its answer, so that the log says what had been acknowledged at any moment. Blocking; writers are threads.
"""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opfs.btrfs.image import create_image
from opfs.testing.blockdevice.device import BlockDevice
from survival.ledger import Ledger
from survival.machine import Machine
from survival.writers import MountGone, Writer

if TYPE_CHECKING:
    from pathlib import Path

    from survival.ledger import Attempt

IMAGE_BYTES = 512 << 20
READY, BEGUN, ANSWERED = "ready", "begun", "answered"


@dataclass(frozen=True, slots=True)
class Recording:
    """The disk as it was at first, what was done to it, and what the writers know."""

    base: Path
    log: Path
    disk: Path
    mount: Path
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class Script:
    """So many writers, each with so many attempts before, between and after the restarts; how often blocks are made."""

    seed: str
    writers: int = 4
    attempts: int = 12
    interval: str = "per-op"


class _Report:
    """Keeps the ledger and puts the marks."""

    def __init__(self, device: BlockDevice) -> None:
        self.ledger = Ledger()
        self._device = device
        self._lock = threading.Lock()

    def begin(self, attempt: Attempt) -> None:
        with self._lock:
            self.ledger.add(attempt)
        self._device.mark([BEGUN, *attempt.key])

    def end(self, attempt: Attempt) -> None:
        self._device.mark([ANSWERED, *attempt.key])


def record(place: Path, script: Script) -> Recording:
    """Run the script on a new disk in `place`, an empty directory; raises AssertionError if a writer had trouble."""
    mount = place / "mnt"
    image, base = place / "disk.img", place / "base.img"
    create_image(image, IMAGE_BYTES)
    shutil.copyfile(image, base)
    with BlockDevice(image, place, log=place / "writes") as device:
        machine = Machine(place / "fs", mount, script.interval)
        device.mount(machine.disk)
        machine.make_pool()
        device.mark([READY])
        report = _Report(device)
        writers = [Writer(machine.state, machine.host, f"w{n}", script.seed, report) for n in range(script.writers)]
        try:
            machine.opfs("mount")
            _run(writers, script.attempts)
            _run(writers, script.attempts, lambda: (mount / "ctl").write_text("rotate-keys\n"))
            machine.opfs("umount")
            machine.opfs("mount")
            _run(writers, script.attempts)
            _run(writers, script.attempts, machine.kill)
            machine.opfs("mount")
            _run(writers, script.attempts)
        finally:
            machine.kill()
            machine.opfs("umount")
    problems = [problem for writer in writers for problem in writer.problems]
    assert not problems, "\n".join(problems)
    return Recording(base, place / "writes", machine.disk, mount, report.ledger)


def _run(writers: list[Writer], attempts: int, meanwhile: Any = None) -> None:
    """Let all writers make their attempts, and do something in the middle of it."""
    half_way = threading.Barrier(len(writers) + 1)

    def work(writer: Writer) -> None:
        try:
            writer.look_again()
            for number in range(attempts):
                if number == attempts // 2:
                    half_way.wait()
                writer.step()
        except (MountGone, OSError):
            half_way.abort()

    threads = [threading.Thread(target=work, args=(writer,), name=writer.name) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        half_way.wait()
    except threading.BrokenBarrierError:
        pass
    else:
        if meanwhile is not None:
            meanwhile()
    for thread in threads:
        thread.join()
