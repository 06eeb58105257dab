"""What the generator knows of a change: the facts that labels follow from, and the host that deeds change. Pure.

A deed is written down before any sentence is made of it, so that what is relevant to a question never depends on how a
change is worded or ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

    from opfs.core.names import ElementId

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """What people call the thing that a change is about: its name, and other words for what it is for.

    `roles` are for questions alone: no document holds them but where its author wrote a description.
    """

    name: str
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that somebody wants done: `document` is what the element shall be, None to delete it.

    `kind` is family.what, e.g. memory.raised; `values` are what a question may name, by slot.
    """

    kind: str
    id: ElementId
    document: Document | None
    subject: Subject
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fact:
    """What is true of one change, in the generator's own terms.

    `kind` is the deed's; `outcome` is done, failed or drift; `why` and `cause` are keys of `reasons`, or empty.
    """

    kind: str
    subject: Subject
    values: Mapping[str, str]
    user: str
    outcome: str = "done"
    why: str = ""
    cause: str = ""

    @property
    def family(self) -> str:
        return self.kind.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Change:
    """One event to be: `new` is what was asked for, also where it failed; `time_ns` counts from the epoch, UTC."""

    seq: int
    id: ElementId
    op: str
    time_ns: int
    old: Document | None
    new: Document | None
    user: str
    command: str
    message: str
    fact: Fact


class Host:
    """The committed documents, by element, and what people call them."""

    def __init__(self, random: Random, breadth: int = 1) -> None:
        self.random = random
        self.breadth = breadth
        """How many of each thing there are; 1 is a small company's host."""
        self.documents: dict[ElementId, Document] = {}
        self.subjects: dict[ElementId, Subject] = {}

    def of(self, plugin: str) -> list[ElementId]:
        """The elements of a plugin that there are, in a fixed order."""
        return sorted(id for id in self.documents if id.plugin == plugin)

    def pick(self, plugin: str, wanted: Callable[[Document], bool] = lambda _: True) -> ElementId | None:
        """One of the plugin's elements whose document is as wanted; None where there is none."""
        found = [id for id in self.of(plugin) if wanted(self.documents[id])]
        return self.random.choice(found) if found else None

    def changed(self, kind: str, id: ElementId, values: Mapping[str, str] | None = None, /, **keys: Any) -> Deed:
        """A deed that sets top-level keys of a document; a key set to None goes."""
        document = {**self.documents[id], **keys}
        document = {key: value for key, value in document.items() if value is not None}
        return Deed(kind, id, document, self.subjects[id], values or {})

    def removed(self, kind: str, id: ElementId, values: Mapping[str, str] | None = None) -> Deed:
        return Deed(kind, id, None, self.subjects[id], values or {})


Doer = Callable[[Host], Deed | None]
"""Thinks of one deed; None where the host has nothing to do it to."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """A doer and how often it comes, beside the others."""

    weight: float
    think: Doer


def choose(random: Random, doers: Sequence[Weighted]) -> Doer:
    return random.choices([doer.think for doer in doers], [doer.weight for doer in doers])[0]
