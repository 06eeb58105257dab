"""The one writer of the chain: takes requests, makes blocks, answers writers.

Life of a write (architecture.md): `submit` validates; a task of its own carries the request out on the host
(opfs.commit.host); the sequencer puts everything that is ready into one block, and whoever arrives
while that block is made goes into the next. A writer is answered when its block is durable.

Concurrency: everything here runs on the trio thread; the store is called in one worker thread at a time.
Work goes on in the sequencer's own nursery, so a writer that is interrupted or gone changes nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from opfs.commit.content import ContentCache
from opfs.commit.host import Applied, Host
from opfs.core.canonical import hash_bytes
from opfs.core.document import parse_document
from opfs.core.position import locate
from opfs.core.schema import DocumentSchema
from opfs.errors import (
    ApplyTimeout,
    Busy,
    CommitUnknown,
    IntegrityError,
    InvalidRequest,
    NoSpace,
    NotFound,
    OpfsError,
    ReadOnly,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from opfs.commit.catalog import Catalog
    from opfs.commit.chain import Chain, Proposal
    from opfs.commit.change import Change, Request
    from opfs.commit.confirmations import Confirmations
    from opfs.commit.failsafe import FailSafe
    from opfs.commit.journal import Journal
    from opfs.commit.logbook import Logbook
    from opfs.core.action import Document
    from opfs.core.names import BlockName, ElementId
    from opfs.ports import Clock, FileAttributes, Plugin, SnapshotStore

log = logging.getLogger(__name__)

MAX_REQUESTS_PER_BLOCK = 256
REPLY_TIMEOUT_S = 240.0
# A small document takes 10 µs; a hostile one of a mebibyte can take half a second.
VALIDATE_INLINE_BYTES = 16 << 10


@dataclass(slots=True, eq=False)
class _Ticket:
    """A request on its way; `done` is set once `block` or `error` is."""

    request: Request
    desired: Sequence[Document | None]
    depends_on: Sequence[trio.Event] = ()
    applied: Applied = field(default_factory=Applied)
    block: BlockName | None = None
    error: OpfsError | None = None
    done: trio.Event = field(default_factory=trio.Event)


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
        reply_timeout_s: float = REPLY_TIMEOUT_S,
    ) -> None:
        self.plugins = plugins
        self.confirmations = confirmations
        self.failsafe = failsafe
        self.host = Host(plugins, chain, journal, confirmations)
        self.on_block: list[Callable[[Proposal], None]] = []
        """Called after each commit point, on the trio thread; they must neither block nor raise."""
        self._chain = chain
        self._store = store
        self._logbook = logbook
        self._clock = clock
        self._reply_timeout_s = reply_timeout_s
        self._schemas: dict[str, DocumentSchema] = {}
        self._contents = ContentCache()
        self._in_flight: dict[ElementId, trio.Event] = {}
        self._layer = trio.Lock()
        self._thread = trio.CapacityLimiter(1)
        self._ready_in, self._ready_out = trio.open_memory_channel[_Ticket](10_000)
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
        """Events committed so far; the next one's seq."""
        return self._chain.next_seq

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
        """The committed bytes of a document, checked against their hash.

        Raises NotFound, or IntegrityError if the stored bytes are not those that were committed.
        """
        entry = self.catalog.get(id)
        if entry is None:
            raise NotFound(f"{id} does not exist")
        content = self._contents.get(entry.content_hash)
        if content is None:
            content = await trio.to_thread.run_sync(self._store.read_document, self.catalog.head, id)
            if not entry.holds(content):
                raise IntegrityError(f"the stored bytes of {id} are not those of block {entry.height}")
            self._contents.put(entry.content_hash, content)
        return content

    async def committed_document(self, id: ElementId) -> Document | None:
        """The committed document, parsed; None where there is none."""
        if self.catalog.get(id) is None:
            return None
        return parse_document(await self.read_document(id))

    def is_busy(self, id: ElementId) -> bool:
        """Whether a change of the element is under way."""
        return id in self._in_flight

    # --- for writers -------------------------------------------------------------------------------------

    def validate(self, change: Change) -> Document | None:
        """The parsed document, None for a delete; raises InvalidRequest, NotFound or Rejected."""
        plugin = self.host.plugin(change.id)
        if change.content is None:
            return None
        document = parse_document(change.content)
        schema = self._schemas.get(plugin.name)
        if schema is None:
            schema = self._schemas[plugin.name] = DocumentSchema(plugin.schema)
        schema.check(document, change.content)
        try:
            plugin.check(change.id.element, document)
        except InvalidRequest as error:
            if error.location is not None:
                error.location = locate(change.content, error.location.pointer)
            raise
        except OpfsError:
            raise
        except Exception as error:
            log.exception("the plugin %s has a bug", plugin.name)
            raise InvalidRequest(f"the plugin {plugin.name} has a bug in its check: {error!r}") from error
        return document

    async def _validated(self, change: Change) -> Document | None:
        """`validate`, in a worker thread for a document that may take long."""
        if change.content is None or len(change.content) <= VALIDATE_INLINE_BYTES:
            return self.validate(change)
        return await trio.to_thread.run_sync(self.validate, change)

    async def submit(self, request: Request) -> BlockName:
        """Apply and commit a request; returns the block that holds it, or HEAD if nothing had to change.

        Raises InvalidRequest or Rejected (nothing was done), Busy, Stale, ApplyFailed (tried; what was undone
        is in the reason, and the failure is a block), ApplyTimeout, NoSpace, CommitUnknown, ReadOnly.
        """
        self.failsafe.require_writable()
        if self._draining:
            raise ReadOnly("opfs is shutting down", hint="write again when it is back")
        if len({change.id for change in request.changes}) < len(request.changes):
            raise InvalidRequest("a request changes each element once")
        desired = [await self._validated(change) for change in request.changes]
        # no await from here until the elements are in flight: of two writers one is busy
        for change in request.changes:
            if change.id in self._in_flight:
                raise Busy(f"another writer is committing {change.id}", hint="write again when it is done")
        ticket = _Ticket(request, desired, self._wait_for(request, desired))
        for change in request.changes:
            self._in_flight[change.id] = ticket.done
        self._start(self._work, ticket)
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

    async def record(self, request: Request, applied: Applied) -> BlockName:
        """Commit outcomes that are already true on the host: how recovery makes its events."""
        ticket = _Ticket(request, (), applied=applied)
        for change in request.changes:
            self._in_flight[change.id] = ticket.done
        self._ready_in.send_nowait(ticket)
        await ticket.done.wait()
        if ticket.block is None:
            raise ticket.error or CommitUnknown("recovery could not commit")
        return ticket.block

    async def drain(self) -> None:
        """Accept no more requests and wait until every one under way is answered."""
        self._draining = True
        while self._in_flight:
            await next(iter(self._in_flight.values())).wait()

    async def set_attributes(self, id: ElementId, attributes: FileAttributes) -> None:
        """Change owner, mode or time of a committed document; the next block carries them."""
        self.failsafe.require_writable()
        async with self._layer:
            entry = self.catalog.get(id)
            if entry is None:
                raise NotFound(f"{id} does not exist")
            if entry.attributes == attributes:
                return
            await trio.to_thread.run_sync(self._store.set_attributes, id, attributes, limiter=self._thread)
            # After this line: the layer's file differs from HEAD's in its attributes only; a crash here may
            # lose them; nobody repairs that, because attributes are not part of what a block commits to.
            self.catalog.update(self.catalog.head, {id: entry.with_attributes(attributes)})

    def _start(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        if self._nursery is None:
            raise RuntimeError("the sequencer is not running")
        self._nursery.start_soon(work, *arguments)

    # --- one request --------------------------------------------------------------------------------------

    def _wait_for(self, request: Request, desired: Sequence[Document | None]) -> list[trio.Event]:
        """The requests already under way that this one's elements depend on."""
        needed = []
        for change, document in zip(request.changes, desired, strict=True):
            if document is not None:
                for dependency in self.plugins[change.id.plugin].depends_on(change.id.element, document):
                    if dependency in self._in_flight:
                        needed.append(self._in_flight[dependency])
        return needed

    async def _work(self, ticket: _Ticket) -> None:
        try:
            for earlier in ticket.depends_on:
                await earlier.wait()
            # only a delete needs to know what the document was: to find the element, and to ask if it is protected
            committed = [
                await self.committed_document(change.id) if change.content is None else None
                for change in ticket.request.changes
            ]
            ticket.applied = await self.host.carry_out(ticket.request, ticket.desired, committed)
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

    async def _update_attributes(self, request: Request) -> None:
        """Equal bytes make no block, but `cp -p` still sets the time."""
        for change in request.changes:
            if change.attributes is not None and self.catalog.get(change.id) is not None:
                await self.set_attributes(change.id, change.attributes)

    def _answer(self, ticket: _Ticket, block: BlockName | None, error: OpfsError | None = None) -> None:
        self.host.settle(ticket.applied)
        for change in ticket.request.changes:
            self._in_flight.pop(change.id, None)
        ticket.block, ticket.error = block, error
        ticket.done.set()
        if any(step.checkpoint for step in ticket.applied.steps):
            self._start(self.host.release, ticket.applied.steps)

    # --- one block ----------------------------------------------------------------------------------------

    async def _commit(self, batch: Sequence[_Ticket]) -> None:
        """Make one block of a batch and answer its writers."""
        outcomes = [outcome for ticket in batch for outcome in ticket.applied.outcomes]
        async with self._layer:
            try:
                self.failsafe.require_writable()
                proposal = self._chain.propose(outcomes, self._clock.now_ns())
                await trio.to_thread.run_sync(self._write, proposal, limiter=self._thread)
            except (NoSpace, InvalidRequest) as error:
                # in a task of its own: undoing may take long, and the next block need not wait for it
                self._start(self._give_up, batch, error)
                return
            except Exception as error:
                log.exception("writing a block")
                self.failsafe.enter(f"a block may or may not be durable: {error}")
                unknown = CommitUnknown(f"the commit failed: {error}", hint="restart opfs to recover")
                for ticket in batch:
                    self._answer(ticket, None, unknown)
                return
            # After this line: the block is durable and nobody was told; a crash here leaves a block more than
            # was acknowledged; that is allowed, and the next start makes it HEAD.
            self._chain.adopt(proposal)
        for outcome in outcomes:
            if outcome.changes_document and outcome.content is not None:
                self._contents.put(hash_bytes(outcome.content), outcome.content)
        for tell in self.on_block:
            tell(proposal)
        for ticket in batch:
            self._answer(ticket, proposal.name, ticket.applied.failure)

    def _write(self, proposal: Proposal) -> None:
        """In the worker thread: write the layer, take the snapshot, log it; or leave the layer as HEAD has it."""
        self._chain.tips.flush()
        try:
            self._store.write_block(
                proposal.name,
                proposal.writes,
                proposal.header_bytes,
                proposal.events_bytes,
                lambda: self._logbook.foresee(proposal),
            )
        except NoSpace:
            ids = [write.id for write in proposal.writes]
            self._store.restore_layer(self._chain.catalog.head, ids)
            raise
        # After this line: a durable block that is not in the log; a crash here leaves the log behind the chain;
        # repaired by `Logbook.start`, which appends what is missing.
        self._logbook.record(self._chain.blocks, proposal)

    async def _give_up(self, batch: Sequence[_Ticket], error: OpfsError) -> None:
        """No block was made, and that is known: undo what the batch did to the host."""
        for ticket in batch:
            if ticket.applied.failure is not None:
                self._answer(ticket, None, ticket.applied.failure)
                continue
            remains = await self.host.undo(ticket.applied.steps)
            undone = f"NOT undone: {'; '.join(remains)}" if remains else "everything was undone"
            self._answer(ticket, None, type(error)(f"{error.reason}; {undone}", hint=error.hint))
