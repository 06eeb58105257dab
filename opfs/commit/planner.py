"""A change as a plan that people can read: what would be done, and in what the host differs from what is wanted.

Looks at the host and acts on nothing. Trio thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.commit.foreign import guarded
from opfs.core.difference import KeyChange, diff_documents
from opfs.core.overlay import found_value
from opfs.core.planview import PlannedAction, PlanView
from opfs.core.secretfields import mask_secrets
from opfs.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opfs.commit.change import Change, Request
    from opfs.commit.dependencies import Company
    from opfs.commit.preview import Preview
    from opfs.commit.sequencer import Sequencer
    from opfs.core.actor import Actor
    from opfs.core.names import ElementId
    from opfs.ports import Plugin


class Planner:
    """Plans single changes, each as if others that are planned with it had happened, and whole requests."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer

    async def check(self, id: ElementId, content: bytes | None) -> None:
        """Raise InvalidRequest, NotFound or Rejected for what can be told without looking at the host."""
        await self._sequencer.validator.validate(id, content)
        if content is None and self._sequencer.catalog.get(id) is None:
            raise NotFound(f"{id} does not exist")

    async def view(self, change: Change, actor: Actor, company: Company) -> PlanView:
        """The plan of a change; raises what submitting it would raise before anything is done."""
        return self._view(change, await self._sequencer.preview(change, actor, company))

    async def view_all(self, request: Request) -> Sequence[PlanView]:
        """The plan of a request in the order of carrying it out; raises as `view` does."""
        changes = {change.id: change for change in request.changes}
        previews = await self._sequencer.preview_all(request)
        return [self._view(changes[preview.id], preview) for preview in previews]

    def _view(self, change: Change, preview: Preview) -> PlanView:
        sequencer = self._sequencer
        plugin = sequencer.validator.require(change.id.plugin)
        needs = sequencer.dependencies.committed_needs(change.id)
        if change.content is not None:
            declared = sequencer.validator.check(change.id, change.content)
            needs = sequencer.dependencies.needs_of(change.id, declared)
        with guarded(plugin, change.id):  # what it observed and planned may be anything
            return PlanView(
                id=change.id,
                op=preview.op,
                digest=preview.digest,
                changes=() if preview.waits_for else tuple(_changes(preview, plugin)),
                actions=tuple(
                    PlannedAction(sequencer.redact(action.summary), action.safety, action.step)
                    for action in preview.actions
                ),
                needs=needs,
                waits_for=preview.waits_for,
                is_observed=preview.is_observed,
            )


def _changes(preview: Preview, plugin: Plugin) -> Iterator[KeyChange]:
    """From what is there to what is wanted, as the plugin compares: what it leaves alone is no change."""
    observed = None if preview.observed is None else mask_secrets(plugin.schema, preview.observed)
    if preview.desired is None or observed is None:
        yield from diff_documents(observed, preview.desired)
        return
    for difference in plugin.compare(preview.id.element, preview.desired, preview.observed):
        if not difference.pointer:
            yield from diff_documents(observed, preview.desired)
        else:
            yield KeyChange(difference.pointer, found_value(difference, observed), difference.desired)
