"""A request as steps: its changes put in order, observed, planned, and held to the rules.

Looks at the host and acts on nothing. Runs on the trio thread, for many requests at once.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from opfs.commit.dependencies import Company, Dependencies
from opfs.commit.foreign import calling
from opfs.commit.preview import Preview, check_plan, plan_digest
from opfs.commit.step import MANY, Step, observe_element
from opfs.commit.timings import OBSERVE
from opfs.core.action import Action, StateDiff
from opfs.core.names import ElementId
from opfs.core.standing import LEAVE, RESERVED_STEPS, WAIT, leaving_step, waiting_step
from opfs.errors import OpfsError, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opfs.commit.catalog import Catalog
    from opfs.commit.change import Request
    from opfs.commit.policy import Policy
    from opfs.commit.step import Want
    from opfs.commit.timings import Timings
    from opfs.core.action import Document
    from opfs.ports import Plugin

log = logging.getLogger(__name__)


class StepPlanner:
    """Works out what requests would do to the host."""

    def __init__(
        self,
        require: Callable[[str], Plugin],
        catalog: Catalog,
        policy: Policy,
        dependencies: Dependencies,
        timings: Timings,
    ) -> None:
        self._require = require
        self._catalog = catalog
        self._policy = policy
        self._dependencies = dependencies
        self._timings = timings

    async def plan_all(self, request: Request, wants: Sequence[Want]) -> list[Step]:
        """Every change as a step, needed ones first, held to all rules but those of confirming."""
        steps: list[Step] = []
        gone = {want.id for want in wants if want.desired is None}
        ready: set[ElementId] = set()
        company = Company(ready, gone, needs={want.id: want.needs for want in wants if want.desired is not None})
        ordered = self._ordered(wants)
        seen = await self._observe_together(ordered)
        for want in ordered:
            self._policy.check_base(want.change)
            step = await self.plan(want, request, company, seen)
            await self._check(want, step, request, company)
            if step.held is None and step.op != "delete":
                ready.add(step.id)
            steps.append(step)
        return steps

    async def plan(
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
        entry = self._catalog.get(id)
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
                    step.before = seen[id] if id in seen else await observe_element(plugin, id, document)
                step.diff = plugin.plan(id.element, step.before, desired)
                _check_steps(step.diff)
        return step

    def preview_of(self, step: Step) -> Preview:
        """The step as people are shown it."""
        entry = self._catalog.get(step.id)
        unchanged = entry is not None and entry.holds(step.change.content)
        step_name = step.held["step"] if step.held else ""
        return Preview(
            id=step.id,
            op="apply" if unchanged else step.op,
            observed=step.before,
            desired=step.desired,
            actions=step.diff.actions,
            base_event=entry.last_event if entry else None,
            digest=self.digest(step),
            waits_for=tuple(step.held["summary"].split(", ")) if step.held and step_name == WAIT else (),
            is_observed=step_name == LEAVE,
        )

    def digest(self, step: Step) -> str:
        """What the step follows from, as `preview.plan_digest` has it."""
        entry = self._catalog.get(step.id)
        return plan_digest(step.before, entry.last_event if entry else None, step.diff.actions, step.plugin.schema)

    def _ordered(self, wants: Sequence[Want]) -> list[Want]:
        by_id = {want.id: want for want in wants}
        writes = {want.id: want.needs for want in wants if want.desired is not None}
        deletes = {want.id for want in wants if want.desired is None}
        return [by_id[id] for id in self._dependencies.in_order(list(by_id), writes, deletes)]

    async def _observe_together(self, wants: Sequence[Want]) -> Mapping[ElementId, Document | None]:
        """What is there of many elements, asked once for each plugin; empty where that has to be asked one by one."""
        if len(wants) < MANY:
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

    async def _check(self, want: Want, step: Step, request: Request, company: Company) -> None:
        """What policy and the writer's own conditions say of a plan."""
        if want.change.expected_plan is not None:
            check_plan(want.id, want.change.expected_plan, self.digest(step))
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


def _check_steps(diff: StateDiff) -> None:
    """Hold a plan to the contract. An event says by one of two names that nothing was done: no action has them."""
    for action in diff.actions:
        if not isinstance(action, Action):
            raise TypeError(f"a plan has {action!r}")
        if action.step in RESERVED_STEPS:
            raise ValueError(f"a plan has the step {action.step!r}, which is opfs' own")
        f"{action.step}{action.summary}".encode()  # half a surrogate pair cannot be recorded
