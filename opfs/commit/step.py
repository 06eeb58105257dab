"""One change of a request on its way through a plugin, and what a request of them comes to.

Knows no journal and no block. Trio thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from opfs.commit.chain import Outcome
from opfs.core.event import clip_message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from opfs.commit.change import Change, Request
    from opfs.commit.dependencies import Needs
    from opfs.core.action import Checkpoint, Document, StateDiff
    from opfs.core.meta import Declared
    from opfs.core.names import ElementId
    from opfs.errors import OpfsError
    from opfs.ports import Plugin

MANY = 8
"""From so many changes on a request's elements are observed together, and one more is worked on at a time."""
AT_ONCE = 32
"""As many are worked on at a time at most: with more, threads wait for the interpreter and not for the disk."""


@dataclass(frozen=True, slots=True)
class Want:
    """One change of a request, parsed: the document asked for (None: delete), the committed one, what it needs."""

    change: Change
    desired: Declared | None
    committed: Declared | None
    needs: Needs = ()

    @property
    def id(self) -> ElementId:
        return self.change.id

    @property
    def told(self) -> Declared | None:
        """What tells the plugin where to look: the desired document or, for a delete, the committed one."""
        return self.committed if self.desired is None else self.desired


@dataclass(slots=True)
class Step:
    """One change on its way through the plugin; `done` lists what was done, in the plugin's words.

    `document` tells the plugin where to look: the desired document or, for a delete, the committed one.
    `before` is what was observed there before anything was done. `held` is the one step that the event's plan has
    where the host is not touched: the element waits, or is only observed. `needs` are the elements that it may need.
    """

    change: Change
    plugin: Plugin
    op: str
    document: Document | None
    before: Document | None
    desired: Document | None
    diff: StateDiff
    checkpoint: Checkpoint | None = None
    held: Mapping[str, Any] | None = None
    done: list[str] = field(default_factory=list)
    needs: frozenset[ElementId] = frozenset()

    @property
    def id(self) -> ElementId:
        return self.change.id

    async def observe(self) -> Document | None:
        """What is on the host now; called within `calling`."""
        return await observe_element(self.plugin, self.id, self.document)

    def plan(self) -> tuple[Mapping[str, Any], ...]:
        """What the event's plan lists."""
        if self.held is not None:
            return (self.held,)
        return tuple(action.to_event() for action in self.diff.actions)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a request came to: outcomes to record, the steps behind them, the failure if it failed."""

    outcomes: tuple[Outcome, ...] = ()
    steps: tuple[Step, ...] = ()
    failure: OpfsError | None = None
    journaled: bool = False


def failure_of(
    change: Change, request: Request, reason: str, plan: tuple[Mapping[str, Any], ...] = (), plugin_hash: str = ""
) -> Outcome:
    """The event of a change that failed; the document stays as it is."""
    return Outcome(
        id=change.id,
        op="apply-failed",
        content=None,
        attributes=None,
        actor=request.actor.to_json(),
        message=clip_message(f"{request.message}\n{reason}" if request.message else reason),
        plan=plan,
        plugin_hash=plugin_hash,
        changes_document=False,
    )


async def observe_element(plugin: Plugin, id: ElementId, document: Document | None) -> Document | None:
    """What the host has of one element now, None if nothing."""
    desired = None if document is None else {id.element: document}
    return (await plugin.observe([id.element], desired=desired)).get(id.element)


def runs(steps: Sequence[Step]) -> Iterator[Sequence[Step]]:
    """Steps in their order, in runs of those that need nothing of each other: all of them writes, or all deletes."""
    run: list[Step] = []
    ids: set[ElementId] = set()
    needs: set[ElementId] = set()
    for step in steps:
        is_other_kind = bool(run) and (step.op == "delete") != (run[-1].op == "delete")
        if is_other_kind or step.id in needs or not ids.isdisjoint(step.needs):
            yield run
            run, ids, needs = [], set(), set()
        run.append(step)
        ids.add(step.id)
        needs |= step.needs
    if run:
        yield run


async def side_by_side(steps: Sequence[Step], do: Callable[[Step], Awaitable[None]]) -> None:
    """Do something about every step, begun in their order; after an error no more are begun, and it is raised.

    Plugins take calls for different elements at once, and a disk makes many files durable in the time of a few. A
    few steps are not worth it: they go one after the other.
    """
    remaining = iter(steps)
    errors: list[Exception] = []

    async def work() -> None:
        for step in remaining:
            if errors:
                return
            try:
                await do(step)
            except Exception as error:
                errors.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(max(1, min(AT_ONCE, len(steps) // MANY))):
            nursery.start_soon(work)
    if errors:
        raise errors[0]
