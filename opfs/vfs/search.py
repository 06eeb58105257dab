"""/search: queries as paths; the answer is made when the file is opened, for whoever opens it.

`similar/<text>` is a table for people, `similar/<text>.json` one JSON object a line. The grammar of paths is
opfs.core.query's; ranking and permissions are the searcher's. A path that is a query resolves although no
listing shows it; a listing shows what the caller asked for lately. Trio thread only.
"""

from __future__ import annotations

import json
import stat
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from opfs.core.printable import printable, width_of
from opfs.core.query import Verb, parse_query
from opfs.errors import ReadOnly
from opfs.vfs.generated import ContentHandle, FixedDirectory, ReadOnlyDirectory, is_writing
from opfs.vfs.node import Attributes, File

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opfs.core.query import Query
    from opfs.ports import Hit
    from opfs.vfs.node import Caller, Handle, Node

RECENT_PER_USER = 20
RECENT_USERS = 1000


class Searcher(Protocol):
    """Answers queries; every event committed before the call is covered."""

    async def similar(self, text: str, caller: Caller) -> Sequence[Hit]:
        """The events nearest in meaning that the caller may read, best first."""
        ...


class RecentQueries:
    """The last query paths of each user, newest first; only their user sees them."""

    def __init__(self) -> None:
        self._names: OrderedDict[tuple[int, Verb], OrderedDict[str, None]] = OrderedDict()

    def add(self, uid: int, verb: Verb, name: str) -> None:
        names = self._names.setdefault((uid, verb), OrderedDict())
        self._names.move_to_end((uid, verb))
        names[name] = None
        names.move_to_end(name, last=False)
        if len(names) > RECENT_PER_USER:
            names.popitem()
        if len(self._names) > RECENT_USERS:
            self._names.popitem(last=False)

    def names(self, uid: int, verb: Verb) -> Iterable[str]:
        return list(self._names.get((uid, verb), ()))


def make_search(searcher: Searcher, *, time_ns: int = 0) -> FixedDirectory:
    """The directory /search with a directory for every verb."""
    key = ("search",)
    recent = RecentQueries()
    verbs: dict[str, Node] = {
        verb.value: VerbDirectory((*key, verb.value), verb, searcher, recent, time_ns=time_ns) for verb in Verb
    }
    return FixedDirectory(key, verbs, time_ns=time_ns)


@dataclass(slots=True)
class VerbDirectory(ReadOnlyDirectory):
    """All queries of one verb: any name is one, unless it breaks the grammar."""

    verb: Verb
    searcher: Searcher
    recent: RecentQueries

    async def lookup(self, name: str, caller: Caller) -> Node:
        query = parse_query((self.verb.value, name))
        return QueryFile((*self.key, name), query, self.searcher, self.recent, time_ns=self.time_ns)

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        return [(name, await self.lookup(name, caller)) for name in self.recent.names(caller.uid, self.verb)]


@dataclass(slots=True)
class QueryFile(File):
    """One query; everyone may ask it and gets what they may see."""

    query: Query
    searcher: Searcher
    recent: RecentQueries
    time_ns: int = field(default=0, kw_only=True)

    async def attributes(self, caller: Caller) -> Attributes:
        return Attributes(
            mode=stat.S_IFREG | 0o444, atime_ns=self.time_ns, mtime_ns=self.time_ns, ctime_ns=self.time_ns
        )

    async def open(self, flags: int, caller: Caller) -> Handle:
        if is_writing(flags):
            raise ReadOnly("a query is only read")
        match self.query.verb:
            case Verb.SIMILAR:
                hits = await self.searcher.similar(self.query.text, caller)
        self.recent.add(caller.uid, self.query.verb, self.key[-1])
        layout: Callable[[Sequence[Hit]], str] = format_json_lines if self.query.as_json else format_table
        return ContentHandle(layout(hits).encode(), direct_io=True)


def format_table(hits: Sequence[Hit]) -> str:
    """One aligned line per hit: score, block, time, element, operation, who, what changed."""
    rows = [_row(hit) for hit in hits]
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    return "".join(_align(row, widths) + "\n" for row in rows)


def format_json_lines(hits: Sequence[Hit]) -> str:
    """One JSON object per hit; it has the columns of the table, unshortened, and the sentence searched."""
    return "".join(json.dumps(_fields(hit), ensure_ascii=False) + "\n" for hit in hits)


def _row(hit: Hit) -> tuple[str, ...]:
    event = hit.event
    seconds, _, _ = event.time.partition(".")
    return (
        f"{hit.score:.3f}",
        f"{event.height:08d}",
        seconds if seconds.endswith("Z") else seconds + "Z",
        printable(str(event.id)),
        printable(event.op),
        printable(event.actor),
        printable(event.summary),
    )


def _align(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (cell + " " * (width - width_of(cell)) for cell, width in zip(row, widths, strict=True))
    return "  ".join(cells).rstrip()


def _fields(hit: Hit) -> dict[str, object]:
    event = hit.event
    return {
        "score": round(hit.score, 6),
        "block": event.height,
        "seq": event.seq,
        "time": event.time,
        "plugin": event.id.plugin,
        "element": event.id.element,
        "op": event.op,
        "actor": event.actor,
        "summary": event.summary,
        "text": event.text,
    }
