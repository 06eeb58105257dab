"""One request against the host: observe, plan, policy, journal, apply, verify, and undo what failed.

Works for every plugin alike and knows nothing of blocks: the sequencer turns its outcomes into one. Runs on
the trio thread, one task per request; requests of distinct elements run concurrently.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import trio

from opfs.commit.chain import Outcome
from opfs.commit.dependencies import Company, Dependencies, Needs
from opfs.commit.foreign import calling, differences_of, report_bug
from opfs.commit.journaled import IntendedChange, Intent
from opfs.commit.preview import Preview, check_plan, digest_of_all, plan_digest
from opfs.commit.timings import APPLY, OBSERVE, VERIFY
from opfs.core.action import Action, Checkpoint, StateDiff
from opfs.core.event import clip_message
from opfs.core.names import ElementId
from opfs.core.standing import (
    LEAVE,
    RESERVED_STEPS,
    WAIT,
    Kind,
    Standing,
    leaving_step,
    standing_of_plan,
    waiting_step,
)
from opfs.errors import ApplyFailed, ApplyNoSpace, ApplyTimeout, OpfsError, Rejected, Stale

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from opfs.commit.chain import Chain
    from opfs.commit.change import Change, Request
    from opfs.commit.journal import Journal
    from opfs.commit.policy import Policy
    from opfs.commit.timings import Timings
    from opfs.core.action import Document
    from opfs.core.meta import Declared
    from opfs.core.redaction import Redactor
    from opfs.ports import Plugin

log = logging.getLogger(__name__)

_MANY = 8
"""From so many changes on a request's elements are observed together, and one more is worked on at a time.

