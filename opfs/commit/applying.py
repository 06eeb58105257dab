"""Steps on the host: their checkpoints taken and released, their actions applied, verified, and undone.

Works for every plugin alike; what is applied was planned, allowed and journaled by whoever calls. Runs on the trio
thread, for distinct elements at once.
"""

from __future__ import annotations

import logging
from math import ceil
from typing import TYPE_CHECKING

import trio

from opfs.commit.foreign import calling, differences_of
from opfs.commit.step import AT_ONCE, runs, side_by_side
from opfs.commit.timings import APPLY, VERIFY
from opfs.core.action import Checkpoint
from opfs.errors import ApplyFailed, ApplyNoSpace, ApplyTimeout, OpfsError
from opfs.ports import AppliesMany

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opfs.commit.step import Step
    from opfs.commit.timings import Timings
    from opfs.core.action import Action, ApplyResult, Document

    ApplyMany = Callable[[Sequence[Sequence[Action]], Callable[[ApplyResult], None]], Awaitable[None]]

log = logging.getLogger(__name__)

TOGETHER_FROM, TOGETHER_AT_MOST = 32, 512
"""So many elements of one plugin are worth a call of `apply_many`, and so many are in one at most."""


class Applier:
    """Does steps, and undoes them."""

    def __init__(self, timings: Timings) -> None:
        self._timings = timings

    async def take_checkpoints(self, steps: Sequence[Step]) -> None:
        """Of the steps that will do something; raises what a plugin raises, and TypeError for what is no checkpoint."""
        await side_by_side([step for step in steps if step.diff.actions], _take_checkpoint)

    async def apply(self, steps: Sequence[Step]) -> ApplyFailed | None:
        """Do the steps in their order and verify each; where one fails, undo all, and return what went wrong."""
        started: list[Step] = []

        async def apply(step: Step) -> None:
            started.append(step)
            async with calling(step.plugin, step.id):
                for action in step.diff.actions:
                    with self._timings(APPLY):
                        step.done.append(str((await step.plugin.apply(action)).done))
                await self._verify(step, step.desired)

        try:
            for run in runs([step for step in steps if step.held is None]):
                one_by_one, together = _by_plugin(run)
                await side_by_side(one_by_one, apply)
                for apply_many, batch in together:
                    started += batch
                    await self._apply_together(apply_many, batch)
        except ApplyFailed as error:
            return await self._explain(error, started)
        except OpfsError as error:
            return await self._explain(ApplyFailed(error.reason, hint=error.hint), started)
        return None

    async def _apply_together(self, apply_many: ApplyMany, steps: Sequence[Step]) -> None:
        """Do and verify steps of one plugin in one call of each kind, in the time that they would have one by one."""
        plugin = steps[0].plugin
        by_element = {step.id.element: step for step in steps}

        def report(result: ApplyResult) -> None:
            by_element[result.action.element].done.append(str(result.done))

        async with calling(plugin, f"{len(steps)} elements of {plugin.name}", turns=ceil(len(steps) / AT_ONCE)):
            with self._timings(APPLY):
                await apply_many([step.diff.actions for step in steps], report)
            documents = {element: step.document for element, step in by_element.items() if step.document is not None}
            with self._timings(VERIFY):
                found = await plugin.observe(list(by_element), desired=documents)
            for element, step in by_element.items():
                _check_is(step, step.desired, found.get(element))

    async def undo(self, steps: Sequence[Step]) -> list[str]:
        """Return the host to what it was before `steps`, last run first; returns what could not be undone.

        What was done side by side is undone side by side, and one that fails keeps nobody else from being undone.
        """
        remains: list[str] = []

        async def undo(step: Step) -> None:
            with trio.CancelScope(shield=True):
                try:
                    async with calling(step.plugin, step.id):
                        await self._undo_step(step)
                except OpfsError as error:
                    remains.append(f"{step.id}: {error}")

        for run in reversed(list(runs([step for step in steps if step.diff.actions]))):
            await side_by_side(run[::-1], undo)
        return remains

    async def release(self, steps: Sequence[Step]) -> None:
        """Drop the checkpoints of steps that are settled; a failure costs disk space, never a commit."""
        for step in steps:
            if step.checkpoint is not None:
                try:
                    async with calling(step.plugin, step.id):
                        await step.plugin.release(step.checkpoint)
                except OpfsError as error:
                    log.error("releasing the checkpoint of %s: %s", step.id, error)

    async def _verify(self, step: Step, wanted: Document | None) -> None:
        with self._timings(VERIFY):
            _check_is(step, wanted, await step.observe())

    async def _undo_step(self, step: Step) -> None:
        if step.checkpoint is not None:
            await step.plugin.rollback(step.checkpoint)
        else:
            for action in step.plugin.plan(step.id.element, await step.observe(), step.before).actions:
                await step.plugin.apply(action)
        await self._verify(step, step.before)

    async def _explain(self, error: ApplyFailed, started: Sequence[Step]) -> ApplyFailed:
        """The failure with what was done, what was undone and what was not."""
        done = [line for step in started for line in step.done]
        remains = await self.undo(started)
        parts = [error.reason]
        parts.append(f"done before that: {'; '.join(done)}" if done else "nothing was done before that")
        parts.append(f"NOT undone: {'; '.join(remains)}" if remains else "everything was undone")
        return _class_of(error)(". ".join(parts), hint=error.hint)


def _by_plugin(run: Sequence[Step]) -> tuple[Sequence[Step], Sequence[tuple[ApplyMany, Sequence[Step]]]]:
    """The steps of a run that are done one by one, and those that a plugin does together, some at a time."""
    steps_of: dict[str, list[Step]] = {}
    for step in run:
        steps_of.setdefault(step.id.plugin, []).append(step)
    one_by_one: list[Step] = []
    together: list[tuple[ApplyMany, Sequence[Step]]] = []
    for steps in steps_of.values():
        plugin = steps[0].plugin
        if len(steps) < TOGETHER_FROM or not isinstance(plugin, AppliesMany):
            one_by_one += steps
            continue
        for at in range(0, len(steps), TOGETHER_AT_MOST):
            together.append((plugin.apply_many, steps[at : at + TOGETHER_AT_MOST]))
    return one_by_one, together


def _check_is(step: Step, wanted: Document | None, observed: Document | None) -> None:
    differences = differences_of(step.plugin, step.id.element, wanted, observed)
    if differences:
        listed = "; ".join(str(difference) for difference in differences[:5])
        raise ApplyFailed(f"{step.id} is not as it should be afterwards: {listed}")


async def _take_checkpoint(step: Step) -> None:
    async with calling(step.plugin, step.id):
        checkpoint: object = await step.plugin.checkpoint(step.id.element)
        if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
            raise TypeError(f"checkpoint gave {checkpoint!r}")
        step.checkpoint = checkpoint


def _class_of(error: ApplyFailed) -> type[ApplyFailed]:
    """The nearest class of opfs' own: a plugin's may want other arguments than a text."""
    for known in (ApplyTimeout, ApplyNoSpace):
        if isinstance(error, known):
            return known
    return ApplyFailed
