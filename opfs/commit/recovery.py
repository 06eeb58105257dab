"""What a crash interrupted, finished or undone at the next start.

For every intent that no block tells the end of, the host is observed first: as desired means the change is
committed now, as before means nothing happened, anything else is undone. What was done becomes an event
with source `recovery`. Uses the commit path's own functions; runs before the mount answers.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from opfs.commit.change import Request
from opfs.commit.host import Applied, Step
from opfs.core.action import StateDiff
from opfs.core.actor import Actor
from opfs.core.document import parse_document
from opfs.errors import OpfsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.commit.chain import Chain
    from opfs.commit.journal import IntendedChange, Intent, Journal
    from opfs.commit.sequencer import Sequencer
    from opfs.core.action import Document
    from opfs.core.names import ElementId

log = logging.getLogger(__name__)


async def recover(chain: Chain, journal: Journal, sequencer: Sequencer) -> int:
    """Settle every open intent; returns how many there were. The journal is empty afterwards."""
    intents = open_intents(chain, journal.load())
    for intent in intents:
        await _settle(intent, sequencer)
    # After this line: every intent is in the chain or without effect; a crash before it leaves settled
    # intents in the journal; repaired by the next start, which finds them committed or without effect.
    journal.reset()
    return len(intents)


def open_intents(chain: Chain, intents: Sequence[Intent]) -> Sequence[Intent]:
    """The intents that the chain does not know the end of, oldest first; pure.

    An intent is settled when its elements' chains have moved on since. Of several open ones of one element
    only the newest can have touched the host last: the earlier were undone before it began.
    """
    newest: dict[ElementId, Intent] = {}
    for intent in intents:
        if all(chain.last_event(item.change.id) == item.prev_event for item in intent.changes):
            for item in intent.changes:
                newest[item.change.id] = intent
    return list({id(intent): intent for intent in newest.values()}.values())


async def _settle(intent: Intent, sequencer: Sequencer) -> None:
    host = sequencer.host
    request = Request(
        changes=tuple(item.change for item in intent.changes),
        actor=Actor(**{**intent.actor, "source": "recovery"}),
        message=intent.message,
    )
    names = ", ".join(str(change.id) for change in request.changes)
    steps: list[Step] = []
    try:
        for item in intent.changes:
            steps.append(await _step(item, sequencer))
        if all([await _is(step, step.desired) for step in steps]):
            applied = Applied(host.outcomes(steps, request), tuple(steps))
            log.warning("%s was applied when opfs stopped: committing it", names)
        elif all([await _is(step, step.before) for step in steps]):
            applied = Applied(steps=tuple(steps))
            log.warning("%s had not begun when opfs stopped: dropping it", names)
        else:
            remains = await host.undo(steps)
            reason = f"interrupted half-way; NOT undone: {'; '.join(remains)}" if remains else "interrupted and undone"
            applied = Applied(tuple(host.failed(step, request, reason) for step in steps), tuple(steps))
            log.warning("%s was %s", names, reason)
    except OpfsError as error:
        log.error("%s cannot be looked at: %s", names, error)
        reason = f"interrupted; what became of it is unknown: {error}"
        applied = Applied(tuple(host.failed(step, request, reason) for step in steps), tuple(steps))
    if applied.outcomes:
        await sequencer.record(request, applied)
    await host.release(steps)


async def _step(item: IntendedChange, sequencer: Sequencer) -> Step:
    change = item.change
    committed = await sequencer.committed_document(change.id)
    desired = None if change.content is None else parse_document(change.content)
    return Step(
        change=change,
        plugin=sequencer.host.plugin(change.id),
        op="delete" if desired is None else "update" if committed is not None else "create",
        document=committed if desired is None else desired,
        before=item.before,
        desired=desired,
        diff=StateDiff(change.id.plugin, item.actions),
        checkpoint=item.checkpoint,
    )


async def _is(step: Step, wanted: Document | None) -> bool:
    return not step.plugin.compare(step.id.element, wanted, await step.observe())
