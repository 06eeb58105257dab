"""What has to be on the disk before a change goes on: waited for by one change alone, or by many with one sync.

A change is a generator. It hands each descriptor whose bytes and names must be durable to a `Barrier`, and yields where
it may not go on before they are. So the order of steps that makes a crash harmless is written once, and it does not
matter to it how many changes stand before the same barrier. Blocking: call in worker threads; a barrier belongs to one.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from enum import Enum
from typing import Protocol, TypeVar

from opfs.errors import ApplyFailed


class Reached(Enum):
    """How far a change is when it yields."""

    PREPARED = "prepared"
    """Nothing of the host is changed: closing the generator gives the change up without a trace."""
    CHANGED = "changed"
    """The host is changed, and it is not durable: the change has to be ended."""


T = TypeVar("T")
Change = Generator[Reached, None, T]
"""A change that gives `T` in the end."""

_SYNCED_WHOLE = frozenset({0x9123683E, 0xEF53, 0x58465342})
"""btrfs, ext4 and XFS (statfs(2)): file systems whose syncfs(2) is known to do for each file what its fsync(2) does."""
_THREADS = 32
_libc = ctypes.CDLL(None, use_errno=True)


class Barrier(Protocol):
    """Descriptors of what has to be durable before anybody goes on."""

    def hold(self, descriptor: int) -> None:
        """Take over the descriptor of a file that was written, or of a directory whose names have changed."""
        ...

    def sync(self) -> None:
        """Make everything durable that was held since the last time. Raises ApplyFailed."""
        ...

    def close(self) -> None: ...


@contextmanager
def held(descriptor: int, barrier: Barrier) -> Iterator[int]:
    """A descriptor to write to, which the barrier holds afterwards; where that fails, it is closed."""
    try:
        yield descriptor
    except BaseException:
        os.close(descriptor)
        raise
    barrier.hold(descriptor)


class OwnSyncs:
    """Each descriptor is synced by itself: what one change alone waits for."""

    def __init__(self) -> None:
        self._held: list[int] = []

    def hold(self, descriptor: int) -> None:
        self._held.append(descriptor)

    def sync(self) -> None:
        try:
            for descriptor in self._held:
                os.fsync(descriptor)
        except OSError as error:
            raise _not_durable(error) from error
        finally:
            self.close()

    def close(self) -> None:
        while self._held:
            os.close(self._held.pop())


class Unsynced:
    """What a crash may take: nobody waits for it."""

    def hold(self, descriptor: int) -> None:
        os.close(descriptor)

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class SharedSync:
    """One syncfs(2) for each file system, whatever number of files is held.

    It tells of errors since its descriptor was opened, of any file of the file system (Linux 5.8): so of each file
    system the first descriptor is kept, which was opened before anything was written that this barrier is for. An
    error may be that of somebody else's file. Where a file system is not known to do it right, each descriptor is
    synced by itself, many side by side.
    """

    def __init__(self) -> None:
        self._filesystems: dict[int, int] = {}
        """A descriptor by the number of its device."""
        self._written: set[int] = set()
        """Devices with something that is not durable."""
        self._others: list[int] = []

    def hold(self, descriptor: int) -> None:
        device = os.fstat(descriptor).st_dev
        if device in self._filesystems:
            os.close(descriptor)
        elif _type_of_filesystem(descriptor) in _SYNCED_WHOLE:
            self._filesystems[device] = descriptor
        else:
            self._others.append(descriptor)
            return
        self._written.add(device)

    def sync(self) -> None:
        try:
            for device in sorted(self._written):
                if _libc.syncfs(self._filesystems[device]) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
            if self._others:
                with ThreadPoolExecutor(_THREADS) as threads:
                    list(threads.map(os.fsync, self._others))
        except OSError as error:
            raise _not_durable(error) from error
        finally:
            self._written.clear()
            _close_all(self._others)

    def close(self) -> None:
        _close_all(self._others)
        _close_all(list(self._filesystems.values()))
        self._filesystems.clear()


def finish(begin: Callable[[Barrier], Change[T]]) -> T:
    """Take one change to its end, and give what it ends with; raises what it raises, and ApplyFailed."""
    with closing(OwnSyncs()) as barrier, closing(begin(barrier)) as change:
        while True:
            try:
                next(change)
            except StopIteration as end:
                result: T = end.value
                return result
            barrier.sync()


def finish_together(begin: Sequence[Callable[[Barrier], Change[None]]]) -> None:
    """Take many changes to their ends, from barrier to barrier.

    Raises the first error. What had changed nothing by then is given up, and what had is ended. Where it is the
    barrier that fails, everything stays where it stands.
    """
    error: Exception | None = None
    with closing(SharedSync()) as barrier:
        changes = [start(barrier) for start in begin]
        try:
            under_way: Iterable[tuple[Change[None], Reached]] = [(change, Reached.PREPARED) for change in changes]
            while under_way:
                reached = []
                for change, how_far in under_way:
                    if error is not None and how_far is Reached.PREPARED:
                        continue
                    try:
                        reached.append((change, next(change)))
                    except StopIteration:
                        pass
                    except Exception as failure:
                        error = error or failure
                try:
                    barrier.sync()
                except ApplyFailed as failure:
                    error = error or failure
                    break
                under_way = reached
        finally:
            for change in changes:
                change.close()
    if error is not None:
        raise error


def _not_durable(error: OSError) -> ApplyFailed:
    return ApplyFailed(f"not everything reached the disk: {error.strerror}")


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def _type_of_filesystem(descriptor: int) -> int:
    """`f_type` of fstatfs(2), a word at the beginning; 0 where it cannot be told."""
    status = (ctypes.c_long * 32)()
    return int(status[0]) if _libc.fstatfs(descriptor, ctypes.byref(status)) == 0 else 0
