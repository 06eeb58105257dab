"""One request against the host: observe, plan, policy, journal, apply, verify, and undo what failed.

Works for every plugin alike and knows nothing of blocks: the sequencer turns its outcomes into one. Runs on
the trio thread, one task per request; requests of distinct elements run concurrently.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from opfs.commit.chain import Outcome
from opfs.commit.journal import IntendedChange, Intent, Journal
from opfs.core.action import Safety
from opfs.errors import ApplyFailed, ApplyTimeout, NotFound, OpfsError, Rejected, Stale

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from opfs.commit.chain import Chain
    from opfs.commit.change import Change, Request
    from opfs.commit.confirmations import Confirmations
    from opfs.core.action import Checkpoint, Document, StateDiff
    from opfs.core.names import ElementId
    from opfs.ports import Plugin

log = logging.getLogger(__name__)


@asynccontextmanager
async def calling(plugin: Plugin, id: ElementId) -> AsyncIterator[None]:
    """Call into a plugin, which is foreign code: bounded in time, and whatever it raises is a failure of its own.

    Raises ApplyTimeout, ApplyFailed for a bug of the plugin, and the plugin's own OpfsError.
    """
    limit_s = plugin.apply_timeout_s
    with trio.move_on_after(limit_s) as limit:
        try:
            yield
        except OpfsError:
            raise
        except Exception as error:
            log.exception("the plugin %s has a bug", plugin.name)
            raise ApplyFailed(f"{id}: the plugin {plugin.name} has a bug: {error!r}") from error
    if limit.cancelled_caught:
        raise ApplyTimeout(f"{id}: the plugin {plugin.name} was still at work after {limit_s:.0f} s and was stopped")


async def observe(plugin: Plugin, id: ElementId, document: Document | None) -> Document | None:
    """What the host has of one element now, None if nothing."""
    desired = None if document is None else {id.element: document}
    return (await plugin.observe([id.element], desired=desired)).get(id.element)


@dataclass(slots=True)
class Step:
    """One change on its way through the plugin; `done` lists what was done, in the plugin's words.

    `document` tells the plugin where to look: the desired document or, for a delete, the committed one.
    `before` is what was observed there before anything was done.
    """

    change: Change
    plugin: Plugin
    op: str
    document: Document | None
    before: Document | None
    desired: Document | None
    diff: StateDiff
    checkpoint: Checkpoint | None = None
    done: list[str] = field(default_factory=list)

    @property
    def id(self) -> ElementId:
        return self.change.id

    async def observe(self) -> Document | None:
        """What is on the host now."""
        return await observe(self.plugin, self.id, self.document)

    def plan(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(action.to_event() for action in self.diff.actions)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a request came to: outcomes to record, the steps behind them, the failure if it failed."""

    outcomes: tuple[Outcome, ...] = ()
    steps: tuple[Step, ...] = ()
    failure: ApplyFailed | None = None
    journaled: bool = False


