"""Requests on their way, and the elements that they hold: an element is one ticket's at a time.

Trio thread. Who looks and then holds does so without an await in between, so of two writers one is told `Busy`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from opfs.commit.step import Applied
from opfs.core.standing import OWN_SOURCES
from opfs.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opfs.commit.change import Request
    from opfs.core.names import BlockName, ElementId
    from opfs.errors import OpfsError


@dataclass(slots=True, eq=False)
class Ticket:
    """A request on its way; `done` is set once `block` or `error` is."""

    request: Request
    applied: Applied = field(default_factory=Applied)
    block: BlockName | None = None
    error: OpfsError | None = None
    done: trio.Event = field(default_factory=trio.Event)

    @property
    def is_own(self) -> bool:
        """Whether opfs itself wants this, so that a writer waits for it."""
        return self.request.actor.source in OWN_SOURCES

    @property
    def ids(self) -> Sequence[ElementId]:
        """The elements that the request changes."""
        return [change.id for change in self.request.changes]

    @property
    def may_use_reserve(self) -> bool:
        """Whether it stores nothing new, so that it goes on in a full pool: deletes, failures, opfs' own events."""
        outcomes = self.applied.outcomes
        stores = any(outcome.changes_document and outcome.content is not None for outcome in outcomes)
        return not stores if outcomes else self.is_own or all(c.content is None for c in self.request.changes)


class Tickets:
    """Those under way, by the elements that they hold."""

    def __init__(self) -> None:
        self._holders: dict[ElementId, Ticket] = {}

    def __len__(self) -> int:
        """How many elements are held."""
        return len(self._holders)

    def __contains__(self, id: ElementId) -> bool:
        return id in self._holders

    def hold(self, ticket: Ticket) -> None:
        """The elements of the ticket are its own until `let_go`."""
        for id in ticket.ids:
            self._holders[id] = ticket

    def let_go(self, ticket: Ticket) -> None:
        for id in ticket.ids:
            self._holders.pop(id, None)

    def require_free(self, ids: Iterable[ElementId]) -> None:
        """Raise Busy where another writer has one of the elements."""
        for id in ids:
            if id in self._holders:
                raise Busy(f"another writer is committing {id}", hint="write again when it is done")

    def of(self, ids: Iterable[ElementId]) -> list[Ticket]:
        """Those that hold any of the elements; one that holds several is there as often."""
        return [self._holders[id] for id in ids if id in self._holders]

    async def wait_own(self, ids: Sequence[ElementId]) -> None:
        """Return when opfs itself holds none of the elements."""
        while own := [ticket for ticket in self.of(ids) if ticket.is_own]:
            await own[0].done.wait()

    async def wait_free(self, id: ElementId) -> None:
        """Return when nobody holds the element."""
        while (ticket := self._holders.get(id)) is not None:
            await ticket.done.wait()

    async def wait_none(self) -> None:
        """Return when nothing is under way."""
        while self._holders:
            await next(iter(self._holders.values())).done.wait()
