"""Questions with their answers: what is relevant follows from the facts of the changes, never from words or ranks.

A question asks for a kind of deed and names slots: the thing, a person, values. Of a change it is relevant
  3  that it is that deed, with every slot as named, and done (for a question about a failure: failed),
  2  that it is, but the attempt failed,
  1  that it is of the same family (memory.lowered for memory.raised) and about the same thing, or, where the question
     names no thing, has the same values; or the deed done where a failure is asked for,
  0  otherwise.
Questions with more than `MOST_ANSWERS` answers of grade 3 tell rankings apart badly and are left out. Pure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from string import Formatter
from typing import TYPE_CHECKING

from retrieval.phrases import DRIFT, FAILURE, NUMBER, PHRASES, TYPO, WHY
from retrieval.reasons import CAUSES, WHYS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from retrieval.facts import Change, Fact

MOST_ANSWERS = 10
PER_PHRASE = 2
TYPO_EVERY = 5
TICKETS = 8
_THINGS = frozenset(("name", "role"))


@dataclass(frozen=True, slots=True)
class Question:
    """`grades` are those of the changes by seq, those of 0 left out; `group` decides on the half it belongs to."""

    text: str
    category: str
    group: str
    grades: Mapping[int, int]

    @property
    def is_dev(self) -> bool:
        """Whether it may be tuned on. All questions of a group fall on one side, so none has a twin on the other."""
        return hashlib.sha256(self.group.encode()).digest()[0] % 2 == 0


def generated(changes: Sequence[Change], seed: int = 1) -> list[Question]:
    """The questions about a life, in a fixed order."""
    random = Random(seed)
    found = [*_about_deeds(changes, random), *_about_reasons(changes), *_about_tickets(changes)]
    found = [question for question in found if list(question.grades.values()).count(3) <= MOST_ANSWERS]
    distinct = list({question.text.lower(): question for question in found}.values())
    return [*distinct, *_misspelt(distinct, random)]


# --- deeds -------------------------------------------------------------------------------------------------


def _about_deeds(changes: Sequence[Change], random: Random) -> Iterator[Question]:
    for kind, category, phrase in PHRASES:
        slots = _slots(phrase)
        wanted = {FAILURE: "failed", DRIFT: "drift"}.get(category, "done")
        targets = [change for change in changes if change.fact.kind == kind and change.fact.outcome == wanted]
        targets = [change for change in targets if slots <= _known(change.fact)]
        for change in random.sample(targets, min(PER_PHRASE, len(targets))):
            said = {slot: _say(change.fact, slot, random) for slot in slots}
            grades = {
                other.seq: grade
                for other in changes
                if (grade := _grade(other.fact, change.fact, slots, wanted, other, change))
            }
            yield Question(phrase.format(**said), category, kind.partition(".")[0], grades)


@cache
def _slots(phrase: str) -> frozenset[str]:
    return frozenset(slot for _, slot, _, _ in Formatter().parse(phrase) if slot)


def _known(fact: Fact) -> set[str]:
    """The slots that can be named of a change."""
    known = {"name", *fact.values}
    return known | ({"user"} if fact.user else set()) | ({"role"} if fact.subject.roles else set())


def _say(fact: Fact, slot: str, random: Random) -> str:
    if slot == "role":
        return random.choice(fact.subject.roles)
    return fact.subject.name if slot == "name" else fact.user if slot == "user" else fact.values[slot]


def _grade(fact: Fact, asked: Fact, slots: frozenset[str], wanted: str, other: Change, target: Change) -> int:
    names_thing = bool(slots & _THINGS)
    is_thing = other.id == target.id
    same_values = all(fact.values.get(slot) == asked.values[slot] for slot in slots if slot in asked.values)
    same_user = "user" not in slots or fact.user == asked.user
    if fact.kind == asked.kind and same_values and same_user and (is_thing or not names_thing):
        if fact.outcome == wanted:
            return 3
        return 2 if wanted == "done" else 1
    if fact.family != asked.family or fact.outcome == "drift":
        return 0
    return 1 if (is_thing if names_thing else same_values and slots) else 0


# --- reasons -----------------------------------------------------------------------------------------------


def _about_reasons(changes: Sequence[Change]) -> Iterator[Question]:
    """Why something was done, and what it failed of: by the reason's key, alone and together with a thing."""
    for reason in WHYS:
        having = {change.seq: 3 for change in changes if change.fact.why == reason.key}
        if having:
            yield from (Question(text, WHY, f"why {reason.key}", having) for text in reason.questions)
        yield from _with_thing(changes, reason.key, reason.questions, "why", WHY)
    for cause in CAUSES:
        having = {change.seq: 3 for change in changes if change.fact.cause == cause.key}
        if having:
            yield from (Question(text, FAILURE, f"cause {cause.key}", having) for text in cause.questions)
        yield from _with_thing(changes, cause.key, cause.questions, "cause", FAILURE)


def _with_thing(
    changes: Sequence[Change], key: str, questions: Sequence[str], aspect: str, category: str
) -> Iterator[Question]:
    """The first few things that it is true of, each asked for by its name; the same reason elsewhere counts 1."""
    having = [change for change in changes if getattr(change.fact, aspect) == key]
    things = list(dict.fromkeys(change.id for change in having))
    for number, id in enumerate(things[: PER_PHRASE + 1] if questions else ()):
        name = next(change.fact.subject.name for change in having if change.id == id)
        grades = {change.seq: 3 if change.id == id else 1 for change in having}
        yield Question(f"{name}: {questions[number % len(questions)]}", category, f"{aspect} {key}", grades)


def _about_tickets(changes: Sequence[Change]) -> Iterator[Question]:
    """The first few tickets, by number: nothing but the number tells one from another."""
    tickets = dict.fromkeys(change.fact.values["ticket"] for change in changes if "ticket" in change.fact.values)
    for ticket in list(tickets)[:TICKETS]:
        grades = {change.seq: 3 for change in changes if change.fact.values.get("ticket") == ticket}
        yield Question(f"ticket {ticket}", NUMBER, f"ticket {ticket}", grades)


# --- typing errors -----------------------------------------------------------------------------------------


def _misspelt(questions: Sequence[Question], random: Random) -> Iterator[Question]:
    """Every few questions once more, with one of its longer words mistyped."""
    for question in questions[::TYPO_EVERY]:
        words = question.text.split()
        long = [place for place, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
        if long:
            place = random.choice(long)
            words[place] = mistype(words[place], random)
            yield replace(question, text=" ".join(words), category=TYPO)


def mistype(word: str, random: Random) -> str:
    """`word` with two letters swapped, one missing, one doubled or one wrong; the first letter stays."""
    at = random.randrange(1, len(word) - 1)
    match random.randrange(4):
        case 0:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        case 1:
            return word[:at] + word[at + 1 :]
        case 2:
            return word[:at] + word[at] + word[at:]
        case _:
            return word[:at] + random.choice("etaoinsrhl") + word[at + 1 :]
