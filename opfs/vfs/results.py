"""/search/results/<text>: a directory of symbolic links into /chain, so that ls, cat, diff and grep work on hits.

    01-00000042-lxc-100.json -> ../../../chain/00000042-9f86d081884c/state/lxc/100.json

Best first in the order of names. A link leads to the document as the hit left it. A delete leaves none, so its link is
called `….deleted.json` and leads to the document as it was in the block before. Hits that have no document at all
(what opfs did to itself, an element that never came to be) are left out: `hybrid/<text>` lists them.

Which links there are is asked at every listing, for whoever lists. A name that was listed stays good for that user
while others are listed, so that a shell's `cat *` is not disturbed by a writer. It may lead to no other document
meanwhile, since a block never changes. Two users' links of one name are two inodes. Trio thread only.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from opfs.core.names import DOCUMENT_SUFFIX
from opfs.core.pathtext import NAME_LIMIT_BYTES
from opfs.core.timestamp import parse_time
from opfs.errors import InvalidRequest, NotFound
from opfs.vfs.generated import ReadOnlyDirectory
from opfs.vfs.node import FLEETING, CachePolicy, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from opfs.core.names import BlockName
    from opfs.core.query import Query
    from opfs.ports import Hit
    from opfs.vfs.node import Caller, Node, NodeKey
    from opfs.vfs.recent import RecentQueries

KEPT_LINKS = 10_000
"""Of all listings that are remembered; some 5 MB."""

Reader = tuple[int, frozenset[int]]


class ResultSearcher(Protocol):
    """The part of a searcher that a directory of results needs."""

    def reader(self, caller: Caller) -> Reader:
        """As whom the caller reads: uid and groups."""
        ...

    async def search(self, query: Query, caller: Caller) -> Sequence[Hit]: ...

    async def documents(self, hits: Sequence[Hit]) -> Sequence[BlockName | None]:
        """The block that has the document of each hit; None where there is none."""
        ...


class Listings:
    """What was listed last, to whom."""

    def __init__(self) -> None:
        self._links: OrderedDict[tuple[Reader, NodeKey], Mapping[str, ResultLink]] = OrderedDict()
        self._count = 0

    def keep(self, reader: Reader, key: NodeKey, links: Mapping[str, ResultLink]) -> None:
        self._count += len(links) - len(self._links.pop((reader, key), ()))
        self._links[reader, key] = links
        while self._count > KEPT_LINKS and len(self._links) > 1:
            self._count -= len(self._links.popitem(last=False)[1])

    def find(self, reader: Reader, key: NodeKey, name: str) -> ResultLink | None:
        return self._links.get((reader, key), {}).get(name)


@dataclass(slots=True)
class ResultLink(Symlink):
    """One hit's document; its key has the target, too, as the same name is another link for another user."""

    @property
    def cache(self) -> CachePolicy:
        return FLEETING

    @property
    def shown(self) -> NodeKey:
        return self.key[:-1]


@dataclass(slots=True)
class ResultsDirectory(ReadOnlyDirectory):
    """The documents of one query's hits."""

    query: Query
    searcher: ResultSearcher
    listings: Listings
    recent: RecentQueries

    @property
    def cache(self) -> CachePolicy:
        return FLEETING

    async def lookup(self, name: str, caller: Caller) -> Node:
        if not name.endswith(DOCUMENT_SUFFIX):
            raise NotFound(f"/{'/'.join((*self.key, name))} does not exist")
        reader = self.searcher.reader(caller)
        link = self.listings.find(reader, self.key, name) or (await self._list(caller)).get(name)
        if link is None:
            raise NotFound(f"/{'/'.join((*self.key, name))} does not exist", hint="list the directory again")
        return link

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        return (await self._list(caller)).items()

    async def _list(self, caller: Caller) -> Mapping[str, ResultLink]:
        hits = await self.searcher.search(self.query, caller)
        blocks = await self.searcher.documents(hits)
        found = [(hit, block) for hit, block in zip(hits, blocks, strict=True) if block is not None]
        width = max(2, len(str(len(found))))
        up = "../" * len(self.key)
        links: dict[str, ResultLink] = {}
        for rank, (hit, block) in enumerate(found, 1):
            name = _name(hit, f"{rank:0{width}d}")
            target = f"{up}chain/{block}/state/{hit.event.id.path}"
            links[name] = ResultLink((*self.key, name, target), target, time_ns=_time_ns(hit))
        self.listings.keep(self.searcher.reader(caller), self.key, links)
        self.recent.add(caller.uid, self.key)
        return links


def _name(hit: Hit, rank: str) -> str:
    event = hit.event
    suffix = f".deleted{DOCUMENT_SUFFIX}" if event.op == "delete" else DOCUMENT_SUFFIX
    stem = f"{rank}-{event.height:08d}-{event.id.plugin}-{event.id.element}"
    return stem[: NAME_LIMIT_BYTES - len(suffix)] + suffix


def _time_ns(hit: Hit) -> int:
    try:
        return parse_time(hit.event.time)
    except InvalidRequest:
        return 0  # an index of another version; the time is decoration here
