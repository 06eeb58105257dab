"""Names that anybody may think of: the kernel is asked to forget those looked up longest ago."""

from __future__ import annotations

import errno

import pytest
import trio

from opfs.fuse.crowd import Crowd
from opfs.fuse.inodes import MAX_FLEETING, Inodes
from opfs.testing.tree import MemoryDirectory, MemoryFile
from opfs.vfs.node import FLEETING


class FleetingDirectory(MemoryDirectory):
    @property
    def cache(self):
        return FLEETING


@pytest.fixture
def inodes():
    inodes = Inodes(MemoryDirectory(()))
    inodes.remember(MemoryDirectory(("search",)))
    return inodes


def look_up(inodes, *names):
    return [inodes.remember(MemoryFile(("search", name), policy=FLEETING)) for name in names]


def crowd(inodes, count=MAX_FLEETING):
    return look_up(inodes, *(f"query {number}" for number in range(count)))


def test_few_are_left_alone(inodes):
    told = []
    inodes.on_crowd = lambda: told.append(True)
    crowd(inodes)
    assert not told
    look_up(inodes, "one more")
    assert told


def test_those_looked_up_longest_ago_go_first(inodes):
    crowd(inodes)
    look_up(inodes, "query 0", "one more")
    surplus = inodes.take_surplus()
    assert surplus[0] == (inodes.number_of(("search",)), b"query 1")
    assert len(surplus) == MAX_FLEETING // 2 + 1
    assert b"query 0" not in {name for _, name in surplus}
    assert not inodes.take_surplus(), "each is named once"


def test_what_is_open_stays_and_what_the_kernel_forgot_is_not_asked_for(inodes):
    opened, forgotten, *_ = crowd(inodes)
    inodes.opened(opened)
    inodes.forget(forgotten, 1)
    names = {name for _, name in inodes.take_surplus()}
    assert b"query 2" in names
    assert not names & {b"query 0", b"query 1"}


def test_a_directory_in_which_something_is_looked_up_counts_as_looked_up(inodes):
    inodes.remember(FleetingDirectory(("search", "current")))
    crowd(inodes)
    inodes.remember(MemoryFile(("search", "current", "hit"), policy=FLEETING))
    assert b"current" not in {name for _, name in inodes.take_surplus()}


@pytest.mark.parametrize("error", [None, FileNotFoundError(errno.ENOENT, ""), OSError(errno.ENOTCONN, "")], ids=repr)
async def test_the_kernel_is_asked_in_the_background(inodes, error):
    asked = []

    def forget(parent, name):
        asked.append((parent, name))
        if error is not None:
            raise error

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Crowd(inodes, forget).run)
            crowd(inodes, MAX_FLEETING + 1)
            while len(asked) < MAX_FLEETING // 2 + 1:  # noqa: ASYNC110
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
    assert asked[0] == (inodes.number_of(("search",)), b"query 0")
