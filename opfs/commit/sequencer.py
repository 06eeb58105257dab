"""The one writer of the chain: takes requests, makes their events durable and blocks of them, answers writers.

Life of a write (architecture.md): `submit` validates; a task of its own carries the request out on the host
(opfs.commit.host); the sequencer puts everything that is ready into one block, and whoever arrives
while that block is made goes into the next. A writer is answered when its events are durable: in their block or, where
blocks are made at intervals (opfs.commit.sealing), in the journal.

Concurrency: everything here runs on the trio thread; the store is called in one worker thread at a time.
Work goes on in the sequencer's own nursery, so a writer that is interrupted or gone changes nothing. An element is
changed, or looked at for good, by one task at a time: writers that meet are told so, and wait for what opfs does.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from opfs.commit.blocks import Blocks
from opfs.commit.change import Change, Request
from opfs.commit.dependencies import ALONE, Dependencies
from opfs.commit.host import Host
from opfs.commit.policy import Policy
from opfs.commit.reading import CommittedDocuments
from opfs.commit.sealing import Sealing
from opfs.commit.step import Applied, Want, failure_of
from opfs.commit.tickets import Ticket, Tickets
from opfs.commit.timings import ACKNOWLEDGE, COMMIT, Timings
from opfs.commit.validation import Validator
from opfs.core.actor import Actor
from opfs.core.cadence import Cadence
from opfs.core.redaction import Redactor
from opfs.core.standing import IN_FORCE, PENDING
from opfs.errors import (
    ApplyNoSpace,
    ApplyTimeout,
    CommitUnknown,
    InvalidRequest,
    NoSpace,
    OpfsError,
    ReadOnly,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from opfs.commit.catalog import Catalog, Entry
    from opfs.commit.chain import Chain, Proposal
    from opfs.commit.confirmations import Confirmations
    from opfs.commit.dependencies import Company
    from opfs.commit.failsafe import FailSafe
    from opfs.commit.journal import Journal
    from opfs.commit.journaled import Acknowledged
    from opfs.commit.logbook import Logbook
    from opfs.commit.pending import Extension, Pending
    from opfs.commit.preview import Preview
    from opfs.commit.reserve import Reserve
    from opfs.core.names import BlockName, ElementId
    from opfs.core.rules import PluginRules
    from opfs.core.standing import Standing
    from opfs.ports import Clock, FileAttributes, Plugin, SnapshotStore

log = logging.getLogger(__name__)

MAX_REQUESTS_PER_BLOCK = 256
REPLY_TIMEOUT_S = 240.0

_NOBODY = Actor(uid=0, user="root", source="interval")

Work = Callable[[], Awaitable[Applied]]
"""What is done about a request while its elements are nobody else's."""