How many at most at a time, the plugin says: `Capabilities.at_once`.
"""


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
        return await _observe(self.plugin, self.id, self.document)

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


class Host:
    """Carries requests out on the host through the plugins."""

    def __init__(
        self,
        require: Callable[[str], Plugin],
        chain: Chain,
        journal: Journal,
        policy: Policy,
        dependencies: Dependencies,
        redact: Redactor,
        timings: Timings,
    ) -> None:
        self._require = require
        self._chain = chain
        self._journal = journal
        self._policy = policy
        self._dependencies = dependencies
        self._redact = redact
        self._timings = timings

    async def carry_out(self, request: Request, wants: Sequence[Want]) -> Applied:
        """Bring the host into the desired state, or leave it as it was.

        Raises for what is refused before anything is done; a failure after that is returned, because it is
        recorded in the chain.
        """
        steps = await self._plan_all(request, wants)
        if request.expected_plan not in (None, digest_of_all(map(self._digest, steps))):
            raise Stale("the host or a document has changed since the plan was made", hint="look at the plan again")
        acting = [(step.op, step.id, step.diff) for step in steps if step.held is None]
        self._policy.check_confirmed(acting, request.actor.uid)
        if not any(step.diff.actions for step in steps):
            return Applied(self.outcomes(steps, request), tuple(steps))
        try:
            await _side_by_side([step for step in steps if step.diff.actions], _take_checkpoint)
            await self._journal.append(self._intent(steps, request))
        except (TypeError, ValueError, RecursionError) as error:
            # what a plugin observed or plans is no JSON
            await self.release(steps)
            raise ApplyFailed(report_bug(steps[0].plugin, steps[0].id, error)) from error
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

    async def preview(self, request: Request, want: Want, company: Company) -> Preview:
        """What carrying out the request's one change would do now, or once `company` has happened."""
        self._policy.check_base(want.change)
        gone = [*company.gone, want.id] if want.desired is None else company.gone
        return self._preview_of(await self._plan(want, request, Company(company.ready, gone)))

    async def preview_all(self, request: Request, wants: Sequence[Want]) -> Sequence[Preview]:
        """What carrying out the request would do now, in the order of doing it; raises what that would raise.

        Only what must be confirmed is not asked about: a plan is what people look at before they confirm.
        """
        return [self._preview_of(step) for step in await self._plan_all(request, wants)]

    def _preview_of(self, step: Step) -> Preview:
        entry = self._chain.catalog.get(step.id)
        unchanged = entry is not None and entry.holds(step.change.content)
        step_name = step.held["step"] if step.held else ""
        return Preview(
            id=step.id,
            op="apply" if unchanged else step.op,
            observed=step.before,
            desired=step.desired,
            actions=step.diff.actions,
            base_event=entry.last_event if entry else None,
            digest=self._digest(step),
            waits_for=tuple(step.held["summary"].split(", ")) if step.held and step_name == WAIT else (),
            is_observed=step_name == LEAVE,
        )

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

        for run in reversed(list(_runs([step for step in steps if step.diff.actions]))):
            await _side_by_side(run[::-1], undo)
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

    def settle(self, applied: Applied) -> None:
        """The request's intent is committed or undone."""
        if applied.journaled:
            self._journal.settle()

    # --- the steps -----------------------------------------------------------------------------------

    def _ordered(self, wants: Sequence[Want]) -> list[Want]:
        by_id = {want.id: want for want in wants}
        writes = {want.id: want.needs for want in wants if want.desired is not None}
        deletes = {want.id for want in wants if want.desired is None}
        return [by_id[id] for id in self._dependencies.in_order(list(by_id), writes, deletes)]

    async def _plan_all(self, request: Request, wants: Sequence[Want]) -> list[Step]:
        """Every change as a step, needed ones first, held to all rules but those of confirming."""
        steps: list[Step] = []
        gone = {want.id for want in wants if want.desired is None}
        ready: set[ElementId] = set()
        company = Company(ready, gone, needs={want.id: want.needs for want in wants if want.desired is not None})
        ordered = self._ordered(wants)
        seen = await self._observe_together(ordered)
        for want in ordered:
            self._policy.check_base(want.change)
            step = await self._plan(want, request, company, seen)
            await self._check(want, step, request, company)
            if step.held is None and step.op != "delete":
                ready.add(step.id)
            steps.append(step)
        return steps

    async def _observe_together(self, wants: Sequence[Want]) -> Mapping[ElementId, Document | None]:
        """What is there of many elements, asked once for each plugin; empty where that has to be asked one by one."""
        if len(wants) < _MANY:
            return {}
        documents: dict[str, dict[str, Document]] = {}
        for want in wants:
            told = want.told
            if told is not None and not self._policy.is_observed(want.id, told):
                documents.setdefault(want.id.plugin, {})[want.id.element] = told.document
        seen: dict[ElementId, Document | None] = {}
        for name, desired in documents.items():
            plugin = self._require(name)
            try:
                async with calling(plugin, f"{len(desired)} elements of {name}"):
                    with self._timings(OBSERVE):
                        found = await plugin.observe(list(desired), desired=desired)
                    seen |= {ElementId(name, element): found.get(element) for element in desired}
            except OpfsError as error:
                # one of them may be at fault, or all of them too many for the time limit
                log.warning("observing them one by one: %s", error)
        return seen

    async def _plan(
        self,
        want: Want,
        request: Request,
        company: Company,
        seen: Mapping[ElementId, Document | None] = MappingProxyType({}),
    ) -> Step:
        """One change as a step, with what is there and what is to be done, or with why nothing is done.

        `seen` is what was observed already.
        """
        id, plugin = want.id, self._require(want.id.plugin)
        told = want.told
        document = told.document if told else None
        desired = want.desired.document if want.desired else None
        entry = self._chain.catalog.get(id)
        op = "delete" if want.desired is None else "import" if request.is_import else "update" if entry else "create"
        step = Step(want.change, plugin, op, document, None, desired, StateDiff(plugin.name))
        needs = self._dependencies.committed_needs(id) if want.desired is None else want.needs
        step.needs = frozenset(needed for need in needs for needed in need)
        if self._policy.is_observed(id, told):
            step.held = leaving_step()
        elif want.desired is not None and not request.is_import:
            missing = await self._dependencies.missing(want.needs, company)
            step.held = waiting_step(", ".join(missing)) if missing else None
        if step.held is None or request.is_import:
            async with calling(plugin, id):
                with self._timings(OBSERVE):
                    step.before = seen[id] if id in seen else await _observe(plugin, id, document)
                step.diff = plugin.plan(id.element, step.before, desired)
                _check_steps(step.diff)
        return step

    async def _check(self, want: Want, step: Step, request: Request, company: Company) -> None:
        """What policy and the writer's own conditions say of a plan."""
        if want.change.expected_plan is not None:
            check_plan(want.id, want.change.expected_plan, self._digest(step))
        if request.is_import and step.diff.actions:
            listed = "; ".join(action.summary for action in step.diff.actions[:5])
            raise Rejected(
                f"{want.id} is not what is there, and importing changes nothing: it would {listed}",
                hint="take the document from /live, or write it to /state to have it so",
            )
        if step.held is not None:
            return
        if want.desired is None:
            self._policy.check_protected(want.id, step.plugin, want.committed)
            losing = await self._dependencies.dependents(want.id, replace(company, ready=()))
            self._policy.check_dependents(want.id, losing)

    def _digest(self, step: Step) -> str:
        entry = self._chain.catalog.get(step.id)
        return plan_digest(step.before, entry.last_event if entry else None, step.diff.actions, step.plugin.schema)

    def _intent(self, steps: Sequence[Step], request: Request) -> Intent:
        changes = tuple(
            IntendedChange(
                step.change,
                self._chain.last_event(step.id),
                step.before,
                step.checkpoint,
                step.diff.actions,
                step.held,
            )
            for step in steps
        )
        for step in steps if self._redact.knows_any else ():
            # the journal must be exact, so nothing can be taken out of it: a secret in it is refused instead
            told = json.dumps([step.before, [action.to_json() for action in step.diff.actions]], default=str)
            if self._redact(told) != told:
                raise ApplyFailed(f"{step.id}: the plugin {step.plugin.name} would write a secret into the journal")
        return Intent(changes, request.actor.to_json(), request.message)

    async def _apply_all(self, steps: Sequence[Step]) -> ApplyFailed | None:
        started: list[Step] = []

        async def apply(step: Step) -> None:
            started.append(step)
            async with calling(step.plugin, step.id):
                for action in step.diff.actions:
                    with self._timings(APPLY):
                        step.done.append(str((await step.plugin.apply(action)).done))
                await self._verify(step, step.desired)

        try:
            for run in _runs([step for step in steps if step.held is None]):
                await _side_by_side(run, apply)
        except ApplyFailed as error:
            return await self._explain(error, started)
        except OpfsError as error:
            return await self._explain(ApplyFailed(error.reason, hint=error.hint), started)
        return None

    async def _verify(self, step: Step, wanted: Document | None) -> None:
        with self._timings(VERIFY):
            differences = differences_of(step.plugin, step.id.element, wanted, await step.observe())
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
        return _class_of(error)(". ".join(parts), hint=error.hint)

    # --- what is recorded ------------------------------------------------------------------------------

    def outcomes(self, steps: Sequence[Step], request: Request) -> tuple[Outcome, ...]:
        """The events of steps that are true on the host; none for one that changed nothing at all."""
        outcomes = []
        for step in steps:
            entry = self._chain.catalog.get(step.id)
            unchanged = entry is not None and entry.holds(step.change.content)
            if unchanged and entry and not step.diff.actions and self._says_nothing_new(step, entry.standing):
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
        return failure_of(step.change, request, reason, step.plan(), step.plugin.version_hash)

    @staticmethod
    def _says_nothing_new(step: Step, standing: Standing) -> bool:
        """Whether the committed document stands as it would after the step; an observed one may have drifted, too."""
        after = standing_of_plan(step.plan())
        return after == standing or {after.kind, standing.kind} == {Kind.OBSERVED, Kind.DRIFTED}


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


