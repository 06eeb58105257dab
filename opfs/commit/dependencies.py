"""Which elements need which: what a document must wait for, and what must not be deleted from under others.

Holds the needs of every committed document and of those being committed, as the plugins and `$after` tell them. They
are derived from the documents, so a start works them out again. What is in place is asked of the chain first and of
the host second. Trio thread; only the needs of a start are worked out in a worker thread.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from opfs.commit.foreign import calling, guarded
from opfs.core.document import parse_document
from opfs.core.meta import Declared, split_meta
from opfs.core.names import ElementId
from opfs.core.ordering import find_cycle, in_order
from opfs.core.overlay import is_there
from opfs.core.standing import Kind
from opfs.errors import InvalidRequest, OpfsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from opfs.commit.catalog import Catalog
    from opfs.ports import Dependency, Plugin, StoredDocument

log = logging.getLogger(__name__)

Needs = tuple[tuple["ElementId", ...], ...]
"""What one element needs: all of these, each by any of its alternatives."""

MAX_NEEDS = 1000
"""Of one element that its plugin may name; more is a bug of the plugin."""


@dataclass(frozen=True, slots=True)
class Company:
    """What happens in the same request before it is an element's turn: these are in place then, and these gone.

    `seen` keeps what was looked for on the host, for many questions at once that have the same answer. `needs` is what
    the elements that the request writes will need.
    """

    ready: Collection[ElementId] = ()
    gone: Collection[ElementId] = ()
    seen: dict[ElementId, bool] | None = None
    needs: Mapping[ElementId, Needs] = field(default_factory=dict)


ALONE = Company()


class Dependencies:
    """`committed` gives the committed document of an element, by which its plugin finds it on the host."""

    def __init__(
        self,
        plugins: Mapping[str, Plugin],
        catalog: Catalog,
        committed: Callable[[ElementId], Awaitable[Declared | None]],
    ) -> None:
        self._plugins = plugins
        self._catalog = catalog
        self._committed = committed
        self._needs: dict[ElementId, Needs] = {}
        self._users: dict[ElementId, set[ElementId]] = {}
        self._arriving: dict[ElementId, Needs] = {}
        self._changed_since_start: set[ElementId] = set()
        self._loaded = trio.Event()

    # --- what is needed ----------------------------------------------------------------------------------

    def needs_of(self, id: ElementId, declared: Declared) -> Needs:
        """What a document says that it needs; raises ApplyFailed where its plugin has a bug."""
        plugin = self._plugins[id.plugin]
        with guarded(plugin, id):
            found = [_alternatives(need) for need in plugin.depends_on(id.element, declared.document)]
        found += [(needed,) for needed in declared.meta.after]
        # an element is in nobody's way but its own where it names itself, and a plugin may do so among alternatives
        return tuple(need for need in dict.fromkeys(found) if need and id not in need)[:MAX_NEEDS]

    def users(self, id: ElementId) -> Collection[ElementId]:
        """The committed elements that name `id` among what they need."""
        return self._users.get(id, ())

    def committed_needs(self, id: ElementId) -> Needs:
        return self._needs.get(id, ())

    async def load(self, documents: Iterable[StoredDocument]) -> None:
        """Work out the needs of all documents of HEAD; runs beside everything else, which waits where it must."""
        try:
            found = await trio.to_thread.run_sync(lambda: list(self._work_out(documents)))
        except OpfsError as error:
            log.error("what the elements need is unknown: %s", error)
            found = []
        for id, needs in found:
            if id not in self._changed_since_start:
                self._set(id, needs)
        self._loaded.set()

    async def wait_loaded(self) -> None:
        await self._loaded.wait()

    def _work_out(self, documents: Iterable[StoredDocument]) -> Iterator[tuple[ElementId, Needs]]:
        for document in documents:
            trio.from_thread.check_cancelled()
            needs = self._needs_of_bytes(document.id, document.content)
            if needs:
                yield document.id, needs

    def _needs_of_bytes(self, id: ElementId, content: bytes) -> Needs:
        """Of a committed document, whose plugin may be gone or another by now: then it needs nothing."""
        if id.plugin not in self._plugins:
            return ()
        try:
            return self.needs_of(id, split_meta(parse_document(content), content))
        except OpfsError as error:
            log.warning("what %s needs is unknown: %s", id, error)
            return ()

    # --- requests under way ------------------------------------------------------------------------------

    def begin(self, writes: Mapping[ElementId, Needs]) -> None:
        """These are being committed; raises InvalidRequest where one of them could then never be in place."""
        self._arriving.update(writes)
        for id, needs in writes.items():
            circle = find_cycle(id, self._declared_needs) if needs else None
            if circle is not None:
                self.end(writes)
                listed = " needs ".join(map(str, circle))
                raise InvalidRequest(
                    f"{id} could never be in place: {listed}", hint="one of these must do without the other"
                )

    def end(self, ids: Iterable[ElementId]) -> None:
        """What was begun is committed or given up."""
        for id in ids:
            self._arriving.pop(id, None)

    def adopt(self, id: ElementId, content: bytes | None) -> None:
        """A block gave the element this document, or removed it."""
        if not self._loaded.is_set():
            self._changed_since_start.add(id)
        arriving = self._arriving.get(id)
        if content is None:
            self._set(id, ())
        else:
            self._set(id, self._needs_of_bytes(id, content) if arriving is None else arriving)

    def _set(self, id: ElementId, needs: Needs) -> None:
        for need in self._needs.pop(id, ()):
            for alternative in need:
                users = self._users.get(alternative, set())
                users.discard(id)
                if not users:
                    self._users.pop(alternative, None)
        if needs:
            self._needs[id] = needs
        for need in needs:
            for alternative in need:
                self._users.setdefault(alternative, set()).add(id)

    def _declared_needs(self, id: ElementId) -> Needs | None:
        if id in self._arriving:
            return self._arriving[id]
        return None if self._catalog.get(id) is None else self._needs.get(id, ())

    def in_order(
        self, ids: Sequence[ElementId], writes: Mapping[ElementId, Needs], deletes: Collection[ElementId]
    ) -> list[ElementId]:
        """The elements of one request: needed before needing, and the other way round where they go."""

        def comes_after(id: ElementId) -> Needs:
            if id in deletes:
                return tuple((user,) for user in self.users(id))
            return writes.get(id, ())

        return in_order(ids, comes_after)

    # --- what is in place --------------------------------------------------------------------------------

    async def missing(self, needs: Needs, company: Company) -> tuple[str, ...]:
        """Those of `needs` that are not in place, in words: `net/br0`, or `net/br0 or ovs/br0`.

        What no plugin of this host could provide is not waited for: nothing would ever end the waiting.
        """
        missing = []
        for need in needs:
            possible = [alternative for alternative in need if self._is_provided(alternative)]
            if possible and not await self._is_met(possible, company):
                missing.append(" or ".join(map(str, possible)))
        return tuple(missing)

    async def dependents(self, id: ElementId, company: Company) -> list[ElementId]:
        """The elements that would lose what they need if `id` were deleted: waiting ones have nothing to lose."""
        arriving = {**self._arriving, **company.needs}
        users = {user for user, needs in arriving.items() if any(id in need for need in needs)}
        losing = []
        for user in sorted(users.union(self.users(id))):
            entry = self._catalog.get(user)
            if user in company.gone or (
                user not in arriving and (entry is None or entry.standing.kind is Kind.WAITING)
            ):
                continue
            for need in arriving.get(user, self._needs.get(user, ())):
                others = [other for other in need if other != id and self._is_provided(other)]
                if id in need and not await self._is_met(others, company):
                    losing.append(user)
                    break
        return losing

    async def _is_met(self, alternatives: Sequence[ElementId], company: Company) -> bool:
        staying = [id for id in alternatives if id not in company.gone]
        if any(id in company.ready or self._is_in_force(id) for id in staying):
            return True
        seen = {} if company.seen is None else company.seen
        for id in staying:
            if id not in seen:
                seen[id] = await self._is_on_host(id)
            if seen[id]:
                return True
        return False

    def _is_in_force(self, id: ElementId) -> bool:
        entry = self._catalog.get(id)
        return entry is not None and entry.standing.kind is Kind.COMMITTED

    def _is_provided(self, id: ElementId) -> bool:
        plugin = self._plugins.get(id.plugin)
        return plugin is not None and plugin.why_unavailable() is None

    async def _is_on_host(self, id: ElementId) -> bool:
        """Whether there is such a thing, declared or not; no, where its plugin cannot say."""
        plugin = self._plugins[id.plugin]
        declared = await self._committed(id)
        desired = None if declared is None else {id.element: declared.document}
        try:
            async with calling(plugin, id):
                found = (await plugin.observe([id.element], desired=desired)).get(id.element)
        except OpfsError as error:
            log.warning("whether %s is there is unknown: %s", id, error)
            return False
        # what a document can ask to be absent may be reported as absent instead of being left out
        return is_there(found)


def _alternatives(need: Dependency) -> tuple[ElementId, ...]:
    """What a plugin says, held to the contract while it is the plugin's turn to be blamed."""
    alternatives = tuple(need.any_of)
    if not all(isinstance(alternative, ElementId) for alternative in alternatives):
        raise TypeError(f"depends_on gave {need!r}")
    return alternatives