class Sequencer:
    """Owns the chain. `run` must be running for `submit` to be answered."""

    def __init__(
        self,
        chain: Chain,
        store: SnapshotStore,
        logbook: Logbook,
        journal: Journal,
        plugins: Mapping[str, Plugin],
        confirmations: Confirmations,
        failsafe: FailSafe,
        clock: Clock,
        *,
        rules: Mapping[str, PluginRules] | None = None,
        redactor: Redactor | None = None,
        reserve: Reserve | None = None,
        reply_timeout_s: float = REPLY_TIMEOUT_S,
        timings: Timings | None = None,
        cadence: Cadence | None = None,
    ) -> None:
        self._timings = timings = timings or Timings()
        self.plugins = plugins
        self.confirmations = confirmations
        self.failsafe = failsafe
        self.redact = redactor or Redactor()
        self.policy = Policy(chain.catalog, confirmations, rules or {})
        self.documents = CommittedDocuments(store, chain)
        self.validator = Validator(plugins)
        self.dependencies = Dependencies(plugins, chain.catalog, self.documents.declared)
        self.host = Host(self.validator.require, chain, journal, self.policy, self.dependencies, self.redact, timings)
        self.on_change: list[Callable[[Mapping[ElementId, Entry | None]], None]] = []
        """Called with what has changed as soon as it is durable, on the trio thread; they neither block nor raise."""
        self.on_block: list[Callable[[Proposal], None]] = []
        """Called after each commit point of a block, after `on_change`, in the same way."""
        self.sealing = Sealing(cadence or Cadence(), clock)
        self._chain = chain
        self._store = store
        self._blocks = Blocks(chain, store, logbook, journal, clock, failsafe, timings)
        self._reserve = reserve
        self._reply_timeout_s = reply_timeout_s
        self._in_flight = Tickets()
        self._ready_in, self._ready_out = trio.open_memory_channel[Ticket](10_000)
        self._nursery: trio.Nursery | None = None
        self._draining = False

    @property
    def catalog(self) -> Catalog:
        return self._chain.catalog

    @property
    def blocks(self) -> Sequence[BlockName]:
        """Every block, lowest first; a live view."""
        return self._chain.blocks

    @property
    def event_count(self) -> int:
        """Events in blocks so far."""
        return self._chain.end_seq

    @property
    def pending(self) -> Pending:
        """The events that are durable and in no block yet; a live view."""
        return self._chain.pending

    @property
    def in_flight_count(self) -> int:
        """Elements that are being changed now."""
        return len(self._in_flight)

    @property
    def origin(self) -> str:
        return self._chain.origin

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Make blocks until cancelled; what has begun is finished first."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.dependencies.load, self._store.scan_block(self.catalog.head))
            nursery.start_soon(self.sealing.run, self._chain, self.seal)
            task_status.started()
            async for ticket in self._ready_out:
                batch = [ticket]
                while len(batch) < MAX_REQUESTS_PER_BLOCK:
                    try:
                        batch.append(self._ready_out.receive_nowait())
                    except trio.WouldBlock:
                        break
                with trio.CancelScope(shield=True):
                    await self._commit(batch)

    # --- for readers -------------------------------------------------------------------------------------

    async def read_document(self, id: ElementId) -> bytes:
        """The committed bytes of a document; raises NotFound or IntegrityError."""
        return await self.documents.read(id)

    def is_busy(self, id: ElementId) -> bool:
        """Whether a change of the element is under way."""
        return id in self._in_flight

    async def wait_idle(self, id: ElementId) -> None:
        """Return when no change of the element is under way."""
        await self._in_flight.wait_free(id)

    def status(self, id: ElementId) -> str:
        """Where a committed element stands, in words, and if that is in no block yet; empty where there is none."""
        entry = self.catalog.get(id)
        if entry is None:
            return ""
        if not self.is_pending(id):
            return str(entry.standing)
        return PENDING if entry.standing == IN_FORCE else f"{PENDING}, {entry.standing}"

    def is_pending(self, id: ElementId) -> bool:
        """Whether the element's newest event is in no block yet."""
        return id in self.pending.tips

    def note_standing(self, id: ElementId, standing: Standing) -> None:
        """What was seen of an element since its last event; it holds until the next one, or the next start."""
        entry = self.catalog.get(id)
        if entry is not None:
            self.catalog.update(self.catalog.head, {id: replace(entry, standing=standing)})

    async def preview(self, change: Change, actor: Actor, company: Company = ALONE) -> Preview:
        """What submitting the change would do now, or once `company` has happened; it does nothing.

        Raises as `submit` does before it acts.
        """
        request = Request((change,), actor)
        (want,) = await self._with_committed(await self._wants(request))
        return await self.host.preview(request, want, company)

    async def preview_all(self, request: Request) -> Sequence[Preview]:
        """What submitting the request would do now, in that order; it does nothing, and raises as `preview` does."""
        return await self.host.preview_all(request, await self._with_committed(await self._wants(request)))

    # --- for writers -------------------------------------------------------------------------------------

    async def submit(self, request: Request) -> BlockName:
        """Apply and commit a request; returns its block, or HEAD if nothing had to change or it is pending.

        Raises InvalidRequest or Rejected (nothing was done), Busy, Stale, ApplyFailed (tried; what was undone
        is in the reason, and the failure is a block), ApplyTimeout, NoSpace, CommitUnknown, ReadOnly. An element
        that must wait for others is committed, and applied when they are in place.
        """
        self._require_accepting()
        if request.wants_block and self.pending:
            await self.seal()
        ids = [change.id for change in request.changes]
        if len(set(ids)) < len(ids):
            raise InvalidRequest("a request changes each element once")
        wants = await self._wants(request)
        if size := sum(len(change.content or b"") for change in request.changes):
            await self.require_room(size)
        await self._in_flight.wait_own(ids)
        # no await from here until the elements are in flight: of two writers one is busy
        self._in_flight.require_free(ids)
        self.dependencies.begin({want.id: want.needs for want in wants if want.desired is not None})
        earlier = self._earlier(need for want in wants for need in want.needs)
        ticket = self._begin(request, lambda: self._carry_out(request, wants, earlier))
        with trio.move_on_after(self._reply_timeout_s):
            await ticket.done.wait()
        if ticket.error is not None:
            raise ticket.error
        if ticket.block is None:
            raise ApplyTimeout(
                f"{request.changes[0].id} was still being applied after {self._reply_timeout_s:.0f} s",
                hint="it goes on; its outcome will be an event",
            )
        return ticket.block

    async def require_room(self, size_bytes: int) -> None:
        """Raise NoSpace where storing so many bytes more would leave too little for deletes."""
        if self._reserve is not None:
            await self._reserve.require_room(size_bytes)

    async def record(self, request: Request, applied: Applied) -> BlockName:
        """Commit outcomes that are already true on the host, in a block made at once: how recovery makes its events."""
        return await self._make_block(Ticket(replace(request, wants_block=True), applied))

    async def seal(self) -> BlockName:
        """Make the block of what is pending; returns the newest block. Raises NoSpace, CommitUnknown or ReadOnly."""
        if self.pending:
            self.failsafe.require_writable()
        return await self._make_block(Ticket(Request((), _NOBODY, wants_block=True)))

    async def resume(self, acknowledged: Sequence[Acknowledged]) -> None:
        """Take events up that were pending when opfs stopped, before anything else is asked for; makes no block.

        Raises IntegrityError where they do not follow the chain; those before are pending.
        """
        for extension in await self._blocks.resume(acknowledged):
            self._adopt(extension.contents, extension.entries)

    async def _make_block(self, ticket: Ticket) -> BlockName:
        self._in_flight.hold(ticket)
        self._ready_in.send_nowait(ticket)
        await ticket.done.wait()
        if ticket.block is None:
            raise ticket.error or CommitUnknown("the block could not be made")
        return ticket.block

    async def apply_again(self, id: ElementId, actor: Actor) -> None:
        """Apply the committed document once more, for a reason of opfs' own; the outcome is an event, also a failure.

        Does nothing where there is no document. Raises what makes every commit fail: NoSpace, ReadOnly, CommitUnknown.
        """
        await self.alone_with(id, actor, lambda: self._apply_again(id, actor))

    async def alone_with(self, id: ElementId, actor: Actor, work: Work) -> None:
        """Do `work` while nobody changes the element, and commit what it returns; raises what the commit raises.

        `actor` has one of opfs' own sources: writers wait for the work to end.
        """
        await self.wait_idle(id)
        self._require_accepting()
        ticket = self._begin(Request((Change(id, None),), actor), work)
        await ticket.done.wait()
        if ticket.block is None and ticket.error is not None:
            raise ticket.error

    async def drain(self) -> None:
        """Accept no more requests, wait until every one under way is answered, and make a block of what is pending.

        Where no block can be made, it stays in the journal, and the next start makes it.
        """
        self._draining = True
        await self._in_flight.wait_none()
        if self.pending and self.failsafe.reason is None:
            try:
                await self.seal()
            except OpfsError as error:
                log.warning("%d events stay in the journal until the next start: %s", len(self.pending), error)

    async def set_attributes(self, id: ElementId, attributes: FileAttributes) -> None:
        """Change owner, mode or time of a committed document; the next block carries them."""
        self.failsafe.require_writable()
        await self._blocks.set_attributes(id, attributes)

    # --- one request --------------------------------------------------------------------------------------

    def _require_accepting(self) -> None:
        self.failsafe.require_writable()
        if self._draining:
            raise ReadOnly("opfs is shutting down", hint="write again when it is back")

    async def _wants(self, request: Request) -> list[Want]:
        """The request's changes, parsed and validated, with what each needs."""
        wants = []
        for change in request.changes:
            desired = await self.validator.validate(change.id, change.content)
            needs = self.dependencies.needs_of(change.id, desired) if desired is not None else ()
            if needs or desired is None:
                await self.dependencies.wait_loaded()
            wants.append(Want(change, desired, None, needs))
        return wants

    async def _with_committed(self, wants: Sequence[Want]) -> list[Want]:
        """Only a delete needs to know what the document was: to find the element, and to ask if it is protected."""
        return [
            replace(want, committed=await self.documents.declared(want.id)) if want.desired is None else want
            for want in wants
        ]

    def _earlier(self, needs: Iterable[Sequence[ElementId]]) -> list[Ticket]:
        """The requests already under way whose elements are needed; only later ones wait, so none for ever."""
        return self._in_flight.of(id for need in needs for id in need)

    def _begin(self, request: Request, work: Work) -> Ticket:
        if self._nursery is None:
            raise RuntimeError("the sequencer is not running")
        ticket = Ticket(request)
        self._in_flight.hold(ticket)
        self._nursery.start_soon(self._work, ticket, work)
        return ticket

    async def _carry_out(self, request: Request, wants: Sequence[Want], earlier: Sequence[Ticket]) -> Applied:
        for ticket in earlier:
            await ticket.done.wait()
        return await self.host.carry_out(request, await self._with_committed(wants))

    async def _apply_again(self, id: ElementId, actor: Actor) -> Applied:
        entry = self.catalog.get(id)
        if entry is None:
            return Applied()
        change = Change(id, await self.documents.read(id), base_event=entry.last_event)
        request = Request((change,), actor)
        needs = self.dependencies.committed_needs(id)
        try:
            want = Want(change, await self.validator.validate(id, change.content), None, needs)
            return await self._carry_out(request, [want], self._earlier(needs))
        except (NoSpace, ReadOnly, CommitUnknown):
            raise
        except OpfsError as error:
            return Applied((failure_of(change, request, str(error)),), failure=error)

    async def _work(self, ticket: Ticket, work: Work) -> None:
        try:
            ticket.applied = await self._with_reserve(ticket, work)
            if ticket.applied.outcomes:
                self._ready_in.send_nowait(ticket)
                return
            await self._update_attributes(ticket.request)
            self._answer(ticket, self.catalog.head)
        except OpfsError as error:
            if isinstance(error, CommitUnknown):
                self.failsafe.enter(str(error))
            self._answer(ticket, None, error)
        except Exception as error:
            log.exception("carrying out %s", ticket.request)
            self.failsafe.enter(f"a bug: {error!r}")
            self._answer(ticket, None, CommitUnknown(f"opfs has a bug: {error!r}", hint="see the daemon's log"))

    async def _with_reserve(self, ticket: Ticket, work: Work) -> Applied:
        """Do the work, and once more with the room of the reserve where a full disk stopped what may use it."""
        try:
            applied = await work()
            if not isinstance(applied.failure, ApplyNoSpace):
                return applied
        except NoSpace:
            if not (ticket.may_use_reserve and await self._give_way()):
                raise
        else:
            if not (ticket.may_use_reserve and await self._give_way()):
                return applied
            self.host.settle(applied)
            await self.host.release(applied.steps)
        return await work()

    async def _give_way(self) -> bool:
        return self._reserve is not None and await self._reserve.give_way()

    async def _update_attributes(self, request: Request) -> None:
        """Equal bytes make no block, but `cp -p` still sets the time."""
        for change in request.changes:
            if change.attributes is not None and self.catalog.get(change.id) is not None:
                await self.set_attributes(change.id, change.attributes)

    def _answer(self, ticket: Ticket, block: BlockName | None, error: OpfsError | None = None) -> None:
        self.host.settle(ticket.applied)
        self._in_flight.let_go(ticket)
        self.dependencies.end(ticket.ids)
        if error is not None:
            error.reason, error.hint = self.redact(error.reason), self.redact(error.hint)
            error.args = (error.reason,)
        ticket.block, ticket.error = block, error
        ticket.done.set()
        if any(step.checkpoint for step in ticket.applied.steps) and self._nursery is not None:
            self._nursery.start_soon(self.host.release, ticket.applied.steps)

    # --- one block ----------------------------------------------------------------------------------------

    async def _commit(self, batch: Sequence[Ticket]) -> None:
        """Make a batch durable, in a block or in the journal, and answer its writers."""
        outcomes = [outcome.told(self.redact) for ticket in batch for outcome in ticket.applied.outcomes]
        wants_block = any(ticket.request.wants_block for ticket in batch)
        proposal: Proposal | None = None
        extension: Extension | None = None
        try:
            if not wants_block and self.sealing.holds(self._chain, outcomes):
                with self._timings(ACKNOWLEDGE):
                    extension = await self._blocks.acknowledge(outcomes)
            elif outcomes or self.pending:
                with self._timings(COMMIT):
                    proposal = await self._blocks.seal(outcomes)
                extension = proposal.extension
        except (NoSpace, InvalidRequest) as error:
            spared = [ticket for ticket in batch if ticket.may_use_reserve] if isinstance(error, NoSpace) else []
            if spared and not await self._give_way():
                spared = []
            # in a task of its own: undoing may take long, and the next block need not wait for it
            if self._nursery is not None:
                self._nursery.start_soon(self._give_up, [t for t in batch if t not in spared], error)
            for ticket in spared:
                self._ready_in.send_nowait(ticket)
            return
        except CommitUnknown as unknown:
            for ticket in batch:
                self._answer(ticket, None, unknown)
            return
        if extension is not None:
            self._adopt(extension.contents, extension.entries)
        if proposal is not None:
            for tell in self.on_block:
                tell(proposal)
        for ticket in batch:
            self._answer(ticket, self.catalog.head, ticket.applied.failure)
        if self._reserve is not None:
            await self._reserve.restore()

    def _adopt(self, contents: Mapping[ElementId, bytes | None], entries: Mapping[ElementId, Entry | None]) -> None:
        """Something is durable: whoever goes by the documents hears of it."""
        for id, content in contents.items():
            self.dependencies.adopt(id, content)
            if content is not None:
                self.documents.keep(content)
        self.sealing.note(self._chain)
        for tell in self.on_change:
            tell(entries)

    async def _give_up(self, batch: Sequence[Ticket], error: OpfsError) -> None:
        """No block was made, and that is known: undo what the batch did to the host."""
        for ticket in batch:
            if ticket.applied.failure is not None:
                self._answer(ticket, None, ticket.applied.failure)
                continue
            remains = await self.host.undo(ticket.applied.steps)
            undone = f"NOT undone: {'; '.join(remains)}" if remains else "everything was undone"
            reason = f"{error.reason}; {undone}" if ticket.request.changes else error.reason
            self._answer(ticket, None, type(error)(reason, hint=error.hint))
