"""Calls into plugins, which are foreign code: whatever they raise is a failure of the plugin, and never of opfs.

Knows no request and no chain. Trio thread; a call that may block is bounded by the plugin's own time limit, and what
keeps the thread to itself is interrupted (`interrupting`). A plugin that had to be is asked nothing new for a while,
since everybody else had to wait for it.
"""

from __future__ import annotations

import errno
import logging
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio

from opfs.commit.interrupting import LIMIT_S, DidNotReturn, stepping, watched
from opfs.core.action import Difference
from opfs.errors import ApplyFailed, ApplyNoSpace, ApplyTimeout, OpfsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from opfs.core.action import Document
    from opfs.core.names import ElementId
    from opfs.ports import Plugin

log = logging.getLogger(__name__)

REST_S = 60.0
"""For how long a plugin is left alone that had to be interrupted."""

_resting: list[tuple[Plugin, float]] = []
"""The plugins that rest, and until when on the monotonic clock."""


def report_bug(plugin: Plugin, id: ElementId | str, error: Exception) -> str:
    """Log what a plugin should not have raised; returns the sentence for whoever asked for it."""
    log.error("the plugin %s has a bug", plugin.name, exc_info=error)
    return f"{id}: the plugin {plugin.name} has a bug: {error!r}"


@contextmanager
def returning(plugin: Plugin, id: ElementId | str) -> Iterator[None]:
    """Around a call that cannot block: raises ApplyTimeout where it does not return, and what the plugin raises."""
    try:
        with watched():
            yield
    except DidNotReturn as interrupted:
        raise _stuck(plugin, id) from interrupted


@contextmanager
def guarded(plugin: Plugin, id: ElementId | str) -> Iterator[None]:
    """Around calls that cannot block (plan, compare, depends_on, is_protected).

    Raises ApplyNoSpace where a disk was full, ApplyTimeout where it does not return, ApplyFailed for a bug of the
    plugin, and the plugin's own OpfsError.
    """
    with _in_words(plugin, id), returning(plugin, id):
        yield


@contextmanager
def listening(plugin: Plugin) -> Iterator[None]:
    """Around awaiting what may take for ever, but may not keep the thread; raises as `returning` does."""
    try:
        with stepping():
            yield
    except DidNotReturn as interrupted:
        raise _stuck(plugin, plugin.name) from interrupted
    except BaseExceptionGroup as group:
        interrupted_tasks, others = group.split(DidNotReturn)
        if interrupted_tasks is None or (others is not None and not isinstance(others, Exception)):
            raise
        raise _stuck(plugin, plugin.name) from group


@asynccontextmanager
async def calling(plugin: Plugin, id: ElementId | str, *, turns: int = 1) -> AsyncIterator[None]:
    """Around calls that may block, so many times the plugin's own limit; raises ApplyTimeout, and as `guarded` does."""
    limit_s = plugin.apply_timeout_s * turns
    with trio.move_on_after(limit_s) as limit, _in_words(plugin, id), listening(plugin):
        yield
    if limit.cancelled_caught:
        raise ApplyTimeout(f"{id}: the plugin {plugin.name} was still at work after {limit_s:g} s and was stopped")


@contextmanager
def _in_words(plugin: Plugin, id: ElementId | str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if _is_full_disk(error):
            reason = error.reason if isinstance(error, OpfsError) else f"{plugin.name}: {error}"
            raise ApplyNoSpace(f"{id}: {reason}", hint="make room, then write again") from error
        if isinstance(error, OpfsError) and isinstance(getattr(error, "reason", None), str):
            raise
        raise ApplyFailed(report_bug(plugin, id, error)) from error


def _stuck(plugin: Plugin, id: ElementId | str) -> ApplyTimeout:
    """What is said of a plugin that kept the thread to itself; from here on it rests."""
    _resting.append((plugin, time.monotonic() + REST_S))
    reason = f"the plugin {plugin.name} kept everybody waiting for {LIMIT_S:g} s and was interrupted"
    log.error("%s: %s; it has a bug, and is left alone for %g s", id, reason, REST_S)
    return ApplyTimeout(f"{id}: {reason}: it has a bug", hint=f"it is left alone for {REST_S:g} s")


def check_rested(plugin: Plugin) -> None:
    """Raise ApplyTimeout where the plugin had to be interrupted a moment ago: nothing new is asked of it then.

    What is under way goes on, so that it can be undone.
    """
    now = time.monotonic()
    _resting[:] = [(resting, until) for resting, until in _resting if until > now]
    for resting, until in _resting:
        if resting is plugin:
            reason = f"the plugin {plugin.name} had to be interrupted a moment ago and is left alone"
            raise ApplyTimeout(reason, hint=f"try again in {until - now:.0f} s; the log says what it did")


def differences_of(
    plugin: Plugin, element: str, desired: Document | None, observed: Document | None
) -> Sequence[Difference]:
    """What the plugin's `compare` says, held to the contract: nonsense is not an empty answer. Called in a guard."""
    differences = tuple(plugin.compare(element, desired, observed))
    if not all(isinstance(difference, Difference) for difference in differences):
        raise TypeError(f"compare gave {differences[:3]!r}")
    return differences


def _is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, is the kernel's word for a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False
