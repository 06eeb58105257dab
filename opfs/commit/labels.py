"""Labels: names that people give to blocks, kept as events about opfs itself, so they are provable as all else.

What the events say is opfs.core.label's. Blocks that have a label are kept by retention. Trio thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from opfs.commit.chain import Outcome
from opfs.commit.change import Change, Request
from opfs.commit.step import Applied
from opfs.core.label import LABEL, UNLABEL, check_label, label_id, label_of, label_plan, labelled_block
from opfs.core.names import OWN_EVENTS, ElementId
from opfs.errors import NotFound, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from opfs.commit.sequencer import Sequencer
    from opfs.core.actor import Actor
    from opfs.core.event import Event
    from opfs.core.names import BlockName
    from opfs.ports import History, RecordedEvent

MAX_MOVES = 1_000_000
MAX_FOLLOWED = 5_000
"""Beyond so many new events each label's own are looked up instead."""
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Label:
    """`name` stands for `block`; `message` says why, `user` who said so, `time_ns` when."""

    name: str
    block: BlockName
    message: str
    user: str
    time_ns: int


class Historian(Protocol):
    """Keeps the history up with the chain."""

    async def wait_current(self) -> None: ...


class Labels:
    """The labels there are, read out of the history; changed by events."""

    def __init__(
        self, history: History, historian: Historian, sequencer: Sequencer, events_of: Callable[[int], Sequence[Event]]
    ) -> None:
        """`events_of` reads the events of the block of a height; blocking."""
        self._history = history
        self._events_of = events_of
        self._historian = historian
        self._sequencer = sequencer
        self._known: tuple[int, Mapping[str, Label]] = (0, {})
        """The labels after so many events; never changed, only replaced."""

    async def current(self) -> Mapping[str, BlockName]:
        """Every label and the block it stands for."""
        return {name: label.block for name, label in (await self.all()).items()}

    async def all(self) -> Mapping[str, Label]:
        """Every label, by name."""
        count = self._sequencer.event_count
        known = self._known
        if known[0] < count:
            await self._historian.wait_current()
            self._known = known = count, await trio.to_thread.run_sync(self._load, *known, count)
        return known[1]

    def _load(self, taken: int, labels: Mapping[str, Label], count: int) -> Mapping[str, Label]:
        """The labels after `count` events, from what they were after `taken`."""
        labels = dict(labels)
        for event in self._moves(taken, count):
            name = label_of(event.id)
            if name is None:
                continue
            labels.pop(name, None)
            if event.op == LABEL:
                (written,) = [written for written in self._events_of(event.height) if written.seq == event.seq]
                block = labelled_block(written)
                if block is not None:
                    labels[name] = Label(name, block, event.message, event.user, event.time_ns)
        return labels

    def _moves(self, taken: int, count: int) -> Iterator[RecordedEvent]:
        """Events from `taken` on, at least all that are about labels and the newest of their label."""
        if count - taken > MAX_FOLLOWED:
            for element in self._history.elements(OWN_EVENTS):
                yield from self._history.events(ElementId(OWN_EVENTS, element), limit=MAX_MOVES)[-1:]
            return
        while taken < count:
            events = self._history.events(first_seq=taken, limit=_PAGE)
            if not events:
                return
            yield from events
            taken = events[-1].seq + 1

    async def add(self, name: str, block: BlockName, actor: Actor, message: str = "") -> None:
        """Give `block` a label; one of that name that stands for another block moves. Raises OpfsError."""
        check_label(name)
        await self._record(name, LABEL, actor, message, label_plan(block))

    async def remove(self, name: str, actor: Actor) -> None:
        """Take a label away; raises NotFound."""
        if name not in await self.all():
            raise NotFound(f"there is no label {name!r}", hint="ls /at lists them")
        await self._record(name, UNLABEL, actor, "", ())

    async def _record(
        self, name: str, op: str, actor: Actor, message: str, plan: tuple[Mapping[str, object], ...]
    ) -> None:
        self._sequencer.failsafe.require_writable()
        id = label_id(name)
        if self._sequencer.is_busy(id):
            raise Rejected(f"somebody else is changing the label {name!r}")
        outcome = Outcome(id, op, None, None, actor.to_json(), message=message, plan=plan, changes_document=False)
        await self._sequencer.record(Request((Change(id, None),), actor, message), Applied((outcome,)))
