"""What the kernel is told when a document changes."""

from __future__ import annotations

import errno

import pytest
import trio

from opfs.fuse.inodes import Inodes
from opfs.fuse.invalidation import Invalidator
from opfs.testing.tree import MemoryDirectory, MemoryFile
from opfs.vfs.node import FOREVER


class Kernel:
    """Takes notifications in a worker thread; fails those it is told to."""

    def __init__(self) -> None:
        self.told, self.failing, self.heard = [], {}, trio.Event()

    def __call__(self, number: int) -> None:
        self.told.append(number)
        trio.from_thread.run_sync(self.heard.set)
        if number in self.failing:
            raise self.failing[number]


@pytest.fixture
def inodes():
    return Inodes(MemoryDirectory(()))


async def notified(kernel, inodes, *keys):
    """The inodes that the kernel is told of when `keys` change, and `last` after them."""
    last = inodes.remember(MemoryFile(("last",), policy=FOREVER))
    invalidator = Invalidator(inodes, kernel)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(invalidator.run)
        for key in keys:
            invalidator.changed(key)
        invalidator.changed(("last",))
        await kernel.heard.wait()
        nursery.cancel_scope.cancel()
    return set(kernel.told) - {last}


async def test_only_what_the_kernel_may_hold_is_invalidated(inodes):
    kept = inodes.remember(MemoryFile(("kept",), policy=FOREVER))
    inodes.remember(MemoryFile(("never",)))
    opened = inodes.remember(MemoryFile(("opened",)))
    inodes.opened(opened)
    assert await notified(Kernel(), inodes, ("kept",), ("never",), ("opened",), ("unknown",)) == {kept, opened}


async def test_a_document_that_changes_often_is_invalidated_once(inodes):
    kept = inodes.remember(MemoryFile(("kept",), policy=FOREVER))
    kernel = Kernel()
    await notified(kernel, inodes, ("kept",), ("kept",), ("kept",))
    assert kernel.told.count(kept) == 1


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, ""), OSError(errno.ENOTCONN, "")], ids=repr)
async def test_a_kernel_that_does_not_know_the_inode_stops_nothing(inodes, error):
    kernel = Kernel()
    keys = [(name,) for name in "abc"]
    numbers = {inodes.remember(MemoryFile(key, policy=FOREVER)) for key in keys}
    kernel.failing = dict.fromkeys(numbers, error)
    assert await notified(kernel, inodes, *keys) == numbers