class Host:
    """Carries requests out on the host through the plugins."""

    def __init__(
        self, plugins: Mapping[str, Plugin], chain: Chain, journal: Journal, confirmations: Confirmations
    ) -> None:
        self._plugins = plugins
        self._chain = chain
        self._journal = journal
        self._confirmations = confirmations

    def plugin(self, id: ElementId) -> Plugin:
        """The plugin that owns an element; raises NotFound or, where it cannot work here, Rejected."""
        plugin = self._plugins.get(id.plugin)
        if plugin is None:
            known = ", ".join(sorted(self._plugins))
            raise NotFound(f"there is no plugin {id.plugin!r}", hint=f"installed are: {known}")
        reason = plugin.why_unavailable()
        if reason:
            raise Rejected(f"the plugin {id.plugin} cannot work on this host: {reason}")
        return plugin

    async def carry_out(
        self, request: Request, desired: Sequence[Document | None], committed: Sequence[Document | None]
    ) -> Applied:
        """Bring the host into the desired state, or leave it as it was.

        `desired` and `committed` are the parsed documents of each change. Raises for what is refused before
        anything is done; a failure after that is returned, because it is recorded in the chain.
        """
        steps = []
        for change, document, before in zip(request.changes, desired, committed, strict=True):
            self._check_base(change)
            steps.append(await self._plan(change, document, before))
            self._check_policy(steps[-1], before, request)
        if not any(step.diff.actions for step in steps):
            return Applied(self.outcomes(steps, request), tuple(steps))
        try:
            for step in steps:
                if step.diff.actions:
                    async with calling(step.plugin, step.id):
                        step.checkpoint = await step.plugin.checkpoint(step.id.element)
            await self._journal.append(self._intent(steps, request))
        except OpfsError:
            await self.release(steps)
            raise
        failure = await self._apply_all(steps)
        if failure is None:
            # After this line: the host is as desired and no block says so; a crash here leaves an intent;
            # repaired by recovery, which observes the host and commits the change it finds done.
            return Applied(self.outcomes(steps, request), tuple(steps), journaled=True)
        # After this line: the host is as before, or the failure says in what it is not; a crash here leaves
        # an intent; repaired by recovery, which observes the host as before and drops it, or undoes the rest.
        outcomes = tuple(self.failed(step, request, str(failure)) for step in steps if step.diff.actions)
        return Applied(outcomes, tuple(steps), failure, journaled=True)

    async def undo(self, steps: Sequence[Step]) -> list[str]:
        """Return the host to what it was before `steps`, last step first; returns what could not be undone."""
        remains: list[str] = []
        for step in reversed(steps):
            if step.diff.actions:
                with trio.CancelScope(shield=True):
                    try:
                        async with calling(step.plugin, step.id):
                            await self._undo_step(step)
                    except OpfsError as error:
                        remains.append(f"{step.id}: {error}")
        return remains

    async def release(self, steps: Sequence[Step]) -> None:
        """Drop the checkpoints of steps that are settled; a failure costs disk space, never a commit."""
        for step in steps:
            if step.checkpoint is not None:
                try:
                    await step.plugin.release(step.checkpoint)
                except Exception:
                    log.exception("releasing the checkpoint of %s", step.id)

    def settle(self, applied: Applied) -> None:
        """The request's intent is committed or undone."""
        if applied.journaled:
            self._journal.settle()

    # --- the steps -----------------------------------------------------------------------------------

    def _check_base(self, change: Change) -> None:
        entry = self._chain.catalog.get(change.id)
        if change.content is None and entry is None:
            raise NotFound(f"{change.id} does not exist")
        if change.base_event is None or (entry is not None and entry.last_event == change.base_event):
            return
        if entry is None:
            raise Stale(f"{change.id} has been deleted since it was read", hint="write the whole document again")
        raise Stale(
            f"{change.id} was changed by {entry.author or 'somebody'} in block {entry.height} since it was read",
            hint="read it again and repeat the change",
        )

    async def _plan(self, change: Change, desired: Document | None, committed: Document | None) -> Step:
        plugin = self.plugin(change.id)
        document = committed if desired is None else desired
        async with calling(plugin, change.id):
            before = await observe(plugin, change.id, document)
            diff = plugin.plan(change.id.element, before, desired)
        entry = self._chain.catalog.get(change.id)
        op = "delete" if change.content is None else "update" if entry else "create"
        return Step(change, plugin, op, document, before, desired, diff)

    def _check_policy(self, step: Step, committed: Document | None, request: Request) -> None:
        id = step.id
        if step.op == "delete" and committed is not None and step.plugin.is_protected(id.element, committed):
            raise Rejected(f"{id} is protected", hint="write it without its protection first, then delete it")
        if step.diff.safety is not Safety.DESTRUCTIVE:
            return
        op = "delete" if step.op == "delete" else "update"
        if self._confirmations.use(op, id, request.actor.uid):
            return
        what = "; ".join(a.summary for a in step.diff.actions if a.safety is Safety.DESTRUCTIVE)
        raise Rejected(
            f"{id}: this destroys something: {what}",
            hint=f"to go on, echo 'confirm {op} {id}' > ctl at the top of the mount, then repeat it",
        )

    def _intent(self, steps: Sequence[Step], request: Request) -> Intent:
        changes = tuple(
            IntendedChange(
                step.change, self._chain.last_event(step.id), step.before, step.checkpoint, step.diff.actions
            )
            for step in steps
        )
        return Intent(changes, request.actor.to_json(), request.message)

    async def _apply_all(self, steps: Sequence[Step]) -> ApplyFailed | None:
        started: list[Step] = []
        try:
            for step in steps:
                started.append(step)
                async with calling(step.plugin, step.id):
                    for action in step.diff.actions:
                        step.done.append((await step.plugin.apply(action)).done)
                    await self._verify(step, step.desired)
        except ApplyFailed as error:
            return await self._explain(error, started)
        except OpfsError as error:
            return await self._explain(ApplyFailed(error.reason, hint=error.hint), started)
        return None

    async def _verify(self, step: Step, wanted: Document | None) -> None:
        differences = step.plugin.compare(step.id.element, wanted, await step.observe())
        if differences:
            listed = "; ".join(str(difference) for difference in differences[:5])
            raise ApplyFailed(f"{step.id} is not as it should be afterwards: {listed}")

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
        return type(error)(". ".join(parts), hint=error.hint)

    # --- what is recorded ------------------------------------------------------------------------------

    def outcomes(self, steps: Sequence[Step], request: Request) -> tuple[Outcome, ...]:
        """The events of steps that are true on the host; none for one that changed nothing at all."""
        outcomes = []
        for step in steps:
            entry = self._chain.catalog.get(step.id)
            unchanged = entry is not None and entry.holds(step.change.content)
            if unchanged and not step.diff.actions:
                continue
            outcomes.append(
                Outcome(
                    id=step.id,
                    op="apply" if unchanged else step.op,
                    content=step.change.content,
                    attributes=step.change.attributes,
                    actor=request.actor.to_json(),
                    message=request.message,
                    plan=step.plan(),
                    plugin_hash=step.plugin.version_hash,
                    changes_document=not unchanged,
                )
            )
        return tuple(outcomes)

    def failed(self, step: Step, request: Request, reason: str) -> Outcome:
        """The event of a step that failed."""
        text = f"{request.message}\n{reason}" if request.message else reason
        return Outcome(
            id=step.id,
            op="apply-failed",
            content=None,
            attributes=None,
            actor=request.actor.to_json(),
            message=text.encode()[:4096].decode(errors="ignore"),
            plan=step.plan(),
            plugin_hash=step.plugin.version_hash,
            changes_document=False,
        )
