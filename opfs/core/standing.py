"""Where an element stands: whether its committed document holds on the host, as its events tell; pure.

An element's standing follows from its events alone, one after the other, so that it is the same after every restart.
A plan that consists of one reserved step says that the host was not touched, and why.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.core.event import Event

WAIT, LEAVE = "wait", "observe"
"""The steps that stand in a plan instead of actions: the element waits for others; its mode is `observe`."""

RESERVED_STEPS: Final = frozenset((WAIT, LEAVE))
"""No plugin's action is called so."""

DEPENDENCY, DRIFT, RECOVERY = "dependency", "drift", "recovery"
"""Sources of what opfs does by itself (format.md, field `actor`)."""

OWN_SOURCES: Final = frozenset((DEPENDENCY, DRIFT))
"""Of those, the ones that go on beside the writers, who wait for them."""

DOCUMENT_OPS: Final = frozenset(("create", "update", "delete", "import"))
"""Operations that set the document; all others leave it as it is."""


class Kind(StrEnum):
    """`committed` is the good one: the document holds on the host, as far as anybody has looked."""

    COMMITTED = "committed"
    WAITING = "waiting"
    FAILED = "failed"
    DRIFTED = "drifted"
    OBSERVED = "observed"


UNSETTLED: Final = frozenset((Kind.WAITING, Kind.FAILED, Kind.DRIFTED))
"""The document does not hold on the host."""


@dataclass(frozen=True, slots=True)
class Standing:
    """`detail` is what is waited for, why it failed, or what differs; empty otherwise."""

    kind: Kind = Kind.COMMITTED
    detail: str = ""

    def __str__(self) -> str:
        match self.kind:
            case Kind.WAITING:
                return f"waiting for {self.detail}"
            case Kind.FAILED | Kind.DRIFTED:
                return f"{self.kind}: {self.detail}"
            case _:
                return self.kind.value


IN_FORCE: Final = Standing()

PENDING: Final = "pending"
"""Said of an element whose newest event is in no block yet."""


def waiting_step(waits_for: str) -> dict[str, object]:
    """The plan of an event whose element waits."""
    return {"step": WAIT, "summary": waits_for, "safety": "safe"}


def leaving_step() -> dict[str, object]:
    """The plan of an event that leaves the host alone."""
    return {"step": LEAVE, "summary": "the host is left alone", "safety": "safe"}


def standing_of_plan(plan: Sequence[Mapping[str, Any]]) -> Standing:
    """Where an element stands after an event that gave it its document, or applied it, with that plan."""
    if len(plan) == 1 and plan[0].get("step") == WAIT:
        return Standing(Kind.WAITING, str(plan[0].get("summary", "")))
    if len(plan) == 1 and plan[0].get("step") == LEAVE:
        return Standing(Kind.OBSERVED)
    return IN_FORCE


def standing_after(before: Standing | None, event: Event) -> Standing:
    """Where the element stands after `event`; `before` is None where it had no event.

    A failure of a write leaves the element where it was, since the write was undone and its document is not the
    committed one; a failure of what opfs did by itself is one of the committed document.
    """
    if event.op in DOCUMENT_OPS or event.op == "apply":
        return standing_of_plan(event.plan)
    if event.op == "drift":
        return Standing(Kind.DRIFTED, event.message)
    if event.op == "apply-failed" and event.actor.get("source") in OWN_SOURCES:
        return Standing(Kind.FAILED, event.message)
    return before or IN_FORCE
