"""What writers tried, what they were told, and whether a chain and a host may be what is found afterwards.

The rules are those of the promise: what was acknowledged is there, in order; what failed with an answer is a
failure in the chain and nothing on the host; what got no answer is there as a whole or not at all, and recovery may
have recorded that it was undone. Nothing else is there. Pure; knows no pool.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum

from opfs.core.canonical import hash_hex

APPLY, FAILED = "apply", "apply-failed"
DELETE = "delete"


class Answer(Enum):
    """What a writer was told of an attempt."""

    NONE = "none"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(slots=True)
class Attempt:
    """One change, of one element or of several in one block: the bytes each shall have, None for a delete.

    `number` counts the attempts of one writer, one after the other, from 0.
    """

    writer: str
    number: int
    way: str
    wanted: dict[str, bytes | None]
    answer: Answer = Answer.NONE

    @property
    def key(self) -> tuple[str, int]:
        return self.writer, self.number


@dataclass(frozen=True, slots=True)
class Seen:
    """One event as the chain has it: `content` are the bytes of the document after it, None for a delete."""

    element: str
    op: str
    content: bytes | None
    height: int


@dataclass(slots=True)
class Ledger:
    """All attempts of a run, in the order in which each writer made them."""

    attempts: list[Attempt] = field(default_factory=list)

    def add(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)

    def judge(
        self,
        events: list[Seen],
        begun: set[tuple[str, int]] | None = None,
        answered: set[tuple[str, int]] | None = None,
    ) -> list[str]:
        """What is wrong with a chain of `events`, in words.

        `begun` and `answered` say how far the run had got: what had begun by then, and of that, whose answer had been
        given. None: all of it. An attempt whose answer had not been given may be there or not.
        """
        problems = []
        by_element: defaultdict[str, list[Seen]] = defaultdict(list)
        for event in events:
            # bytes that were there already, written again where the host had not been quite as they say
            before = [earlier for earlier in by_element[event.element] if earlier.op != FAILED][-1:]
            if event.op == APPLY and before and before[0].content == event.content:
                continue
            by_element[event.element].append(event)
        expected: defaultdict[str, list[tuple[Attempt, bool]]] = defaultdict(list)
        for attempt in self.attempts:
            if (begun is None or attempt.key in begun) and attempt.answer is not Answer.REFUSED:
                is_known = answered is None or attempt.key in answered
                for element in attempt.wanted:
                    expected[element].append((attempt, is_known))
        matched: defaultdict[tuple[str, int], set[int | None]] = defaultdict(set)
        for element in sorted(expected.keys() | by_element.keys()):
            problems += _match(element, expected[element], by_element[element], matched)
        for key, heights in matched.items():
            if len(heights) > 1:
                problems.append(f"{key}: its changes are not in one block but in {sorted(map(str, heights))}")
        return problems

    def contents(self) -> dict[str, bytes]:
        """Every document that was tried, by its hash."""
        tried = (content for attempt in self.attempts for content in attempt.wanted.values() if content is not None)
        return {hash_hex(content): content for content in tried}

    def acknowledged(self, answered: set[tuple[str, int]] | None = None) -> int:
        """How many attempts had been answered with success."""
        return sum(a.answer is Answer.DONE and (answered is None or a.key in answered) for a in self.attempts)


def _match(
    element: str,
    expected: list[tuple[Attempt, bool]],
    events: list[Seen],
    matched: dict[tuple[str, int], set[int | None]],
) -> list[str]:
    """Compare one element's events with what was tried, both in order; notes the block of each attempt."""
    # how many events the attempts so far can have used up, each with how many the attempts before it had
    ways: list[dict[int, int]] = [{0: 0}]
    for attempt, is_known in expected:
        is_required = is_known and attempt.answer in (Answer.DONE, Answer.FAILED)
        after = {} if is_required else {used: used for used in ways[-1]}
        after |= {u + 1: u for u in ways[-1] if u < len(events) and _is_of(events[u], attempt, is_known)}
        if not after:
            rest = ", ".join(f"{event.op} in block {event.height}" for event in events[min(ways[-1]) :]) or "nothing"
            return [f"{element}: LOST {attempt.way} {attempt.key}, answered {attempt.answer.value}; there is {rest}"]
        ways.append(after)
    if len(events) not in ways[-1]:
        event = events[max(ways[-1])]
        return [f"{element}: {event.op} in block {event.height} was never asked for, or not then"]
    used = len(events)
    for (attempt, _), way in zip(reversed(expected), reversed(ways), strict=False):
        if way[used] < used and events[used - 1].op != FAILED:
            matched[attempt.key].add(events[used - 1].height)
        elif way[used] == used:
            matched[attempt.key].add(None)
        used = way[used]
    return []


def _is_of(event: Seen, attempt: Attempt, is_known: bool) -> bool:
    """Whether an event is what became of an attempt."""
    is_change = event.op != FAILED and event.content == attempt.wanted[event.element]
    if is_known and attempt.answer is Answer.DONE:
        return is_change
    if is_known and attempt.answer is Answer.FAILED:
        return event.op == FAILED
    return is_change or event.op == FAILED


def final_documents(events: list[Seen]) -> dict[str, bytes]:
    """The documents that a chain of `events` ends with."""
    documents: dict[str, bytes] = {}
    for event in events:
        if event.op == FAILED:
            continue
        if event.content is None:
            documents.pop(event.element, None)
        else:
            documents[event.element] = event.content
    return documents
