"""Have we seen this before? For each refused change, the nearest that was accepted and the nearest that failed.

A refusal is answered at once; this is worked out afterwards, in a task and a worker thread of its own at low priority,
and put into the record of the refusal: `Refusals.tell`. It is looked for with the permissions that the refused writer
had, so it names nothing that he could not find in /search. What would take too long is given up, and so are the oldest
of more than can be worked off: these refusals then stand without.

A refused document is no event, so the index does not have it: it is asked for the sentence that the change would have
got. Where the document cannot be read, or the index cannot tell meanings (no model), the last accepted change of the
same element is the nearest.

Trio thread; the index and the history are read in a worker thread.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from opfs.commit.derive import low_priority
from opfs.core.document import parse_document
from opfs.core.filters import EventFilter
from opfs.core.narrative import sentence
from opfs.core.precedent import Kind, Precedent
from opfs.core.standing import DOCUMENT_OPS
from opfs.errors import (
    AccessDenied,
    ApplyFailed,
    Busy,
    InvalidRequest,
    NotFound,
    OpfsError,
    ReadOnly,
    Rejected,
    SecretWritten,
    Stale,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opfs.commit.refusals import Refusals, Refused
    from opfs.commit.sequencer import Sequencer
    from opfs.core.action import Document
    from opfs.core.names import ElementId
    from opfs.ports import History, Index, IndexedEvent

TIME_LIMIT_S = 20.0
WAIT_LIMIT_S = 2.0
"""Of that, for the index to have what happened last; what it has then has to do."""

QUEUE_LENGTH = 32
FAILURES_COMPARED = 5
FOLLOWING_LOOKED_AT = 200
"""Events of an element after its failure, among which the next accepted change is looked for."""

FAILED: Final = "apply-failed"
_REMOVED: Final = "delete"
_TEXT_LIMIT = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A refused change, and what was known when it was refused."""

    number: int
    id: ElementId
    content: bytes | None
    reason: str
    uid: int
    gids: frozenset[int]
    events: int
    """Only what happened before is a precedent."""
    own_event: str | None
    """The event that the failure itself made."""


