"""A directory of one run, with its file systems and processes, all gone when the run ends however it ends.

A lock in the directory tells a live run from a dead one; the next run sweeps what `kill -9` left. Signals
become SystemExit, so that every exit goes through the same clean-up. Not for use by several threads.
"""

from __future__ import annotations

import fcntl
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from opfs.btrfs.image import attach, create_image, detach, image_path
from opfs.cli.process import stop_daemon
from opfs.fuse.mountpoint import recover_stale_mount
from opfs.testing.ownmounts import unshare_mounts

if TYPE_CHECKING:
    from types import FrameType

PREFIX = "opfs-bench-"


class Workspace:
    """A private directory below the temporary one. With `keep`, its files stay; mounts never do."""

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        unshare_mounts()  # what is mounted from now on nobody else sees, and so nobody else keeps in use
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _exit)
        for stale in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            _sweep(stale)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._resources.callback(self._remove)
        lock = self._resources.enter_context((self.path / "lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # an impatient second ctrl-C must not leave mounts behind
        self._resources.close()

    def filesystem(self, name: str, size_bytes: int, resources: ExitStack) -> Path:
        """A btrfs made as `opfs up` makes it, mounted until `resources` close; then its image goes too."""
        root = self.path / name
        image = image_path(root)
        create_image(image, size_bytes)
        if not self._keep:
            resources.callback(image.unlink)
        attach(image, root)
        resources.callback(detach, root, image)
        return root

    def _remove(self) -> None:
        _unmount_below(self.path)  # what should be gone already, unless taking it away failed
        if self._keep:
            (self.path / "lock").unlink()  # what has no lock is never swept
            print(f"kept: {self.path}", file=sys.stderr)
        else:
            shutil.rmtree(self.path)


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _sweep(path: Path) -> None:
    """Take away what a killed run left; a live run holds the lock."""
    try:
        lock = (path / "lock").open("r")
    except OSError:
        return  # not ours, or just being made
    with lock, suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for image in path.glob("*.img"):
            stop_daemon(image.with_suffix(""))
        _unmount_below(path)
        shutil.rmtree(path)


def _unmount_below(path: Path) -> None:
    """Take every mount below `path` away, innermost first; their loop devices free themselves."""
    points = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(points):
        if point.is_relative_to(path) and not recover_stale_mount(point):
            subprocess.run(["umount", "--lazy", str(point)], check=True)
