"""Run one daemon: start its tasks in order, wait for a reason to stop, end them in order.

Tasks, all on the trio thread and in one nursery: the sequencer, the deriver that keeps the index up, the FUSE
session with its invalidator, the asking of witnesses, the watch for signals. `run` blocks and
is called once per process.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

import trio

from opfs.commit.recovery import recover
from opfs.daemon.parts import Parts, open_parts
from opfs.daemon.rotation import finish_rotation
from opfs.daemon.tree import make_tree
from opfs.fuse.caller import identify
from opfs.fuse.errnos import Deadlines
from opfs.fuse.invalidation import Invalidator
from opfs.fuse.operations import Operations
from opfs.fuse.session import serve
from opfs.vfs.refused import note_refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from opfs.commit.chain import Proposal
    from opfs.config import Config

log = logging.getLogger("opfs")

DRAIN_TIMEOUT_S = 60.0
# The commit path hands small pieces of work to threads. With the default of 5 ms each hand-over could wait
# that long for the interpreter's lock while the trio thread is busy with other writers.
SWITCH_INTERVAL_S = 0.0001


def run(config: Config, *, on_ready: Callable[[], None]) -> None:
    """Serve the pool of `config` until SIGTERM, SIGINT or an unmount; `on_ready` when the mount answers.

    The pool must exist (opfs.cli.place makes it). Raises OpfsError for what stops it from starting.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    os.umask(0o022)
    with open_parts(config) as parts:
        # What was loaded stays: the collector need not look at every element again and again.
        gc.freeze()
        try:
            trio.run(_run_tasks, parts, on_ready)
        except BaseExceptionGroup as group:
            raise _root_cause(group) from group


def _root_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that ended all tasks; the group itself where there were several."""
    inner = group.exceptions
    if len(inner) != 1:
        return group
    return _root_cause(inner[0]) if isinstance(inner[0], BaseExceptionGroup) else inner[0]


async def _run_tasks(parts: Parts, on_ready: Callable[[], None]) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(parts.sequencer.run)
        await recover(parts.chain, parts.journal, parts.sequencer)
        await finish_rotation(parts)
        nursery.start_soon(parts.deriver.run, name="deriver")
        parts.sequencer.on_block.append(lambda proposal: parts.logbook.wake())
        nursery.start_soon(parts.logbook.run, name="logbook")
        await nursery.start(_serve_mount, parts, nursery.cancel_scope)
        nursery.start_soon(parts.scrub.run, name="scrub")
        if parts.witnesses is not None:
            nursery.start_soon(parts.witnesses.run, name="witnesses")
        log.info("serving %s at %s, HEAD is %s", parts.pool.path, parts.config.mount, parts.sequencer.catalog.head)
        on_ready()
        await _wait_for_signal()
        with trio.move_on_after(DRAIN_TIMEOUT_S) as limit:
            await parts.sequencer.drain()
        if limit.cancelled_caught:
            log.warning("changes were still under way after %.0f s; the next start settles them", DRAIN_TIMEOUT_S)
        nursery.cancel_scope.cancel()


async def _wait_for_signal() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s: finishing what is under way", signal.Signals(number).name)
            return


async def _serve_mount(
    parts: Parts, everything: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer requests; an unmount by somebody else ends the daemon."""
    tree = make_tree(parts)
    operations = Operations(
        tree.root,
        failsafe=parts.failsafe,
        space=tree.space,
        refused=note_refusals(parts.refusals, identify),
        deadlines=Deadlines(applying_s=parts.config.request_timeout_s),
    )
    invalidator = Invalidator(operations.inodes)

    def drop_cached_pages(proposal: Proposal) -> None:
        for key in tree.state.cached(proposal.entries):
            invalidator.changed(key)

    parts.sequencer.on_block.append(drop_cached_pages)
    await serve(operations, parts.config.mount, invalidator, task_status=task_status)
    log.info("%s was unmounted", parts.config.mount)
    everything.cancel()
