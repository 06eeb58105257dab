"""The figures of the moment for /metrics: one look at every part of the daemon. No I/O that waits; trio thread.

Nothing here tells what a document says: names of plugins, kinds and numbers only, because everybody reads it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from opfs import __version__
from opfs.core.standing import Kind
from opfs.metrics.exposition import Figures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.daemon.parts import Parts

_UNSETTLED = (Kind.WAITING, Kind.FAILED, Kind.DRIFTED)


def measure(parts: Parts) -> Iterator[Figures]:
    """Everything that /metrics shows beside durations and refusals."""
    yield from _chain(parts)
    yield from _health(parts)
    yield from _plugins(parts)
    yield from parts.caretaker.measure()


def _chain(parts: Parts) -> Iterator[Figures]:
    one, sequencer = Figures.one, parts.sequencer
    blocks = len(sequencer.blocks)
    live = parts.store.live_count
    yield one("opfs_head_height", "The height of the newest block.", sequencer.catalog.head.height)
    yield one("opfs_events_total", "Events that the blocks hold.", sequencer.event_count)
    yield one(
        "opfs_pending_events", "Events that are durable in the journal, and in no block yet.", len(sequencer.pending)
    )
    yield Figures(
        "opfs_blocks",
        "Blocks, by whether their snapshot is there or was pruned.",
        {("live",): live, ("pruned",): blocks - live},
        ("state",),
    )
    yield one("opfs_log_size", "Blocks in the signed log.", parts.log.size)
    yield one(
        "opfs_in_flight", "Elements that are being changed now: the depth of the queue.", sequencer.in_flight_count
    )
    yield Figures(
        "opfs_lag_events",
        "Events that are committed, and not yet in what is derived from them.",
        {("index",): parts.deriver.lag, ("meaning",): parts.meaning.lag, ("history",): parts.historian.lag},
        ("derived",),
    )


def _health(parts: Parts) -> Iterator[Figures]:
    one = Figures.one
    space = parts.snapshots.space()
    yield Figures(
        "opfs_pool_bytes",
        "The pool's file system.",
        {("total",): space.total_bytes, ("free",): space.free_bytes},
        ("kind",),
    )
    yield one("opfs_reserve_reached", "1 where the pool is full for all but deletes.", parts.reserve.is_reached)
    yield one(
        "opfs_fail_safe", "1 where writes are refused because an outcome is unknown.", parts.failsafe.reason is not None
    )
    failing = {
        ("log",): parts.logbook.failure is not None,
        ("index",): parts.deriver.failure is not None,
        ("meaning",): parts.meaning.failure is not None,
        ("history",): parts.historian.failure is not None,
    }
    yield Figures("opfs_degraded", "1 where a part stands still; see status.", failing, ("part",))
    yield one("opfs_scrub_findings", "What the scrub found damaged.", len(parts.scrub.findings))
    yield one("opfs_start_time_seconds", "When the daemon started.", parts.started_ns / 1e9)
    yield Figures("opfs_build_info", "The version.", {(__version__,): 1}, ("version",))


def _plugins(parts: Parts) -> Iterator[Figures]:
    catalog, plugins = parts.sequencer.catalog, parts.plugins
    unsettled = Counter((id.plugin, standing.kind) for id, standing in catalog.unsettled.items())
    yield Figures(
        "opfs_elements",
        "Declared elements of a plugin.",
        {(name,): len(catalog.elements(name)) for name in plugins},
        ("plugin",),
    )
    yield Figures(
        "opfs_unsettled_elements",
        "Those that are not as their documents say: waiting for others, failed, or changed by somebody else.",
        {(name, kind.value): unsettled[name, kind] for name in plugins for kind in _UNSETTLED},
        ("plugin", "standing"),
    )
    yield Figures(
        "opfs_plugin_available",
        "1 where a plugin can work here.",
        {(name,): plugin.why_unavailable() is None for name, plugin in plugins.items()},
        ("plugin",),
    )
    failures = parts.drift.failures()
    yield Figures(
        "opfs_plugin_watched",
        "0 where the host could not be looked at for drift.",
        {(name,): name not in failures for name in plugins},
        ("plugin",),
    )
