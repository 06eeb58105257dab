"""Calls into plugins, which are foreign code: whatever they raise is a failure of the plugin, and never of opfs.

Knows no request and no chain. Trio thread; a call that may block is bounded by the plugin's own time limit.
"""

from __future__ import annotations

import errno
import logging
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio

from opfs.core.action import Difference
from opfs.errors import ApplyFailed, ApplyNoSpace, ApplyTimeout, OpfsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from opfs.core.action import Document
    from opfs.core.names import ElementId
    from opfs.ports import Plugin

log = logging.getLogger(__name__)


def report_bug(plugin: Plugin, id: ElementId | str, error: Exception) -> str:
    """Log what a plugin should not have raised; returns the sentence for whoever asked for it."""
    log.error("the plugin %s has a bug", plugin.name, exc_info=error)
    return f"{id}: the plugin {plugin.name} has a bug: {error!r}"


@contextmanager
def guarded(plugin: Plugin, id: ElementId | str) -> Iterator[None]:
    """Around calls that cannot block (plan, compare, depends_on, is_protected).

    Raises ApplyNoSpace where a disk was full, ApplyFailed for a bug of the plugin, and the plugin's own OpfsError.
    What cannot block cannot be interrupted either: a plugin whose pure functions never return stops opfs.
    """
    try:
        yield
    except Exception as error:
        if _is_full_disk(error):
            reason = error.reason if isinstance(error, OpfsError) else f"{plugin.name}: {error}"
            raise ApplyNoSpace(f"{id}: {reason}", hint="make room, then write again") from error
        if isinstance(error, OpfsError) and isinstance(getattr(error, "reason", None), str):
            raise
        raise ApplyFailed(report_bug(plugin, id, error)) from error


@asynccontextmanager
async def calling(plugin: Plugin, id: ElementId | str) -> AsyncIterator[None]:
    """Around calls that may block; raises ApplyTimeout, and what `guarded` raises."""
    limit_s = plugin.apply_timeout_s
    with trio.move_on_after(limit_s) as limit, guarded(plugin, id):
        yield
    if limit.cancelled_caught:
        raise ApplyTimeout(f"{id}: the plugin {plugin.name} was still at work after {limit_s:g} s and was stopped")


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
