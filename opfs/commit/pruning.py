"""Pruning: snapshots go when their blocks are in the archive, a few at a time, and an event says so.

The order of one run: archive, record, delete. Archiving is durable before anything is recorded, and recorded before
the first snapshot goes, so a crash anywhere loses nothing: the next run finds blocks in the archive whose snapshots are
still there and goes on. Commits go on beside it: between groups of deletions there is a pause three times
as long as the group took.

Where the pool is to have some room (`Retention.min_free`), more snapshots go than the rule says, group by group, each
followed by a look at what it gave: btrfs frees room in the background, and nobody but it can tell how much a snapshot
alone holds. A group that gives nothing ends it until many new snapshots are there: then it is not snapshots that fill
the pool.

On a full pool the archive needs some room first; then the reserve's ballast gives way, once. Trio thread; archive and
snapshots are written in one worker thread of low priority.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import trio

from opfs.commit.chain import Outcome
from opfs.commit.change import Change, Request
from opfs.commit.derive import low_priority
from opfs.commit.step import Applied
from opfs.core.actor import Actor
from opfs.core.names import OWN_EVENTS, ElementId
from opfs.core.retention import RetentionPlan, plan_retention
from opfs.errors import Busy, NoSpace, OpfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opfs.commit.chain import Proposal
    from opfs.commit.reserve import Reserve
    from opfs.commit.sequencer import Sequencer
    from opfs.commit.timeline import Timeline
    from opfs.core.names import BlockName
    from opfs.core.retention import Retention

log = logging.getLogger(__name__)

PRUNE = ElementId(OWN_EVENTS, "prune")
OP = "prune"
ARCHIVED_AT_ONCE = 500
"""Blocks in one pack: some hundred kilobytes."""
DELETED_AT_ONCE = 10
PAUSE_FACTOR = 3
SLACK_SHARE = 10
"""A tenth more snapshots than allowed may gather before a run, so that runs are rare."""
ROOM_AT_ONCE = 50
"""Snapshots that go for their room before what they gave is looked at."""
ROOM_LOOK_S = 30.0
"""How often it is looked whether there is room; commits wake it, too."""
WORTH_BYTES = 1024
"""A group of snapshots that gave less for each than this gave nothing."""
NEW_BEFORE_RETRY = 50
"""So many more snapshots than after a run that gave nothing, before the next one for room."""
_ACTOR = Actor(uid=0, user="root", command="opfs", source="retention")


class PrunableStore(Protocol):
    """Blocks with and without snapshots; the methods block."""

    @property
    def live_blocks(self) -> Sequence[BlockName]: ...

    @property
    def live_count(self) -> int: ...

    def archive_blocks(self, names: Sequence[BlockName]) -> None: ...

    def delete_snapshots(self, names: Sequence[BlockName]) -> None: ...


class Space(Protocol):
    """The room of a file system, in bytes; free is what is left until its first kind runs out."""

    @property
    def total_bytes(self) -> int: ...
    @property
    def free_bytes(self) -> int: ...


class Room(Protocol):
    """Where snapshots take room; the methods block."""

    def space(self) -> Space: ...

    def used_by_snapshots(self) -> int:
        """Bytes of metadata in use, nearly all of which are snapshots'."""
        ...

    def wait_freed(self) -> bool:
        """Wait until the room of deleted snapshots is free; returns whether it is."""
        ...


class Labelled(Protocol):
    """Names that people gave to blocks."""

    async def current(self) -> Mapping[str, BlockName]: ...


