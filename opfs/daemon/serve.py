"""Run one daemon: start its tasks in order, wait for a reason to stop, end them in order.

Tasks, all on the trio thread and in one nursery: the sequencer, the deriver that keeps the index up, the FUSE
session with its invalidator, what brings waiting elements about, the watches for drift, the scrub, the care of the
cache, the asking of witnesses, the watch for signals. `run` blocks and is called once per process.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from opfs.commit.recovery import recover
from opfs.daemon.discretion import DiscreetLog
from opfs.daemon.observation import count_refusals, make_hooks, metrics_endpoint
from opfs.daemon.parts import Parts, open_parts
from opfs.daemon.rotation import finish_rotation
from opfs.daemon.searching import make_precedents
from opfs.daemon.tree import make_tree
from opfs.errors import OpfsError
from opfs.fuse.caller import identify
from opfs.fuse.errnos import Deadlines
from opfs.fuse.invalidation import Invalidator
from opfs.fuse.operations import Operations
from opfs.fuse.session import request_limit_s, serve
from opfs.vfs.refused import note_refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from opfs.config import Config
    from opfs.core.names import ElementId

log = logging.getLogger("opfs")

DRAIN_TIMEOUT_S = 60.0
OPEN_FILES = 65_536
"""As the unit's LimitNOFILE."""
# The commit path hands small pieces of work to threads. With the default of 5 ms each hand-over could wait
# that long for the interpreter's lock while the trio thread is busy with other writers.
SWITCH_INTERVAL_S = 0.0001


def run(config: Config, *, on_ready: Callable[[], None]) -> None:
    """Serve the pool of `config` until SIGTERM, SIGINT or an unmount; `on_ready` when the mount answers.

    The pool must exist (opfs.cli.place makes it). Raises OpfsError for what stops it from starting.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    os.umask(0o022)
    _allow_open_files()
    with open_parts(config) as parts:
        DiscreetLog(parts.redactor).install()
        # What was loaded stays: the collector need not look at every element again and again.
        gc.freeze()
        try:
            trio.run(_run_tasks, parts, on_ready)
        except BaseExceptionGroup as group:
            raise _root_cause(group) from group


def _allow_open_files() -> None:
    """An open draft is an open file here too: started from a shell, a daemon would have no more than 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
        nursery.start_soon(parts.meaning.run, name="meaning")
        nursery.start_soon(parts.historian.run, name="historian")
        parts.sequencer.on_block.append(lambda proposal: parts.logbook.wake())
        nursery.start_soon(parts.logbook.run, name="logbook")
        nursery.start_soon(parts.waiting.run, name="waiting elements")
        if parts.config.hook:
            nursery.start_soon(make_hooks(parts).run, parts.sequencer.event_count, name="hooks")
        await nursery.start(_serve_mount, parts, nursery)
        nursery.start_soon(make_precedents(parts).run, name="precedents")
        nursery.start_soon(parts.drift.run, name="drift")
        nursery.start_soon(parts.scrub.run, name="scrub")
        nursery.start_soon(parts.caretaker.run, name="cache")
        if parts.config.metrics_listen is not None:
            nursery.start_soon(metrics_endpoint(parts).serve, *parts.config.metrics_listen, name="metrics")
        if parts.witnesses is not None:
            nursery.start_soon(parts.witnesses.run, name="witnesses")
        log.info("serving %s at %s, HEAD is %s", parts.pool.path, parts.config.mount, parts.sequencer.catalog.head)
        on_ready()
        await _wait_for_signal()
        with trio.move_on_after(DRAIN_TIMEOUT_S) as limit:
            await parts.sequencer.drain()
            if not parts.config.cadence.is_per_op:
                with suppress(OpfsError):
                    await parts.journal.forget_settled()
        if limit.cancelled_caught:
            log.warning("changes were still under way after %.0f s; the next start settles them", DRAIN_TIMEOUT_S)
        nursery.cancel_scope.cancel()


async def _wait_for_signal() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s: finishing what is under way", signal.Signals(number).name)
            return


async def _serve_mount(
    parts: Parts, everything: trio.Nursery, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer requests; an unmount by somebody else ends the daemon."""
    tree = make_tree(parts)
    operations = Operations(
        tree.root,
        failsafe=parts.failsafe,
        space=tree.space,
        refused=count_refusals(parts.metrics, note_refusals(parts.refusals, identify)),
        deadlines=Deadlines(applying_s=parts.config.request_timeout_s).within(request_limit_s()),
    )
    invalidator = Invalidator(operations.inodes)

    def drop_cached_pages(changed: Collection[ElementId]) -> None:
        for key in tree.state.cached(changed):
            invalidator.changed(key)

    def drop_pages(keys: Sequence[tuple[str, ...]]) -> None:
        for key in keys:
            invalidator.changed(key)

    parts.sequencer.on_change.append(drop_cached_pages)
    tree.eraser.on_erased.append(drop_pages)
    everything.start_soon(tree.pruner.run, name="pruner")
    everything.start_soon(tree.eraser.run, name="eraser")
    await serve(operations, parts.config.mount, invalidator, task_status=task_status)
    log.info("%s was unmounted", parts.config.mount)
    everything.cancel_scope.cancel()
