"""What /status says: one line per topic, several where a topic has several things to say. No I/O that waits."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from opfs import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.daemon.parts import Parts

LOW_SPACE_BYTES = 64 << 20


def describe(parts: Parts) -> Mapping[str, str | Sequence[str]]:
    """The health of the daemon, by topic, most important first."""
    sequencer, deriver = parts.sequencer, parts.deriver
    uptime = timedelta(seconds=(parts.clock.now_ns() - parts.started_ns) // 10**9)
    return {
        "health": _health(parts),
        "version": f"opfs {__version__}, up {uptime}",
        "pool": f"{parts.pool.path}, {_space(parts)}",
        "origin": sequencer.origin,
        "head": str(sequencer.catalog.head),
        "blocks": f"{len(sequencer.blocks)}",
        "events": f"{sequencer.event_count}",
        "elements": f"{sequencer.catalog.count()}",
        "log": parts.logbook.failure or f"{parts.log.size} blocks, signed",
        **_witness_lines(parts),
        "under way": f"{sequencer.in_flight_count} changes",
        "index": deriver.failure or f"{parts.index.indexed_count} events, {deriver.lag} behind",
        "model": f"{parts.embedder.model_id}, {'loaded' if parts.embedder.is_loaded else 'not loaded yet'}",
        "scrub": parts.scrub.report(),
        "plugins": [_plugin_line(parts, name) for name in parts.plugins],
    }


def _witness_lines(parts: Parts) -> Mapping[str, Sequence[str]]:
    """The quorum and each witness; nothing where none is asked."""
    return {} if parts.witnesses is None else {"witnesses": parts.witnesses.report(parts.log.size)}


def _health(parts: Parts) -> str:
    if parts.failsafe.reason is not None:
        return f"FAIL-SAFE, writes are refused: {parts.failsafe.reason}"
    if parts.scrub.findings:
        return "DAMAGED: what is stored is not what was committed, see scrub"
    if parts.logbook.failure is not None:
        return "degraded: the log is behind the chain, see log"
    if parts.witnesses is not None and parts.witnesses.trouble is not None:
        return f"degraded: {parts.witnesses.trouble}, see witnesses"
    if parts.deriver.failure is not None:
        return "degraded: search does not work, see index"
    space = parts.store.space()
    if space.free_bytes < LOW_SPACE_BYTES:
        return f"low on space: {_mib(space.free_bytes)} are left in the pool; writes fail with ENOSPC when it is full"
    return "ok"


def _space(parts: Parts) -> str:
    space = parts.store.space()
    return f"{_gib(space.free_bytes)} free of {_gib(space.total_bytes)}"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB"


def _plugin_line(parts: Parts, name: str) -> str:
    reason = parts.plugins[name].why_unavailable()
    count = len(parts.sequencer.catalog.elements(name))
    return f"{name}: {count} elements" + (f"; UNAVAILABLE: {reason}" if reason else "")
