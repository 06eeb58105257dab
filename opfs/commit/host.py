"""One request against the host: observe, plan, policy, journal, apply, verify, and undo what failed.

Works for every plugin alike and knows nothing of blocks: the sequencer turns its outcomes into one. Runs on
the trio thread, one task per request; requests of distinct elements run concurrently.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from opfs.commit.applying import Applier
from opfs.commit.chain import Outcome
from opfs.commit.dependencies import Company
from opfs.commit.foreign import report_bug
from opfs.commit.journaled import IntendedChange, Intent
from opfs.commit.planning import StepPlanner
from opfs.commit.preview import digest_of_all
from opfs.commit.step import Applied, failure_of
from opfs.core.standing import Kind, standing_of_plan
from opfs.errors import ApplyFailed, OpfsError, Stale

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opfs.commit.chain import Chain
    from opfs.commit.change import Request
    from opfs.commit.dependencies import Dependencies
    from opfs.commit.journal import Journal
    from opfs.commit.policy import Policy
    from opfs.commit.preview import Preview
    from opfs.commit.step import Step, Want
    from opfs.commit.timings import Timings
    from opfs.core.redaction import Redactor
    from opfs.core.standing import Standing
    from opfs.ports import Plugin


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
        self._chain = chain
        self._journal = journal
        self._policy = policy
        self._redact = redact
        self._planner = StepPlanner(require, chain.catalog, policy, dependencies, timings)
        self._applier = Applier(timings)

    async def carry_out(self, request: Request, wants: Sequence[Want]) -> Applied:
        """Bring the host into the desired state, or leave it as it was.

        Raises for what is refused before anything is done; a failure after that is returned, because it is
        recorded in the chain.
        """
        steps = await self._planner.plan_all(request, wants)
        if request.expected_plan not in (None, digest_of_all(map(self._planner.digest, steps))):
            raise Stale("the host or a document has changed since the plan was made", hint="look at the plan again")
        acting = [(step.op, step.id, step.diff) for step in steps if step.held is None]
        self._policy.check_confirmed(acting, request.actor.uid)
        if not any(step.diff.actions for step in steps):
            return Applied(self.outcomes(steps, request), tuple(steps))
        try:
            await self._applier.take_checkpoints(steps)
            await self._journal.append(self._intent(steps, request))
        except (TypeError, ValueError, RecursionError) as error:
            # what a plugin observed or plans is no JSON
            await self.release(steps)
            raise ApplyFailed(report_bug(steps[0].plugin, steps[0].id, error)) from error
        except OpfsError:
            await self.release(steps)
            raise
        failure = await self._applier.apply(steps)
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
        return self._planner.preview_of(await self._planner.plan(want, request, Company(company.ready, gone)))

    async def preview_all(self, request: Request, wants: Sequence[Want]) -> Sequence[Preview]:
        """What carrying out the request would do now, in the order of doing it; raises what that would raise.

        Only what must be confirmed is not asked about: a plan is what people look at before they confirm.
        """
        return [self._planner.preview_of(step) for step in await self._planner.plan_all(request, wants)]

    async def undo(self, steps: Sequence[Step]) -> list[str]:
        """Return the host to what it was before `steps`; returns what could not be undone."""
        return await self._applier.undo(steps)

    async def release(self, steps: Sequence[Step]) -> None:
        """Drop the checkpoints of steps that are settled."""
        await self._applier.release(steps)

    def settle(self, applied: Applied) -> None:
        """The request's intent is committed or undone."""
        if applied.journaled:
            self._journal.settle()

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
