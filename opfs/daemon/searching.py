"""What stands behind /search: the index, once it has every event committed before the question.

Says what the filters of a path mean here and now: which block `at:yesterday` is, and so which events were known then.
A search for words, or for all changes, needs no model and waits only until events are indexed; one by meaning waits
until they are embedded. Trio thread; the index, the history and headers are read in worker threads.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import trio

from opfs.commit.precedents import Precedents
from opfs.commit.timings import SEARCH
from opfs.core.label import is_label
from opfs.core.moments import AtHeight, AtTime, parse_when
from opfs.core.pathfilter import MOMENTS, Word, event_filter, values_of
from opfs.core.query import Verb
from opfs.errors import InvalidRequest, NotFound
from opfs.fuse.caller import groups_of
from opfs.vfs.node import Caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.core.filters import EventFilter, FilterKind
    from opfs.core.names import BlockName
    from opfs.core.query import Query
    from opfs.daemon.parts import Parts
    from opfs.daemon.past import PastViews
    from opfs.ports import Hit, IndexedEvent

VALUES_READ = 500
"""Of one kind, to choose from for a listing."""

VALUES_KEPT = 64
"""Answers to that: of a few users, for each kind."""

DELETE = "delete"


class Searching:
    """Answers /search."""

    def __init__(self, parts: Parts, past: PastViews) -> None:
        self._parts = parts
        self._timeline = past.timeline
        self._labels = past.labels
        self._values: dict[tuple[FilterKind, int, frozenset[int]], tuple[tuple[str, int], Sequence[str]]] = {}

    def reader(self, caller: Caller) -> tuple[int, frozenset[int]]:
        """Root reads everything, whatever groups a process of his has."""
        return (0, frozenset()) if caller.uid == 0 else (caller.uid, groups_of(caller))

    async def search(self, query: Query, caller: Caller) -> Sequence[Hit]:
        """The hits, best first; raises InvalidRequest or NotFound for moments and words that mean nothing here."""
        uid, gids = self.reader(caller)
        where = await self._where(query)
        if query.verb in (Verb.TEXT, Verb.CHANGES):
            await self._parts.deriver.wait_current()
        else:
            await self._parts.meaning.wait_current()
        index, limit = self._parts.searches, query.limit

        def ask() -> Sequence[Hit]:
            with self._parts.placement.placed(), self._parts.timings(SEARCH):
                match query.verb:
                    case Verb.SIMILAR:
                        return index.similar(query.text, limit=limit, uid=uid, gids=gids, where=where)
                    case Verb.TEXT:
                        return index.matching(query.text, limit=limit, uid=uid, gids=gids, where=where)
                    case Verb.HYBRID | Verb.RESULTS:
                        return index.fused(query.text, limit=limit, uid=uid, gids=gids, where=where)
                    case Verb.CHANGES:
                        return index.changes(limit=limit, uid=uid, gids=gids, where=where)

        return await trio.to_thread.run_sync(ask)

    async def documents(self, hits: Sequence[Hit]) -> Sequence[BlockName | None]:
        """The block that has the document as each hit left it; for a delete the block before, None where none has."""
        if hits:
            await self._parts.historian.wait_current()
        return await trio.to_thread.run_sync(lambda: [self._document(hit.event) for hit in hits])

    async def values(self, kind: FilterKind, caller: Caller) -> Sequence[str]:
        """What a filter can be set to; kept while nothing happens, since a walk asks in every directory."""
        uid, gids = self.reader(caller)
        await self._parts.deriver.wait_current()
        index = self._parts.index
        state, key = (index.identity, index.indexed_count), (kind, uid, gids)
        if (kept := self._values.get(key)) is not None and kept[0] == state:
            return kept[1]
        found = await trio.to_thread.run_sync(lambda: index.values(kind, limit=VALUES_READ, uid=uid, gids=gids))
        if len(self._values) >= VALUES_KEPT:
            self._values.clear()
        self._values[key] = state, found
        return found

    # --- moments -----------------------------------------------------------------------------------------

    async def _where(self, query: Query) -> EventFilter:
        filters = query.filters
        if not any(each.word in MOMENTS for each in filters):
            return event_filter(filters)
        since = [await self._time_ns(value, ends_second=False) for value in values_of(filters, Word.SINCE)]
        until = [await self._time_ns(value, ends_second=True) + 1 for value in values_of(filters, Word.UNTIL)]
        known = [await self._events_end(value) for value in values_of(filters, Word.AT)]
        return event_filter(
            filters,
            since_ns=max(since, default=None),
            until_ns=min(until, default=None),
            before_seq=min(known, default=None),
        )

    async def _time_ns(self, said: str, *, ends_second: bool) -> int:
        """The time that is said, or that of the block that is said."""
        if (block := await self._labelled(said)) is None:
            when = parse_when(said, self._parts.clock.now_ns(), ends_second=ends_second)
            if isinstance(when, AtTime):
                return when.time_ns
            block = await trio.to_thread.run_sync(self._timeline.block_of, when)
        return await trio.to_thread.run_sync(self._timeline.time_ns, block)

    async def _events_end(self, said: str) -> int:
        """How many events there were at that moment; none before the first block."""
        block = await self._labelled(said)
        if block is None:
            block = await trio.to_thread.run_sync(self._timeline.find, said)
        return await trio.to_thread.run_sync(self._timeline.events_end, block)

    async def _labelled(self, said: str) -> BlockName | None:
        """The block of that label; None for what means a block or a time by itself. Raises NotFound."""
        if not is_label(said):
            return None
        labels = await self._labels.current()
        if said not in labels:
            near = difflib.get_close_matches(said, [*labels, "yesterday", "now"], n=1)
            hint = f"did you mean {near[0]}?" if near else "ls /at lists the labels"
            raise InvalidRequest(f"{said!r} is neither a label nor a time", hint=hint)
        return labels[said]

    # --- in a worker thread ------------------------------------------------------------------------------

    def _document(self, event: IndexedEvent) -> BlockName | None:
        is_deleted = event.op == DELETE
        version = self._parts.history.version_at(event.id, event.seq + (not is_deleted))
        if version is None or version.content is None:
            return None
        try:
            block = self._timeline.block_of(AtHeight(event.height - is_deleted))
        except NotFound:
            return None  # the index is ahead of this chain: it is being made again
        # of several versions that came into one block it has the last
        last = self._parts.history.version_at(event.id, self._timeline.events_end(block))
        return block if last is not None and last.seq == version.seq else None


def make_precedents(parts: Parts) -> Precedents:
    """What looks for changes that resemble refused ones, told of every refusal from now on."""

    async def wait_indexed() -> None:
        await parts.historian.wait_current()
        await parts.deriver.wait_current()
        await parts.meaning.wait_current()

    precedents = Precedents(
        parts.index,
        parts.history,
        parts.sequencer,
        parts.refusals,
        parts.chain.last_event,
        lambda uid, gid, pid: groups_of(Caller(uid=uid, gid=gid, pid=pid)),
        wait_indexed,
    )
    parts.refusals.on_refused = precedents.consider
    return precedents
