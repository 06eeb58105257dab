"""Answers of searches, each for one question, one reader and one state of what is searched.

An answer is found again only while it would come out the same: the key has the question, the filter, who asks with
which groups, the identity of the index (its beginning, its model), and the newest event that can have a part in it. For
a search by meaning, or of changes, below `plugin:` that is the newest event of these plugins, so that the answer
outlives what happens elsewhere; with `at:` it is the moment itself. Full text ranks by the words of all events, so
there it is the newest event of all.

Knows no paths and no permissions: the index decides what a reader sees, and its answers are kept by reader.

Concurrency: `follow` on one thread, searches on any.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from opfs.core.filters import EVERYTHING
from opfs.core.names import ElementId
from opfs.ports import Hit, IndexedEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from opfs.cache.layer import Layer
    from opfs.core.event import Event
    from opfs.core.filters import EventFilter
    from opfs.ports import Index

_SHAPE = [field.name for kind in (Hit, IndexedEvent) for field in fields(kind)]


class CachedSearches:
    """The searches of `index`, answered from `layer` where they can be.

    `count` and `newest` are the number of events and the hash of the newest block at the start; `follow` tells of
    later events. `version` names the program, which decides how an answer is written down.
    """

    def __init__(self, index: Index, layer: Layer, version: str, count: int, newest: str) -> None:
        self._index = index
        self._layer = layer
        self._version = version
        self._start = self._newest = newest
        self._count = count
        self._newest_of: dict[str, str] = {}
        """The hash of the newest event of each plugin that had one since the start."""

    def follow(self, events: Iterable[Event]) -> None:
        """Take notice of the events of a new block, before anybody can index them."""
        for event in events:
            # The count first: who sees the new state then sees as well that the index is not there yet.
            self._count = event.seq + 1
            self._newest_of[event.id.plugin] = self._newest = event.hash

    def similar(
        self, text: str, *, limit: int, uid: int, gids: Collection[int], where: EventFilter = EVERYTHING
    ) -> Sequence[Hit]:
        """As `opfs.ports.Index.similar`."""
        return self._ask(
            ("similar", self._state(where), text, limit, uid, gids, where),
            lambda: self._index.similar(text, limit=limit, uid=uid, gids=gids, where=where),
            is_current=self._index.embedded_count >= self._count,
        )

    def matching(
        self, words: str, *, limit: int, uid: int, gids: Collection[int], where: EventFilter = EVERYTHING
    ) -> Sequence[Hit]:
        """As `opfs.ports.Index.matching`."""
        return self._ask(
            ("matching", (self._newest,), words, limit, uid, gids, where),
            lambda: self._index.matching(words, limit=limit, uid=uid, gids=gids, where=where),
            is_current=self._index.indexed_count >= self._count,
        )

    def fused(
        self, text: str, *, limit: int, uid: int, gids: Collection[int], where: EventFilter = EVERYTHING
    ) -> Sequence[Hit]:
        """As `opfs.ports.Index.fused`."""
        return self._ask(
            ("fused", (self._newest,), text, limit, uid, gids, where),
            lambda: self._index.fused(text, limit=limit, uid=uid, gids=gids, where=where),
            is_current=self._index.embedded_count >= self._count,
        )

    def changes(self, *, limit: int, uid: int, gids: Collection[int], where: EventFilter = EVERYTHING) -> Sequence[Hit]:
        """As `opfs.ports.Index.changes`."""
        return self._ask(
            ("changes", self._state(where), "", limit, uid, gids, where),
            lambda: self._index.changes(limit=limit, uid=uid, gids=gids, where=where),
            is_current=self._index.indexed_count >= self._count,
        )

    def _state(self, where: EventFilter) -> tuple[str, ...]:
        """The newest event that can have a part in an answer that ranks each event by itself."""
        if where.before_seq is not None and where.before_seq <= self._count:
            return ("at", self._start)
        plugins = where.plugins or {id.plugin for id in where.elements}
        if plugins:
            return tuple(self._newest_of.get(plugin, self._start) for plugin in sorted(plugins))
        return (self._newest,)

    def _ask(
        self,
        question: tuple[str, tuple[str, ...], str, int, int, Collection[int], EventFilter],
        search: Callable[[], Sequence[Hit]],
        *,
        is_current: bool,
    ) -> Sequence[Hit]:
        # The state was taken before the index was looked at. So an answer may know more than its key says, and then
        # nobody asks with that key again; it never knows less.
        if not is_current:
            return search()
        identity = self._index.identity
        fresh: list[Sequence[Hit]] = []

        def compute() -> bytes:
            fresh.append(search())
            return _encode(fresh[0])

        verb, state, text, limit, uid, gids, where = question
        key = _key(self._version, identity, verb, state, text, limit, uid, sorted(gids), _plain(where))
        payload = self._layer.remember(key, compute, accept=lambda payload: _decode(payload) is not None)
        return fresh[0] if fresh else (_decode(payload) or ())


def _key(*parts: object) -> bytes:
    return hashlib.sha256(json.dumps((_SHAPE, parts)).encode()).digest()


def _plain(where: EventFilter) -> list[object]:
    """Every part of the filter, in an order."""
    return [
        sorted(map(str, part)) if isinstance(part, frozenset) else part
        for part in (getattr(where, field.name) for field in fields(where))
    ]


def _encode(hits: Sequence[Hit]) -> bytes:
    return json.dumps([asdict(hit) for hit in hits], separators=(",", ":")).encode()


def _decode(payload: bytes) -> Sequence[Hit] | None:
    """None where it is no answer of this program."""
    try:
        said = json.loads(payload)
        return [_hit(**hit) for hit in said] if isinstance(said, list) else None
    except (ValueError, TypeError, KeyError):
        return None


def _hit(*, event: dict[str, Any], **rest: Any) -> Hit:
    return Hit(event=IndexedEvent(**{**event, "id": ElementId(**event["id"])}), **rest)
