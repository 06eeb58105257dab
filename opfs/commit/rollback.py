"""Rollback: the documents of an earlier block again, as one request of ordinary changes, and so as one new block.

Nothing here touches the host or the chain: what a block had is read, checked against the block's own hashes, compared
with HEAD, and asked for in the way of every write, with its plan, policy, order, verification and undoing. The events
are creates, updates and deletes, so that whoever replays the chain needs no word more; their message names the block.
Trio thread; documents are read in worker threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import trio

from opfs.commit.change import Change, Request
from opfs.commit.preview import digest_of_all
from opfs.core.canonical import hash_hex
from opfs.core.going_back import Scope, difference, message_of
from opfs.core.names import ElementId
from opfs.core.statetree import StateTree
from opfs.errors import IntegrityError, InvalidRequest, OpfsError
from opfs.ports import FileAttributes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from opfs.commit.planner import Planner
    from opfs.commit.sequencer import Sequencer
    from opfs.commit.timeline import Timeline
    from opfs.commit.verified import CheckedReads
    from opfs.core.actor import Actor
    from opfs.core.names import BlockName
    from opfs.core.planview import PlanView
    from opfs.ports import Clock, History

_SHOWN = 5


class Historian(Protocol):
    """Keeps the history up with the chain."""

    async def wait_current(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RollbackPlan:
    """What going back to `block` would do, in the order of doing it; `skipped` says what would be left and why."""

    block: BlockName
    views: tuple[PlanView, ...]
    skipped: Mapping[ElementId, str]

    @property
    def digest(self) -> str:
        """Names exactly this plan, as `Request.expected_plan`."""
        return digest_of_all(view.digest for view in self.views)


@dataclass(slots=True)
class _Wanted:
    changes: list[Change] = field(default_factory=list)
    skipped: dict[ElementId, str] = field(default_factory=dict)


class Rollback:
    """Goes back to blocks, live and pruned ones; `submit` commits a request."""

    def __init__(
        self,
        sequencer: Sequencer,
        planner: Planner,
        history: History,
        historian: Historian,
        timeline: Timeline,
        reads: CheckedReads,
        clock: Clock,
        submit: Callable[[Request], Awaitable[BlockName]],
    ) -> None:
        self._sequencer = sequencer
        self._planner = planner
        self._history = history
        self._historian = historian
        self._timeline = timeline
        self._reads = reads
        self._clock = clock
        self._submit = submit

    async def plan(self, block: BlockName, scope: Scope, actor: Actor, *, skip_refused: bool = False) -> RollbackPlan:
        """What `carry_out` would do now; raises what it would raise before anything is done, but for confirmations."""
        wanted = await self._wanted(block, scope, skip_refused=skip_refused)
        request = Request(tuple(wanted.changes), actor, message_of(block))
        views = await self._planner.view_all(request) if request.changes else ()
        return RollbackPlan(block, tuple(views), wanted.skipped)

    async def carry_out(
        self,
        block: BlockName,
        scope: Scope,
        actor: Actor,
        *,
        skip_refused: bool = False,
        expected_plan: str | None = None,
    ) -> BlockName:
        """Make everything in `scope` what it was in `block`; returns the block that says so, HEAD if all of it was so.

        Raises NotFound, and InvalidRequest with the reasons where a document cannot come back (nothing was done);
        IntegrityError where the block is damaged; and what `Sequencer.submit` raises.
        """
        wanted = await self._wanted(block, scope, skip_refused=skip_refused)
        if not wanted.changes:
            return self._sequencer.catalog.head
        request = Request(
            tuple(wanted.changes), actor, message_of(block), expected_plan=expected_plan, wants_block=True
        )
        return await self._submit(request)

    async def _wanted(self, block: BlockName, scope: Scope, *, skip_refused: bool) -> _Wanted:
        await self._historian.wait_current()
        then = await trio.to_thread.run_sync(self._contents, block)
        catalog = self._sequencer.catalog
        entries = {
            id: entry
            for plugin in catalog.plugins()
            for element in catalog.elements(plugin)
            if (entry := catalog.get(id := ElementId(plugin, element))) is not None
        }
        scope.check_known({*then, *entries}, block)
        found = difference(then, {id: entry.content_hash.hex() for id, entry in entries.items()}, scope)
        documents = await trio.to_thread.run_sync(self._documents, block, {id: then[id] for id in found.written})
        # tied to the versions that were compared: who writes meanwhile is not overwritten
        base = {id: entry.last_event for id, entry in entries.items()}
        wanted = _Wanted()
        for id in (*found.written, *found.deleted):
            content, attributes = documents.get(id, (None, None))
            try:
                await self._sequencer.validator.validate(id, content)
            except OpfsError as error:
                wanted.skipped[id] = str(error)
            else:
                wanted.changes.append(Change(id, content, attributes, base.get(id)))
        if wanted.skipped and not skip_refused:
            told = [f"{id}: {reason}" for id, reason in wanted.skipped.items()]
            more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
            raise InvalidRequest(
                f"not everything of block {block} is possible any more: {'; '.join(told[:_SHOWN])}{more}",
                hint="nothing was done; --skip-refused goes back without these",
            )
        return wanted

    def _contents(self, block: BlockName) -> Mapping[ElementId, str]:
        """The content hash of every document of a block.

        The history is derived, so it is believed only where its documents are those that the header commits to.
        """
        versions = self._history.documents_at(self._timeline.events_end(block))
        contents = {version.id: version.content for version in versions if version.content is not None}
        tree = StateTree.of((id, bytes.fromhex(content)) for id, content in contents.items())
        if tree.root.hex() != self._timeline.header(block).state_root:
            raise IntegrityError(f"the history does not have the documents of block {block}", hint="run opfs verify")
        return contents

    def _documents(
        self, block: BlockName, contents: Mapping[ElementId, str]
    ) -> Mapping[ElementId, tuple[bytes, FileAttributes]]:
        """The documents with these hashes, and as whose files they come back; raises IntegrityError."""
        now_ns = self._clock.now_ns()
        found = {}
        for id, expected in contents.items():
            content = self._reads.read_document(block, id)
            if hash_hex(content) != expected:
                raise IntegrityError(f"{id} of block {block} is not what its event says", hint="run opfs verify")
            file = self._reads.document_attributes(block, id)
            found[id] = content, FileAttributes(file.mode, file.uid, file.gid, now_ns)
        return found


def plan_to_json(plan: RollbackPlan) -> Sequence[dict[str, object]]:
    """For programs: first the block, the digest and what is skipped, then the plan of each element."""
    skipped = {str(id): reason for id, reason in plan.skipped.items()}
    head: dict[str, object] = {"block": str(plan.block), "digest": plan.digest, "skipped": skipped}
    return [head, *(view.to_json() for view in plan.views)]
