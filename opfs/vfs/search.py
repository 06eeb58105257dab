"""/search: queries as paths; an answer is made when its file or directory is opened, for whoever opens it.

`similar/<text>`, `text/<words>`, `hybrid/<text>` and `changes` are tables for people, with the suffix `.json` JSON
lines; `results/<text>/` is a directory of links (opfs.vfs.results). The grammar is opfs.core.query's; ranking and
permissions are the searcher's. A path that is a query resolves although no listing shows it.

A listing shows the verbs, what filters can be set to, of what the caller may see, and what the caller asked lately. It
shows filters two deep and in one order only, or a walk through the tree (`find`, `grep -r`) would never end. Names
are fleeting: a million queries leave nothing behind. Trio thread only.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from opfs.core.filters import FilterKind
from opfs.core.pathfilter import PathFilter, Word, check_count, parse_filter
from opfs.core.pathtext import NAME_LIMIT_BYTES
from opfs.core.query import JSON_SUFFIX, Query, Verb, parse_step, parse_text
from opfs.errors import InvalidRequest, OpfsError, ReadOnly
from opfs.vfs.generated import ContentHandle, ReadOnlyDirectory, is_writing
from opfs.vfs.hits import format_json_lines, format_table
from opfs.vfs.node import FLEETING, FOREVER, Attributes, CachePolicy, File
from opfs.vfs.recent import RecentQueries
from opfs.vfs.results import Listings, ResultsDirectory, ResultSearcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from opfs.ports import Hit
    from opfs.vfs.node import Caller, Handle, Node

VALUES_SHOWN = 50
"""Of each kind of filter; any other value resolves as well."""

FILTERS_SHOWN_DEEP = 2


class Searcher(ResultSearcher, Protocol):
    """Answers queries; every event committed before the call is covered."""

    async def search(self, query: Query, caller: Caller) -> Sequence[Hit]:
        """The events that the caller may read and the query asks for, best first."""
        ...

    async def values(self, kind: FilterKind, caller: Caller) -> Sequence[str]:
        """What a filter can be set to, of events that the caller may read, most frequent first."""
        ...


@dataclass(frozen=True, slots=True)
class _Services:
    searcher: Searcher
    recent: RecentQueries = field(default_factory=RecentQueries)
    listings: Listings = field(default_factory=Listings)


def make_search(searcher: Searcher, *, time_ns: int = 0) -> SearchDirectory:
    """The directory /search."""
    return SearchDirectory(("search",), _Services(searcher), time_ns=time_ns)


@dataclass(slots=True)
class SearchDirectory(ReadOnlyDirectory):
    """/search itself, and every filter below it: verbs and further filters."""

    services: _Services
    filters: tuple[PathFilter, ...] = field(default=(), kw_only=True)

    @property
    def cache(self) -> CachePolicy:
        return FLEETING if self.filters else FOREVER

    async def lookup(self, name: str, caller: Caller) -> Node:
        return self._node(name)

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        verbs = [*(verb.value for verb in Verb), Verb.CHANGES + JSON_SUFFIX]
        values = [each async for each in self._values(caller)]
        recent = [name for name in self.services.recent.names(caller.uid, self.key) if ":" in name]
        return [(name, self._node(name)) for name in dict.fromkeys((*verbs, *values, *recent))]

    def _node(self, name: str) -> Node:
        key = (*self.key, name)
        step = parse_step(name)
        if isinstance(step, PathFilter):
            filters = (*self.filters, step)
            check_count(filters)
            return SearchDirectory(key, self.services, filters=filters, time_ns=self.time_ns)
        if isinstance(step, Query):
            query = Query(step.verb, as_json=step.as_json, filters=self.filters)
            return QueryFile(key, query, self.services, time_ns=self.time_ns)
        return VerbDirectory(key, step, self.services, filters=self.filters, time_ns=self.time_ns)

    async def _values(self, caller: Caller) -> AsyncIterator[str]:
        """Names of further filters."""
        if len(self.filters) >= FILTERS_SHOWN_DEEP:
            return
        used = [kind for kind in FilterKind if any(each.word == kind.value for each in self.filters)]
        kinds = list(FilterKind)
        for kind in kinds[kinds.index(used[-1]) + 1 if used else 0 :]:
            try:
                values = await self.services.searcher.values(kind, caller)
            except OpfsError:
                continue  # a listing that lacks them still helps
            for name in list(self._names(kind, values))[:VALUES_SHOWN]:
                yield name

    def _names(self, kind: FilterKind, values: Sequence[str]) -> Iterator[str]:
        plugins = [each.value for each in self.filters if each.word is Word.PLUGIN]
        for value in values:
            if not value.isprintable():
                continue
            try:
                name = PathFilter(Word(kind), value).name
                found = parse_filter(name)
            except InvalidRequest:
                continue
            if kind is FilterKind.ELEMENT and plugins and found.element.plugin not in plugins:
                continue
            if len(found.name.encode()) <= NAME_LIMIT_BYTES:
                yield found.name


@dataclass(slots=True)
class VerbDirectory(ReadOnlyDirectory):
    """All queries of one verb: any name is one, unless it breaks the grammar."""

    verb: Verb
    services: _Services
    filters: tuple[PathFilter, ...] = field(default=(), kw_only=True)

    @property
    def cache(self) -> CachePolicy:
        return FLEETING if self.filters else FOREVER

    async def lookup(self, name: str, caller: Caller) -> Node:
        return self._node(name)

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        return [(name, self._node(name)) for name in self.services.recent.names(caller.uid, self.key)]

    def _node(self, name: str) -> Node:
        query = parse_text(self.verb, (name,), self.filters)
        key = (*self.key, name)
        if self.verb is Verb.RESULTS:
            services = self.services
            return ResultsDirectory(
                key, query, services.searcher, services.listings, services.recent, time_ns=self.time_ns
            )
        return QueryFile(key, query, self.services, time_ns=self.time_ns)


@dataclass(slots=True)
class QueryFile(File):
    """One query; everyone may ask it and gets what they may see."""

    query: Query
    services: _Services
    time_ns: int = field(default=0, kw_only=True)

    @property
    def cache(self) -> CachePolicy:
        return FLEETING

    async def attributes(self, caller: Caller) -> Attributes:
        return Attributes(
            mode=stat.S_IFREG | 0o444, atime_ns=self.time_ns, mtime_ns=self.time_ns, ctime_ns=self.time_ns
        )

    async def open(self, flags: int, caller: Caller) -> Handle:
        if is_writing(flags):
            raise ReadOnly("a query is only read")
        hits = await self.services.searcher.search(self.query, caller)
        self.services.recent.add(caller.uid, self.key)
        layout = format_json_lines if self.query.as_json else format_table
        content = layout(hits, is_ranked=self.query.verb is not Verb.CHANGES)
        return ContentHandle(content.encode(), direct_io=True)