class Pruner:
    """Keeps the number of snapshots below `max_live`, 0 for no bound, by the rule of `retention`."""

    def __init__(
        self,
        store: PrunableStore,
        sequencer: Sequencer,
        timeline: Timeline,
        labels: Labelled,
        reserve: Reserve,
        room: Room,
        retention: Retention,
        max_live: int,
    ) -> None:
        self._store = store
        self._sequencer = sequencer
        self._timeline = timeline
        self._labels = labels
        self._reserve = reserve
        self._room = room
        self._retention = retention
        self._max_live = max_live
        self._running = trio.Lock()
        self._thread = trio.CapacityLimiter(1)
        self._changed = trio.Event()
        self._in_vain_until = 0
        """Live snapshots from which on it makes sense again to prune for room."""
        self.failure: str | None = None
        """Why the last run by itself did not succeed, or None."""
        sequencer.on_block.append(self._wake)

    @property
    def running(self) -> trio.Lock:
        """Held while snapshots and archive are changed; who else changes them takes it too."""
        return self._running

    @property
    def live_count(self) -> int:
        """Blocks that have a snapshot."""
        return self._store.live_count

    async def plan(self) -> RetentionPlan:
        """What a run would keep, and why, and what it would prune; how many go for their room is an estimate."""
        plan = await self._plan_by_rule()
        lacking, each = self.lacking_bytes(), self.estimate_bytes()
        lacking -= each * len(plan.pruned)
        return plan.without(plan.spare[: -(-lacking // each)]) if lacking > 0 else plan

    def lacking_bytes(self) -> int:
        """How much less room there is than there shall be."""
        space = self._room.space()
        return max(0, self._retention.min_free.of(space.total_bytes) - space.free_bytes)

    def estimate_bytes(self) -> int:
        """What one snapshot takes, on average; what it would give back is less where others share it."""
        return max(WORTH_BYTES, self._room.used_by_snapshots() // max(1, self.live_count))

    async def prune(self, actor: Actor) -> int:
        """Prune what the rule says, then for room; returns the number of snapshots that went.

        Raises OpfsError: Busy where that is going on, NoSpace where the room that there shall be cannot be made.
        """
        if self._running.locked():
            raise Busy("snapshots are being pruned already", hint="wait until that is done; /status shows it")
        async with self._running:
            self._sequencer.failsafe.require_writable()
            names = (await self._plan_by_rule()).pruned
            await self._prune(names, actor)
            return len(names) + await self._make_room(actor)

    async def run(self) -> None:
        """Prune whenever there are too many snapshots or too little room, until cancelled; never fails a commit."""
        makes_room = self._retention.min_free.of(1 << 50) > 0
        while self._max_live or makes_room:
            changed = self._changed
            if self.is_due():
                await self._prune_by_itself()
            with trio.move_on_after(ROOM_LOOK_S if makes_room else float("inf")):
                await changed.wait()

    def is_due(self) -> bool:
        """Whether there are too many snapshots, or too little room and snapshots to make some."""
        if self._max_live and self.live_count > self._max_live + self._max_live // SLACK_SHARE:
            return True
        return self.live_count >= self._in_vain_until and self.lacking_bytes() > 0

    async def _plan_by_rule(self) -> RetentionPlan:
        labelled = set((await self._labels.current()).values())
        return await trio.to_thread.run_sync(
            lambda: plan_retention(self._store.live_blocks, self._timeline.time_ns, labelled, self._retention)
        )

    async def _make_room(self, actor: Actor) -> int:
        """Prune the oldest of what may go until there is room; raises NoSpace where that does not help."""
        count = 0
        if self.lacking_bytes():
            await self._wait_freed()  # of what went by the rule
        while lacking := self.lacking_bytes():
            spare = (await self._plan_by_rule()).spare
            group = spare[: min(ROOM_AT_ONCE, max(DELETED_AT_ONCE, lacking // self.estimate_bytes()))]
            await self._prune(group, actor)
            count += len(group)
            await self._wait_freed()
            if lacking - self.lacking_bytes() < WORTH_BYTES * max(1, len(group)):
                self._in_vain_until = self.live_count + NEW_BEFORE_RETRY
                raise NoSpace(
                    f"{lacking >> 10} KiB less are free than there shall be, and pruning more snapshots frees nothing",
                    hint="something else fills the pool: make it larger, or lower retain_min_free",
                )
        self._in_vain_until = 0
        return count

    async def _wait_freed(self) -> None:
        await trio.to_thread.run_sync(low_priority()(self._room.wait_freed), limiter=self._thread)

    async def _prune(self, names: Sequence[BlockName], actor: Actor) -> None:
        for start in range(0, len(names), ARCHIVED_AT_ONCE):
            part = names[start : start + ARCHIVED_AT_ONCE]
            await self._archive(part)
            # After this line: blocks are in the archive and have snapshots; a crash here leaves both; repaired
            # by the next run, which archives none twice and goes on.
            await self._record(part, actor)
            # After this line: the chain says that these blocks have no snapshot; a crash here leaves some that
            # have; repaired by the next run, which prunes them again and says so again.
            await self._delete(part)

    async def _prune_by_itself(self) -> None:
        try:
            if self._sequencer.failsafe.reason is None:
                count = await self.prune(_ACTOR)
                log.info("%d snapshots were pruned, %d are left", count, self.live_count)
            self.failure = None
        except Busy:
            pass  # somebody asked for it by hand
        except OpfsError as error:
            if self.failure is None:
                log.warning("snapshots are not pruned: %s", error)
            self.failure = str(error)

    def _wake(self, _: Proposal) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _archive(self, names: Sequence[BlockName]) -> None:
        try:
            await self._in_thread(self._store.archive_blocks, names)
        except NoSpace:
            if not await self._reserve.give_way():
                raise
            await self._in_thread(self._store.archive_blocks, names)

    async def _record(self, names: Sequence[BlockName], actor: Actor) -> None:
        text = f"{len(names)} {'block keeps' if len(names) == 1 else 'blocks keep'} no snapshot"
        plan = ({"step": OP, "summary": f"blocks {ranges_of(names)}", "safety": "safe"},)
        outcome = Outcome(PRUNE, OP, None, None, actor.to_json(), message=text, plan=plan, changes_document=False)
        await self._sequencer.record(Request((Change(PRUNE, None),), actor, text), Applied((outcome,)))

    async def _delete(self, names: Sequence[BlockName]) -> None:
        for start in range(0, len(names), DELETED_AT_ONCE):
            began = trio.current_time()
            await self._in_thread(self._store.delete_snapshots, names[start : start + DELETED_AT_ONCE])
            await trio.sleep((trio.current_time() - began) * PAUSE_FACTOR)

    async def _in_thread(self, work: Callable[[Sequence[BlockName]], None], names: Sequence[BlockName]) -> None:
        await trio.to_thread.run_sync(low_priority()(work), names, limiter=self._thread)


def ranges_of(names: Sequence[BlockName], limit: int = 40) -> str:
    """The heights in words, `1-40, 42, 50-99`; cut after `limit` ranges."""
    ranges: list[list[int]] = []
    for name in names:
        if ranges and ranges[-1][1] == name.height - 1:
            ranges[-1][1] = name.height
        else:
            ranges.append([name.height, name.height])
    words = [str(low) if low == high else f"{low}-{high}" for low, high in ranges[:limit]]
    return ", ".join(words) + (f" and {len(ranges) - limit} more ranges" if len(ranges) > limit else "")
