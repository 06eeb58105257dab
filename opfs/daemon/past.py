"""The views of the past in the mount: /history, /at, and the commands that label blocks.

Wires, decides nothing else. Trio thread only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio

from opfs.commit.labels import Labels
from opfs.commit.pruning import Pruner
from opfs.commit.timeline import Timeline
from opfs.commit.verified import CheckedReads
from opfs.core.event import decode_events
from opfs.core.moments import AtHeight
from opfs.daemon.erasing import make_erase, make_eraser
from opfs.errors import AccessDenied, Busy, InvalidRequest
from opfs.fuse.caller import groups_of, identify
from opfs.vfs.at import AtDirectory
from opfs.vfs.ctl import Command
from opfs.vfs.generated import GeneratedFile
from opfs.vfs.history import HistoryDirectory, Past

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.core.event import Event
    from opfs.core.names import BlockName, ElementId
    from opfs.daemon.parts import Parts
    from opfs.ports import RecordedEvent
    from opfs.vfs.node import Caller, Node


RETENTION = ".retention"
"""The file in /chain that says which block keeps its snapshot, and why."""


class PrunedReads:
    """What /chain shows of blocks without a snapshot; see opfs.vfs.archived."""

    def __init__(self, parts: Parts, timeline: Timeline, reads: CheckedReads) -> None:
        self._store, self._history, self._timeline = parts.store, parts.history, timeline
        self.is_pruned = parts.store.is_pruned
        self.time_ns = timeline.time_ns
        self.read_header, self.read_events, self.read_document = (
            reads.read_header,
            reads.read_events,
            reads.read_document,
        )

    def documents(self, name: BlockName, plugin: str) -> Sequence[RecordedEvent]:
        return self._history.documents_at(self._end(name), plugin)

    def version(self, name: BlockName, id: ElementId) -> RecordedEvent | None:
        version = self._history.version_at(id, self._end(name))
        return version if version is not None and version.content is not None else None

    def plugins(self, name: BlockName) -> Sequence[str]:
        return sorted({version.id.plugin for version in self._history.documents_at(self._end(name))})

    def _end(self, name: BlockName) -> int:
        end = self._timeline.events_end(name)
        if self._history.indexed_count < end:
            raise Busy("the history is being made again from the blocks", hint="try again in a moment")
        return end


class PastViews:
    """The nodes, in the order of a listing, and the commands that go with them."""

    def __init__(self, parts: Parts) -> None:
        self._reads = CheckedReads(parts.store, parts.verified)
        self.timeline = Timeline(lambda: parts.sequencer.blocks, self._reads.read_header, parts.clock)
        self.labels = Labels(parts.history, parts.historian, parts.sequencer, self._events_of)
        past = Past(parts.history, parts.historian, self._block_at, self._content_of, groups_of, parts.store.erased_in)
        self.nodes: list[Node] = [
            HistoryDirectory(("history",), past, time_ns=parts.started_ns),
            AtDirectory(("at",), self.timeline, self.labels, time_ns=parts.started_ns),
        ]
        self.pruned = PrunedReads(parts, self.timeline, self._reads)
        self.pruner = Pruner(
            parts.store,
            parts.sequencer,
            self.timeline,
            self.labels,
            parts.reserve,
            parts.snapshots,
            parts.config.retention,
            parts.config.max_live_blocks,
        )
        self.eraser = make_eraser(parts, self._block_at, self._events_of, self.pruner.running)
        self._blocks = parts.store.list_blocks
        self.retention = GeneratedFile(("chain", RETENTION), self._tell_retention, time_ns=parts.started_ns)
        self._sequencer = parts.sequencer
        self.commands = [
            self._make_commit(),
            self._make_label(),
            self._make_unlabel(),
            self._make_prune(),
            make_erase(self.eraser),
        ]

    def _block_at(self, height: int) -> BlockName:
        return self.timeline.block_of(AtHeight(height))

    def _content_of(self, version: RecordedEvent) -> bytes:
        return self._reads.read_document(self._block_at(version.height), version.id)

    def _events_of(self, height: int) -> Sequence[Event]:
        return decode_events(self._reads.read_events(self._block_at(height)))

    def _make_commit(self) -> Command:
        async def run(words: Sequence[str], caller: Caller) -> str:
            if words:
                raise InvalidRequest("commit takes no arguments", hint="write: commit")
            if caller.uid != 0:
                raise AccessDenied("only root may make a block before its time")
            return f"{await self._sequencer.seal()}\n"

        return Command("commit", "commit", "make a block of what is pending, and name the newest block", run)

    def _make_label(self) -> Command:
        async def run(words: Sequence[str], caller: Caller) -> None:
            if not words:
                raise InvalidRequest(
                    "label takes a name, and a block or a time", hint="write: label before-upgrade 41 why"
                )
            _require_root(caller)
            name, where, *message = [*words, *(["now"] if len(words) == 1 else [])]
            if len(words) == 1:
                await self._sequencer.seal()
            block = await trio.to_thread.run_sync(self.timeline.find, where)
            await self.labels.add(name, block, identify(caller), " ".join(message))

        return Command("label", "label before-upgrade 41", "give a block a name, which keeps it from being pruned", run)

    def _make_unlabel(self) -> Command:
        async def run(words: Sequence[str], caller: Caller) -> None:
            if len(words) != 1:
                raise InvalidRequest("unlabel takes the name of a label", hint="write: unlabel before-upgrade")
            _require_root(caller)
            await self.labels.remove(words[0], identify(caller))

        return Command("unlabel", "unlabel before-upgrade", "take a label away", run)

    def _make_prune(self) -> Command:
        async def run(words: Sequence[str], caller: Caller) -> None:
            if words:
                raise InvalidRequest(
                    "prune takes no arguments", hint="write: prune; the configuration says what is kept"
                )
            if caller.uid != 0:
                raise AccessDenied("only root may prune")
            await self.pruner.prune(identify(caller))

        return Command("prune", "prune", "archive the blocks that need no snapshot, by the rule of retention", run)

    async def _tell_retention(self, caller: Caller) -> bytes:
        """Every block and what a pruning would do with its snapshot, one JSON object a line."""
        plan, frees = await self.pruner.plan(), self.pruner.estimate_bytes()
        lines = []
        for block in self._blocks():
            told: dict[str, object] = {"block": str(block), "snapshot": "keep", "why": plan.kept.get(block, "")}
            if self.pruned.is_pruned(block):
                told["snapshot"] = "archived"
            elif block not in plan.kept:
                told |= {"snapshot": "prune", "why": plan.why_pruned(block), "frees": frees}
            lines.append(json.dumps(told))
        return "".join(f"{line}\n" for line in lines).encode()


def _require_root(caller: Caller) -> None:
    if caller.uid != 0:
        raise AccessDenied("only root may label blocks")
