"""Erasure: the content of one version is destroyed wherever the pool has it; that it was, and by whom, is an event.

The order: a mark, the event, then the destruction, then the mark goes. The event is in the chain before anything is
destroyed, and every step can be done again, so a start that finds the mark does all erasures of the chain again.
Hashes stay: headers, events, state trees, and so every proof, are as they were.

Destroyed are all copies of the same bytes: of the version, and of every other version that had them. What events say
of them in plans and messages stays, because hashes hang on it. Trio thread; the pool is changed in one worker thread
of low priority, while nothing is pruned.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from opfs.commit.chain import Outcome
from opfs.commit.change import Change, Request
from opfs.commit.derive import low_priority
from opfs.commit.step import Applied
from opfs.core.erasure import ERASE, OP, erase_plan, erased_content
from opfs.core.names import DOCUMENT_SUFFIX, ElementId
from opfs.errors import Busy, Erased, NotFound, OpfsError, PoolError, Rejected
from opfs.ports import Erasure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opfs.commit.journal import Journal
    from opfs.commit.sequencer import Sequencer
    from opfs.core.actor import Actor
    from opfs.core.event import Event
    from opfs.core.names import BlockName
    from opfs.ports import History

    Key = tuple[str, ...]

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)

_EVENTS_AT_ONCE = 5000
_QUIET_LOOKS, _QUIET_LOOK_S = 500, 0.02
_MAX_ERASURES = 1_000_000


class Historian(Protocol):
    """Keeps what is derived from the chain up with it."""

    async def wait_current(self) -> None: ...


class SearchIndex(Protocol):
    """What can be made again without the words of what is gone."""

    def rebuild(self) -> None: ...

    async def wait_settled(self) -> None:
        """Return when it was made, and nothing is left of what it was."""
        ...

    async def forget_spares(self) -> None:
        """Remove what is left of it, though it is not made again."""
        ...


class ErasableStore(Protocol):
    """Blocks whose documents can be destroyed; the methods block."""

    def erase(self, erasure: Erasure, names: Sequence[BlockName]) -> None: ...

    def erased_in(self, name: BlockName, id: ElementId) -> BlockName | None: ...


class Remains(Protocol):
    """The rest of the pool, outside blocks, archive and index; the methods block and raise OpfsError."""

    def mark(self) -> None:
        """Remember durably that an erasure is under way."""
        ...

    def is_marked(self) -> bool: ...

    def unmark(self) -> None: ...

    def remove_copies(self, content: bytes) -> None:
        """Remove every file outside the blocks whose BLAKE3 this is."""
        ...

    def trim(self) -> str:
        """Overwrite or give back what was freed; returns in words why that was not possible, if it was not."""
        ...


@dataclass(slots=True)
class _Found:
    """Who had a content: the versions, the heights of the blocks that held it, and the elements that have it now."""

    versions: list[tuple[ElementId, int]] = field(default_factory=list)
    places: set[tuple[ElementId, int]] = field(default_factory=set)
    current: list[ElementId] = field(default_factory=list)


class Eraser:
    """Erases versions; `alone` keeps the archive to one writer. `run` must be running, it does the work."""

    def __init__(
        self,
        store: ErasableStore,
        sequencer: Sequencer,
        history: History,
        historian: Historian,
        index: SearchIndex,
        journal: Journal,
        remains: Remains,
        block_at: Callable[[int], BlockName],
        events_of: Callable[[int], Sequence[Event]],
        alone: trio.Lock,
    ) -> None:
        self._store = store
        self._sequencer = sequencer
        self._history = history
        self._historian = historian
        self._index = index
        self._journal = journal
        self._remains = remains
        self._block_at = block_at
        self._events_of = events_of
        self._alone = alone
        self._asking = trio.Lock()
        self._started = trio.Event()
        self._thread = trio.CapacityLimiter(1)
        self._jobs_in, self._jobs_out = trio.open_memory_channel[_Job](16)
        self.on_erased: list[Callable[[Sequence[Key]], None]] = []
        """Called with the paths of the mount whose bytes are gone."""

    async def erase(self, id: ElementId, height: int, actor: Actor, message: str = "") -> str:
        """Destroy what the block of that height made of an element, and every other copy of it.

        Returns in words what is left to do by others, if anything. Raises NotFound, Erased, Rejected where it is
        current, and what the commit raises; once the event is there the destruction goes on whoever waits.
        """
        self._sequencer.failsafe.require_writable()
        if self._asking.locked():
            raise Busy("something is being erased already", hint="wait until that is done")
        async with self._asking:
            await self._started.wait()  # what a crash interrupted comes first, and looks for the same mark
            await self._historian.wait_current()
            content = await trio.to_thread.run_sync(self._content_of, id, height)
            found = await trio.to_thread.run_sync(self._find, content)
            self._require_past(content, found)
            await trio.to_thread.run_sync(self._remains.mark)
            # After this line: the mark says that something may be half erased; a crash here leaves it, and nothing is;
            # repaired by the next start, which finds nothing to go on with and removes it.
            block = await self._record(content, found, actor, message)
            # After this line: the chain says that the content is erased, and it is still there; a crash here leaves
            # some of it; repaired by the next start, which finds the mark and erases what the chain says.
            job = _Job([Erasure(content, block)])
            await self._jobs_in.send(job)
            await job.done.wait()
        if job.error is not None:
            raise job.error
        return job.left

    async def run(self) -> None:
        """Go on with what a crash interrupted, then erase what is asked for, until cancelled."""
        if await trio.to_thread.run_sync(self._remains.is_marked):
            await self._work(_Job(None))
        self._started.set()
        async for job in self._jobs_out:
            await self._work(job)

    # --- asking ----------------------------------------------------------------------------------------

    def _content_of(self, id: ElementId, height: int) -> bytes:
        versions = [version for version in self._history.versions(id) if version.height == height]
        if not versions or versions[-1].content is None:
            raise NotFound(f"block {height} made no version of {id}", hint=f"ls history/{id} lists them")
        block = self._store.erased_in(self._block_at(height), id)
        if block is not None:
            raise Erased(f"{id} of block {height} was erased in block {block} already")
        return bytes.fromhex(versions[-1].content)

    def _find(self, content: bytes) -> _Found:
        """Every block that held the content, from the history of all elements."""
        wanted, found = content.hex(), _Found()
        holding: dict[ElementId, int] = {}
        first = 0
        while batch := self._history.events(first_seq=first, limit=_EVENTS_AT_ONCE):
            for event in batch:
                if event.content == wanted and event.id not in holding:
                    holding[event.id] = event.height
                    found.versions.append((event.id, event.height))
                elif event.content != wanted and event.id in holding:
                    start = holding.pop(event.id)
                    found.places.update((event.id, height) for height in range(start, event.height))
            first = batch[-1].seq + 1
        found.current = sorted(holding)
        return found

    def _require_past(self, content: bytes, found: _Found) -> None:
        catalog = self._sequencer.catalog
        current = set(found.current)
        for plugin in catalog.plugins():
            for element in catalog.elements(plugin):
                entry = catalog.get(ElementId(plugin, element))
                if entry is not None and entry.content_hash == content:
                    current.add(entry.id)
        if current:
            names = ", ".join(map(str, sorted(current)[:5]))
            raise Rejected(
                f"these very bytes are the current document of {names}", hint="delete it or write it anew first"
            )

    async def _record(self, content: bytes, found: _Found, actor: Actor, message: str) -> BlockName:
        plan = erase_plan(content, found.versions)
        outcome = Outcome(ERASE, OP, None, None, actor.to_json(), message=message, plan=plan, changes_document=False)
        return await self._sequencer.record(Request((Change(ERASE, None),), actor, message), Applied((outcome,)))

    # --- destroying ------------------------------------------------------------------------------------

    async def _work(self, job: _Job) -> None:
        try:
            await self._historian.wait_current()
            if job.erasures is None:
                job.erasures = await trio.to_thread.run_sync(self._all_erasures)
            for erasure in job.erasures:
                await self._destroy(erasure)
            job.left = await self._clean()
        except (OpfsError, OSError) as error:
            log.error("an erasure is not finished, and goes on at the next start: %s", error)
            job.error = error if isinstance(error, OpfsError) else PoolError(f"the pool fails: {error.strerror}")
        finally:
            job.done.set()

    def _all_erasures(self) -> list[Erasure]:
        erasures = []
        for record in self._history.events(ERASE, limit=_MAX_ERASURES):
            events = [event for event in self._events_of(record.height) if event.seq == record.seq]
            contents = [content for event in events if (content := erased_content(event)) is not None]
            erasures += [Erasure(content, self._block_at(record.height)) for content in contents]
        return erasures

    async def _destroy(self, erasure: Erasure) -> None:
        found = await trio.to_thread.run_sync(self._find, erasure.content)
        # what was written again after the erasure is another version, and stays
        places = sorted(place for place in found.places if place[1] < erasure.block.height)
        names = [self._block_at(height) for height in sorted({height for _, height in places})]
        async with self._alone:
            await self._in_thread(self._store.erase, erasure, names)
        await self._in_thread(self._remains.remove_copies, erasure.content)
        keys: list[Key] = [("chain", str(self._block_at(height)), "state", *_file(id)) for id, height in places]
        keys += [("history", id.plugin, id.element, f"{height}{DOCUMENT_SUFFIX}") for id, height in found.versions]
        for tell in self.on_erased:
            tell(keys)

    async def _clean(self) -> str:
        """Make the index without the words of what is gone, empty the journal, trim, and take the mark away."""
        self._index.rebuild()
        try:
            await self._index.wait_settled()
        except OpfsError as error:
            log.warning("the search index was emptied, and is not made again: %s", error)
            await self._index.forget_spares()
        await self._empty_journal()
        left = await self._in_thread(self._remains.trim)
        await trio.to_thread.run_sync(self._remains.unmark)
        return left

    async def _empty_journal(self) -> None:
        """Between two changes there is a moment in which none is under way; a start empties it as well."""
        for _ in range(_QUIET_LOOKS):
            await self._sequencer.seal()
            if await self._journal.forget_settled():
                return
            await trio.sleep(_QUIET_LOOK_S)
        raise Busy("changes are under way all the time, so the journal keeps what they wrote", hint="restart opfs")

    async def _in_thread(self, work: Callable[..., _Result], *arguments: object) -> _Result:
        return await trio.to_thread.run_sync(low_priority()(work), *arguments, limiter=self._thread)


def _file(id: ElementId) -> tuple[str, str]:
    return id.plugin, f"{id.element}{DOCUMENT_SUFFIX}"


@dataclass(slots=True, eq=False)
class _Job:
    """Erasures to carry out, all of the chain if None."""

    erasures: list[Erasure] | None
    done: trio.Event = field(default_factory=trio.Event)
    error: OpfsError | None = None
    left: str = ""
