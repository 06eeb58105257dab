"""One mount, from the first request to the last.

`serve` mounts, answers until cancelled or unmounted, lets running requests end, and always unmounts. Signals,
and what to do about a mount that a killed daemon left (opfs.fuse.mountpoint), are the caller's. pyfuse3 keeps
one session per process, so one `serve` runs at a time; requests are handled on the trio thread.

There is no `auto_unmount` on purpose: after a daemon was killed, ENOTCONN tells a program that something is
wrong, an empty directory does not; the next start takes the dead mount away.

A limit of pyfuse3 that is worked around: it waits until the device is readable and then reads, blocking and
holding the interpreter's lock. If the one waiting request is withdrawn in between (its process was killed), that
read would last until the next request of anybody. A timer's signal makes it return, after UNBLOCK_S at most.
"""

from __future__ import annotations

import logging
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyfuse3
import trio

from opfs.errors import PoolError
from opfs.fuse.crowd import Crowd
from opfs.fuse.mountpoint import FILE_SYSTEM, check_mountpoint, is_answering, mount_at, unmount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.fuse.invalidation import Invalidator
    from opfs.fuse.operations import Operations

log = logging.getLogger(__name__)

OPTIONS = frozenset(
    {
        f"fsname={FILE_SYSTEM}",
        f"subtype={FILE_SYSTEM}",
        "allow_other",
        "default_permissions",  # the kernel checks modes and owners, also of cached files
        "nosuid",
        "nodev",
        "noexec",
    }
)

UNBLOCK_S = 1.0
"""How long a read of a request that was withdrawn may last."""

MAX_REQUESTS = 1000
"""Requests answered at the same time: far above any number of waiting writers, so that readers never queue."""


async def serve(
    operations: Operations,
    mountpoint: Path,
    invalidator: Invalidator,
    *,
    grace_s: float = 10.0,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount on an empty directory and answer requests; started when the mount answers.

    When cancelled, no new request is taken and running ones get `grace_s` to end. Returns when somebody else
    unmounted. Raises InvalidRequest for a bad mount point and PoolError where FUSE is not to be had.
    """
    check_mountpoint(mountpoint)
    try:
        pyfuse3.init(operations, str(mountpoint), set(OPTIONS))
    except RuntimeError as error:
        raise PoolError(
            f"{mountpoint} cannot be mounted: {error}", hint="FUSE needs root, /dev/fuse and the kernel module fuse"
        ) from error
    device = mount_at(mountpoint)
    try:
        with _blocking_reads_end():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(invalidator.run)
                nursery.start_soon(Crowd(operations.inodes).run, name="crowd")
                nursery.start_soon(operations.watch_for_interrupts, name="interrupts")
                nursery.start_soon(_announce, mountpoint, task_status)
                try:
                    await _answer_requests(grace_s)
                finally:
                    # The connection ends before the nursery does: a notification may wait for an answer that
                    # nobody is going to give.
                    if device is not None and mount_at(mountpoint) == device:
                        unmount(mountpoint, abort=True)
                    nursery.cancel_scope.cancel()
    finally:
        pyfuse3.close(unmount=False)


@contextmanager
def _blocking_reads_end() -> Iterator[None]:
    """Interrupt whatever system call the main thread blocks in, every UNBLOCK_S; Python repeats its own ones."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, UNBLOCK_S, UNBLOCK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def request_limit_s(settings: Path = Path("/proc/sys/fs/fuse")) -> float | None:
    """After how long without an answer the kernel ends the whole mount; None where it waits for ever.

    Linux 6.15 and later, `fs.fuse.{default,max}_request_timeout` in seconds, 0 for none: the default is for daemons
    that ask for no limit of their own, as this one, and the maximum bounds everybody.
    """
    limits_s = []
    for name in ("default_request_timeout", "max_request_timeout"):
        with suppress(OSError, ValueError):
            limits_s.append(float((settings / name).read_text()))
    return min((limit_s for limit_s in limits_s if limit_s > 0), default=None)


async def _announce(mountpoint: Path, task_status: trio.TaskStatus[None]) -> None:
    if await trio.to_thread.run_sync(is_answering, mountpoint):
        task_status.started()


async def _answer_requests(grace_s: float) -> None:
    """Run the session loop; a cancellation becomes an orderly end of it."""
    loop = trio.CancelScope(shield=True)

    async with trio.open_nursery() as nursery:

        async def run_loop() -> None:
            with loop:
                await pyfuse3.main(max_tasks=MAX_REQUESTS)
            if loop.cancelled_caught:
                log.warning("requests were still running after %.0f s and were given up", grace_s)
            nursery.cancel_scope.cancel()

        nursery.start_soon(run_loop, name="fuse session")
        try:
            await trio.sleep_forever()
        finally:
            pyfuse3.terminate()
            loop.deadline = trio.current_time() + grace_s
