"""What a crash interrupted, finished or undone at the next start; what was acknowledged and is in no block, in one.

An acknowledged event is a fact that somebody was told: it becomes part of the chain as it is, whatever the host looks
like by now, and if that differs, it is drift. For every intent that no event tells the end of, the host is observed
first: as desired means the change is committed now, as before means nothing happened, anything else is undone. What
was done becomes an event with source `recovery`. Uses the commit path's own functions; runs before the mount answers.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from opfs.commit.change import Request
from opfs.commit.foreign import calling, differences_of
from opfs.commit.journaled import AcknowledgedBatch, Intent, NewAttributes
from opfs.commit.step import Applied, Step
from opfs.core.action import StateDiff
from opfs.core.actor import Actor
from opfs.core.document import parse_document
from opfs.core.meta import split_meta
from opfs.errors import NoSpace, OpfsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.commit.chain import Chain
    from opfs.commit.journal import Journal
    from opfs.commit.journaled import Acknowledged, IntendedChange, Record
    from opfs.commit.sequencer import Sequencer
    from opfs.core.action import Document
    from opfs.core.names import ElementId

log = logging.getLogger(__name__)

SETTLED_AT_ONCE = 64


async def recover(chain: Chain, journal: Journal, sequencer: Sequencer) -> int:
    """Settle every open intent; returns how many there were. Raises nothing: what it cannot do stops writing.

    The journal is empty afterwards, unless the pool is full: then the next start looks at it again, and what is
    acknowledged stays pending.
    """
    try:
        records = journal.load()
        await _resume(pending_events(chain, records), sequencer)
        intents = open_intents(chain, [record for record in records if isinstance(record, Intent)])
        is_settled = await _settle_all(intents, sequencer)
        # After this line: every intent is in the chain or without effect, every event in a block; a crash here leaves
        # them in the journal; repaired by the next start, which finds them committed or without effect.
        if is_settled and not chain.pending:
            journal.reset()
    except NoSpace as error:
        log.warning("settled intents stay in the journal until the next start: %s", error)
        return 0
    except OpfsError as error:
        sequencer.failsafe.enter(f"what was interrupted could not be settled: {error}")
        return 0
    return len(intents)


def pending_events(chain: Chain, records: Sequence[Record]) -> Sequence[Acknowledged]:
    """The acknowledged events that no block has, oldest first, with the newest attributes of what they set; pure."""
    found: list[Acknowledged] = []
    for record in records:
        match record:
            case AcknowledgedBatch():
                found += [each for each in record.events if each.event.seq >= chain.end_seq]
            case NewAttributes():
                found = [_with_attributes(each, record) for each in found]
    return found


def _with_attributes(acknowledged: Acknowledged, record: NewAttributes) -> Acknowledged:
    if acknowledged.event.id != record.id or acknowledged.content is None:
        return acknowledged
    return replace(acknowledged, attributes=record.attributes)


async def _resume(acknowledged: Sequence[Acknowledged], sequencer: Sequencer) -> None:
    """Make them pending again, and a block of them; where the pool is full, they stay pending."""
    if not acknowledged:
        return
    await sequencer.resume(acknowledged)
    log.warning("%d events were acknowledged, and in no block, when opfs stopped", len(acknowledged))
    try:
        await sequencer.seal()
    except NoSpace as error:
        log.error("no block can be made of them yet: %s", error)


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


async def _settle_all(intents: Sequence[Intent], sequencer: Sequencer) -> bool:
    """Settle intents, and say whether all of that is on record; raises what `_settle` raises.

    Side by side, so that their events share blocks; where two have an element in common, one after the other.
    """
    elements = [item.change.id for intent in intents for item in intent.changes]
    if len(set(elements)) < len(elements):
        return all([await _settle(intent, sequencer) for intent in intents])
    settled: list[bool] = []
    errors: list[OpfsError] = []

    async def settle(intent: Intent) -> None:
        try:
            async with limit:
                settled.append(await _settle(intent, sequencer))
        except OpfsError as error:
            errors.append(error)

    limit = trio.CapacityLimiter(SETTLED_AT_ONCE)
    async with trio.open_nursery() as nursery:
        for intent in intents:
            nursery.start_soon(settle, intent)
    if errors:
        raise errors[0]
    return all(settled)


async def _settle(intent: Intent, sequencer: Sequencer) -> bool:
    """Finish or undo one intent; whether that is on record. Raises what writing the record may raise, but NoSpace."""
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
        acting = [step for step in steps if step.held is None]
        if all([await _is(step, step.desired) for step in acting]):
            applied = Applied(host.outcomes(steps, request), tuple(steps))
            log.warning("%s was applied when opfs stopped: committing it", names)
        elif all([await _is(step, step.before) for step in acting]):
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
    try:
        if applied.outcomes:
            await sequencer.record(request, applied)
    except NoSpace as error:
        # Nobody was told that the change was made, so on a full pool it is not: the host is left as it was.
        remains = await host.undo(steps)
        log.error("%s cannot be recorded: %s; NOT undone: %s", names, error, "; ".join(remains) or "nothing")
        return not remains
    await host.release(steps)
    return True


async def _step(item: IntendedChange, sequencer: Sequencer) -> Step:
    change = item.change
    declared = await sequencer.documents.declared(change.id)
    committed = declared.document if declared is not None else None
    desired = None
    if change.content is not None:
        desired = split_meta(parse_document(change.content), change.content).document
    return Step(
        change=change,
        plugin=sequencer.validator.require(change.id.plugin),
        op="delete" if desired is None else "update" if committed is not None else "create",
        document=committed if desired is None else desired,
        before=item.before,
        desired=desired,
        diff=StateDiff(change.id.plugin, item.actions),
        checkpoint=item.checkpoint,
        held=item.held,
    )


async def _is(step: Step, wanted: Document | None) -> bool:
    async with calling(step.plugin, step.id):
        return not differences_of(step.plugin, step.id.element, wanted, await step.observe())
