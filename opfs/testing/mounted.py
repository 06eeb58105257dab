"""A program that mounts a small tree in memory: `python -m opfs.testing.mounted MOUNTPOINT [DEADLINE_S]`.

For tests of the real kernel path that need a daemon of their own to kill. Prints `ready` when the mount
answers; ends on SIGTERM. A request may take DEADLINE_S, one second unless given. The tree:

    hello     readable and writable           kept        the kernel may keep its pages
    broken    has a bug in its open           hang        never answers an open
    change    opening it changes `kept` and tells the kernel
    many/     10,000 files that never change
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from opfs.commit.failsafe import FailSafe
from opfs.fuse.errnos import Deadlines
from opfs.fuse.invalidation import Invalidator
from opfs.fuse.mountpoint import recover_stale_mount
from opfs.fuse.operations import Operations
from opfs.fuse.session import serve
from opfs.testing.tree import Broken, MemoryDirectory, MemoryFile
from opfs.vfs.generated import ContentHandle, FixedDirectory
from opfs.vfs.node import FOREVER, Handle, Symlink

MANY = 10_000


@dataclass(slots=True)
class _Notifier:
    """Sends invalidations and tells when one was sent."""

    sent: trio.Event

    def __call__(self, inode: int) -> None:
        pyfuse3.invalidate_inode(inode)
        trio.from_thread.run_sync(self.sent.set)


async def run(mountpoint: Path, deadline_s: float = 1.0) -> None:
    notifier = _Notifier(trio.Event())
    kept = MemoryFile(("kept",), bytearray(b"one\n"), policy=FOREVER)

    async def have_a_bug() -> Handle:
        raise ValueError("a bug")

    async def hang() -> Handle:
        await trio.sleep_forever()

    async def change() -> Handle:
        kept.content[:] = b"two\n"
        notifier.sent = trio.Event()
        invalidator.changed(kept.key)
        await notifier.sent.wait()
        return ContentHandle(b"")

    many = {f"f{n:05d}": MemoryFile(("many", f"f{n:05d}"), bytearray(b"x"), policy=FOREVER) for n in range(MANY)}
    root = MemoryDirectory(
        (),
        {
            "hello": MemoryFile(("hello",), bytearray(b"hello\n")),
            "link": Symlink(("link",), "hello"),
            "kept": kept,
            "broken": Broken(("broken",), have_a_bug),
            "hang": Broken(("hang",), hang),
            "change": Broken(("change",), change),
            "many": FixedDirectory(("many",), dict(many)),
        },
    )
    operations = Operations(
        root,
        failsafe=FailSafe(),
        space=lambda: os.statvfs("/"),
        refused=lambda error, key, caller: None,
        deadlines=Deadlines(applying_s=deadline_s),
    )
    invalidator = Invalidator(operations.inodes, notifier)
    recover_stale_mount(mountpoint)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, operations, mountpoint, invalidator)
            print("ready", flush=True)
            await anext(aiter(signals))
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    trio.run(run, Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 1.0)
