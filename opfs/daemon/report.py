"""What /status says: one line per topic, several where a topic has several things to say. No I/O that waits."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from opfs import __version__
from opfs.core.lag import IndexLag
from opfs.core.names import ElementId
from opfs.core.printable import clip, printable
from opfs.core.standing import PENDING, Kind
from opfs.plugins.registry import describe_plugin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from opfs.daemon.parts import Parts

LOW_SPACE_BYTES = 64 << 20
LISTED = 20
"""Elements of one kind that the page names; /live and the events tell of all."""
DETAIL_LIMIT = 200


def describe(parts: Parts) -> Mapping[str, str | Sequence[str]]:
    """The health of the daemon, by topic, most important first."""
    sequencer = parts.sequencer
    uptime = timedelta(seconds=(parts.clock.now_ns() - parts.started_ns) // 10**9)
    return {
        "health": _health(parts),
        "version": f"opfs {__version__}, up {uptime}",
        "pool": [f"{parts.pool.path}, {_space(parts)}", *parts.snapshots.damage()],
        "origin": sequencer.origin,
        "head": str(sequencer.catalog.head),
        "blocks": f"{len(sequencer.blocks)}, {parts.store.live_count} with a snapshot",
        "events": f"{sequencer.event_count}",
        **_pending_lines(parts),
        "elements": f"{sequencer.catalog.count()}",
        "log": parts.logbook.failure or f"{parts.log.size} blocks, signed",
        **_witness_lines(parts),
        "under way": f"{sequencer.in_flight_count} changes",
        **_unsettled_lines(parts),
        "index": _index_lines(parts),
        "model": parts.embedders.report(),
        "placement": parts.placement.report(),
        "cache": parts.caretaker.report(),
        "scrub": parts.scrub.report(),
        "plugins": [_plugin_line(parts, name) for name in parts.plugins],
    }


def _index_lines(parts: Parts) -> Sequence[str]:
    """How far words and meaning are, and what keeps them."""
    deriver, meaning = parts.deriver, parts.meaning
    line = deriver.failure or str(IndexLag(parts.index.indexed_count, deriver.lag, meaning.lag))
    return [line, *(note for note in (meaning.failure, parts.index.notice) if note)]


def _pending_lines(parts: Parts) -> Mapping[str, Sequence[str]]:
    """What is in no block yet; nothing where every write has its block."""
    lines = parts.sequencer.sealing.describe(parts.chain)
    return {PENDING: lines} if lines else {}


def _unsettled_lines(parts: Parts) -> Mapping[str, Sequence[str]]:
    """The elements that are not as their documents say, by how that is; nothing where all are.

    Everybody reads this page, so what a document says is told of those only that everybody may read.
    """
    lines: dict[str, list[str]] = {}
    catalog = parts.sequencer.catalog
    for id, standing in sorted(catalog.unsettled.items()):
        entry = catalog.get(id)
        is_public = entry is not None and entry.attributes.mode & 0o004
        detail = f": {clip(printable(' '.join(standing.detail.split())), DETAIL_LIMIT)}" if is_public else ""
        report = parts.drift.of(id)
        culprit = f" (by {printable(report.culprit)})" if report and report.culprit and is_public else ""
        lines.setdefault(standing.kind, []).append(f"{id}{detail}{culprit}")
    failures = [f"{name}: {printable(failure)}" for name, failure in parts.drift.failures().items()]
    order = (Kind.WAITING, Kind.FAILED, Kind.DRIFTED)
    shown: dict[str, Sequence[str]] = {kind.value: _some(lines[kind]) for kind in order if kind in lines}
    return {**shown, "not looked at": failures} if failures else shown


def _some(lines: Sequence[str]) -> Sequence[str]:
    more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return [*lines[:LISTED], *more]


def _witness_lines(parts: Parts) -> Mapping[str, Sequence[str]]:
    """The quorum and each witness; nothing where none is asked."""
    return {} if parts.witnesses is None else {"witnesses": parts.witnesses.report(parts.log.size)}


def _health(parts: Parts) -> str:
    if parts.failsafe.reason is not None:
        return f"FAIL-SAFE, writes are refused: {parts.failsafe.reason}"
    if parts.scrub.findings:
        return "DAMAGED: what is stored is not what was committed, see scrub"
    if parts.reserve.is_reached:
        return "FULL: documents and drafts are refused with ENOSPC, deletes go on; see pool"
    if parts.sequencer.sealing.failure is not None:
        return "degraded: no block can be made of what is pending, see pending"
    if parts.logbook.failure is not None:
        return "degraded: the log is behind the chain, see log"
    if parts.witnesses is not None and parts.witnesses.trouble is not None:
        return f"degraded: {parts.witnesses.trouble}, see witnesses"
    if parts.deriver.failure is not None:
        return "degraded: search does not work, see index"
    if parts.meaning.failure is not None:
        return "degraded: search by meaning does not work, see index"
    space = parts.snapshots.space()
    if space.free_bytes < LOW_SPACE_BYTES:
        return f"low on space: {_mib(space.free_bytes)} are left in the pool; writes fail with ENOSPC when it is full"
    return "ok"


def _space(parts: Parts) -> str:
    space = parts.snapshots.space()
    return f"{_gib(space.free_bytes)} free of {_gib(space.total_bytes)}"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB"


def describe_plugins(parts: Parts) -> Iterator[Mapping[str, object]]:
    """Each plugin: what it says of itself, how many elements are declared, and how many of them stand where."""
    catalog = parts.sequencer.catalog
    for name, plugin in parts.plugins.items():
        entries = (catalog.get(ElementId(name, element)) for element in catalog.elements(name))
        kinds = Counter(entry.standing.kind for entry in entries if entry is not None)
        yield {
            **describe_plugin(plugin),
            "mode": parts.sequencer.policy.rules(name).mode.value,
            "declared": kinds.total(),
            **{kind.value: kinds[kind] for kind in Kind if kind is not Kind.COMMITTED},
        }


def _plugin_line(parts: Parts, name: str) -> str:
    reason = parts.plugins[name].why_unavailable()
    count = len(parts.sequencer.catalog.elements(name))
    return f"{name}: {count} elements" + (f"; UNAVAILABLE: {reason}" if reason else "")