async def _observe(plugin: Plugin, id: ElementId, document: Document | None) -> Document | None:
    """What the host has of one element now, None if nothing."""
    desired = None if document is None else {id.element: document}
    return (await plugin.observe([id.element], desired=desired)).get(id.element)


async def _take_checkpoint(step: Step) -> None:
    async with calling(step.plugin, step.id):
        step.checkpoint = _checked(await step.plugin.checkpoint(step.id.element))


def _runs(steps: Sequence[Step]) -> Iterator[Sequence[Step]]:
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


async def _side_by_side(steps: Sequence[Step], do: Callable[[Step], Awaitable[None]]) -> None:
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
        most = min((step.plugin.capabilities.at_once for step in steps), default=1)
        for _ in range(max(1, min(most, len(steps) // _MANY))):
            nursery.start_soon(work)
    if errors:
        raise errors[0]


def _class_of(error: ApplyFailed) -> type[ApplyFailed]:
    """The nearest class of opfs' own: a plugin's may want other arguments than a text."""
    for known in (ApplyTimeout, ApplyNoSpace):
        if isinstance(error, known):
            return known
    return ApplyFailed


def _check_steps(diff: StateDiff) -> None:
    """Hold a plan to the contract. An event says by one of two names that nothing was done: no action has them."""
    for action in diff.actions:
        if not isinstance(action, Action):
            raise TypeError(f"a plan has {action!r}")
        if action.step in RESERVED_STEPS:
            raise ValueError(f"a plan has the step {action.step!r}, which is opfs' own")
        f"{action.step}{action.summary}".encode()  # half a surrogate pair cannot be recorded


def _checked(checkpoint: Checkpoint | None) -> Checkpoint | None:
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        raise TypeError(f"checkpoint gave {checkpoint!r}")
    return checkpoint