class Precedents:
    """`consider` is told of refusals; `run` must be running for anything to come of it."""

    def __init__(
        self,
        index: Index,
        history: History,
        sequencer: Sequencer,
        refusals: Refusals,
        last_event: Callable[[ElementId], str | None],
        groups: Callable[[int, int, int], frozenset[int]],
        wait_indexed: Callable[[], Awaitable[None]],
    ) -> None:
        """`groups` gives the groups of a process by uid, gid and pid; `last_event` the hash of an element's newest.

        `wait_indexed` returns when what happened before can be found, or raises OpfsError.
        """
        self._index = index
        self._history = history
        self._sequencer = sequencer
        self._refusals = refusals
        self._last_event = last_event
        self._groups = groups
        self._wait_indexed = wait_indexed
        self._thread = trio.CapacityLimiter(1)
        self._waiting: deque[_Attempt] = deque()
        self._wake = trio.Event()

    def consider(self, refused: Refused) -> bool:
        """Whether something will be looked for; does not wait."""
        id, error = refused.id, refused.error
        if id is None or not _is_about_the_change(error):
            return False
        uid = refused.refusal.uid
        attempt = _Attempt(
            number=refused.refusal.number,
            id=id,
            content=refused.content,
            reason=error.reason[:_TEXT_LIMIT],
            uid=uid,
            gids=frozenset() if uid == 0 else self._groups(uid, refused.refusal.gid, refused.pid),
            events=self._sequencer.event_count,
            own_event=self._last_event(id) if isinstance(error, ApplyFailed) else None,
        )
        self._waiting.append(attempt)
        if len(self._waiting) > QUEUE_LENGTH:
            self._refusals.tell(self._waiting.popleft().number, ())
        self._wake.set()
        return True

    async def run(self) -> None:
        """Look for what was considered until cancelled, one after the other: the newest first, as somebody may wait."""
        while True:
            if not self._waiting:
                self._wake = trio.Event()
                await self._wake.wait()
            attempt = self._waiting.pop()
            seen: Sequence[Precedent] = ()
            try:
                with trio.move_on_after(TIME_LIMIT_S):
                    await self._wait()
                    old = await self._committed(attempt.id)
                    seen = await trio.to_thread.run_sync(
                        low_priority()(self._look), attempt, old, limiter=self._thread, abandon_on_cancel=True
                    )
            except OpfsError as error:
                log.info("nothing is said of what resembles refusal %d: %s", attempt.number, error)
            except Exception:
                log.exception("looking for what resembles refusal %d", attempt.number)
            self._refusals.tell(attempt.number, seen)

    async def _wait(self) -> None:
        """Who tries again after a failure wants to read of it: its event may be a second old."""
        with trio.move_on_after(WAIT_LIMIT_S), suppress(OpfsError):
            await self._wait_indexed()

    async def _committed(self, id: ElementId) -> Document | None:
        """The document as it is now."""
        if self._sequencer.catalog.get(id) is None:
            return None
        return parse_document(await self._sequencer.read_document(id))

    # --- in the worker thread --------------------------------------------------------------------------

    def _look(self, attempt: _Attempt, old: Document | None) -> Sequence[Precedent]:
        seen = []
        wanted = _document(attempt.content)
        if (accepted := self._accepted(attempt, old, wanted)) is not None:
            seen.append(_precedent(Kind.ACCEPTED, accepted))
        failures = [(failed, self._followed(attempt, failed)) for failed in self._failed(attempt, old, wanted)]
        # of failures that are much alike, one that led somewhere tells more than the last attempt
        for failed, followed in sorted(failures, key=lambda pair: pair[1] is None)[:1]:
            seen.append(_precedent(Kind.FAILED, failed))
            if followed is not None:
                seen.append(_precedent(Kind.FOLLOWED, followed))
        return seen

    def _accepted(self, attempt: _Attempt, old: Document | None, wanted: Document | None) -> IndexedEvent | None:
        id, is_delete = attempt.id, attempt.content is None
        ops = frozenset((_REMOVED,)) if is_delete else DOCUMENT_OPS - {_REMOVED}
        if is_delete or wanted is not None:
            op = _REMOVED if is_delete else "create" if old is None else "update"
            where = EventFilter(plugins=frozenset((id.plugin,)), ops=ops, before_seq=attempt.events)
            try:
                found = self._nearest(sentence(id, op, old, wanted), attempt, where, 1)
            except NotFound:
                found = []  # no model: any change of the element itself is nearest
            if found:
                return found[0]
        where = EventFilter(elements=frozenset((id,)), ops=ops, before_seq=attempt.events)
        hits = self._index.changes(limit=1, uid=attempt.uid, gids=attempt.gids, where=where)
        return hits[0].event if hits else None

    def _failed(self, attempt: _Attempt, old: Document | None, wanted: Document | None) -> Sequence[IndexedEvent]:
        """Failures of the plugin, nearest first."""
        where = EventFilter(
            plugins=frozenset((attempt.id.plugin,)), ops=frozenset((FAILED,)), before_seq=attempt.events
        )
        text = sentence(attempt.id, FAILED, old, wanted, message=attempt.reason)
        try:
            found = self._nearest(text, attempt, where, FAILURES_COMPARED)
        except NotFound:  # no model: the last ones, of whatever kind
            hits = self._index.changes(limit=FAILURES_COMPARED, uid=attempt.uid, gids=attempt.gids, where=where)
            found = [hit.event for hit in hits]
        return [event for event in found if event.event_hash != attempt.own_event]

    def _followed(self, attempt: _Attempt, failed: IndexedEvent) -> IndexedEvent | None:
        """The accepted change of that element which came next."""
        later = self._history.events(failed.id, first_seq=failed.seq + 1, limit=FOLLOWING_LOOKED_AT)
        number = next((event.seq for event in later if event.op in DOCUMENT_OPS), None)
        if number is None or number >= attempt.events:
            return None
        where = EventFilter(elements=frozenset((failed.id,)), before_seq=number + 1)
        hits = self._index.changes(limit=1, uid=attempt.uid, gids=attempt.gids, where=where)
        return hits[0].event if hits and hits[0].event.seq == number else None

    def _nearest(self, text: str, attempt: _Attempt, where: EventFilter, limit: int) -> Sequence[IndexedEvent]:
        text = self._sequencer.redact(text)
        hits = self._index.fused(text, limit=limit, uid=attempt.uid, gids=attempt.gids, where=where)
        return [hit.event for hit in hits]


def _is_about_the_change(error: OpfsError) -> bool:
    """Whether another document, or another host, would have made a difference."""
    if isinstance(error, SecretWritten | AccessDenied | ReadOnly | Busy | Stale):
        return False
    return isinstance(error, InvalidRequest | Rejected | ApplyFailed)


def _document(content: bytes | None) -> Document | None:
    try:
        return None if content is None else parse_document(content)
    except InvalidRequest:
        return None


def _precedent(kind: Kind, event: IndexedEvent) -> Precedent:
    has_document = event.op in DOCUMENT_OPS and event.op != _REMOVED
    path = f"history/{event.id.plugin}/{event.id.element}/{event.height}.json" if has_document else ""
    return Precedent(kind, str(event.id), event.height, event.time, event.op, event.actor, event.summary, path)
