"""What of the daemon stands behind what is for watching it: the streams of events, the figures, the hooks.

Wires, decides nothing else. Trio thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.commit.timeline import Timeline
from opfs.commit.verified import CheckedReads
from opfs.core.moments import AtHeight
from opfs.daemon.hooks import Hooks
from opfs.daemon.measurements import measure
from opfs.fuse.caller import groups_of
from opfs.metrics.endpoint import Endpoint
from opfs.metrics.exposition import CONTENT_TYPE
from opfs.vfs.events import BlockLines, Streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from opfs.daemon.parts import Parts
    from opfs.errors import OpfsError
    from opfs.metrics.exposition import Metrics
    from opfs.vfs.node import Caller, NodeKey

    Refused = Callable[[OpfsError, NodeKey, Caller], None]


def make_streams(parts: Parts, timeline: Timeline) -> Streams:
    """/events, /events@N and, where blocks are made at intervals, /events@pending."""
    lines, sequencer = _lines(parts, timeline), parts.sequencer
    pending = None if sequencer.sealing.cadence.is_per_op else lambda: sequencer.pending.told()
    return Streams(parts.history, parts.historian, lines, groups_of, parts.started_ns, pending)


def make_hooks(parts: Parts) -> Hooks:
    """Those of the configuration; they hear of every block."""
    timeline = Timeline(
        lambda: parts.sequencer.blocks, CheckedReads(parts.store, parts.verified).read_header, parts.clock
    )
    bookmarks = parts.pool.subvolume("@cache") / "hooks"
    lines = _lines(parts, timeline)
    hooks = Hooks(parts.config.hook, bookmarks, parts.history, parts.historian, lines, parts.config.mount)
    parts.sequencer.on_block.append(lambda proposal: hooks.wake())
    return hooks


def _lines(parts: Parts, timeline: Timeline) -> BlockLines:
    reads = CheckedReads(parts.store, parts.verified)
    return BlockLines(lambda height: timeline.block_of(AtHeight(height)), reads.read_events)


def count_refusals(metrics: Metrics, note: Refused) -> Refused:
    """Count a refusal by its errno, and pass it on."""

    def refused(error: OpfsError, key: NodeKey, caller: Caller) -> None:
        metrics.count_refusal(error.errno)
        note(error, key, caller)

    return refused


def metrics_endpoint(parts: Parts) -> Endpoint:
    """/metrics over HTTP."""
    return Endpoint(lambda: parts.metrics.render(measure(parts)), CONTENT_TYPE)
