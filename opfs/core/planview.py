"""What a plan would do, for people and for `opfs apply`: differences, actions and their safety; pure.

`/plan/<plugin>/<element>.diff` is the text, `.actions` the JSON of the same view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opfs.core.action import Safety
from opfs.core.difference import ABSENT, KeyChange
from opfs.core.names import ElementId
from opfs.core.printable import printable, show_json, width_of
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_VALUE_SHOWN = 100


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One action as a person reads it."""

    summary: str
    safety: Safety
    step: str


@dataclass(frozen=True, slots=True)
class PlanView:
    """The plan of one element.

    `op` is create, update, delete, or apply where the document is the committed one. `changes` goes from what is
    there (`old`) to what is wanted (`new`). Of each of `needs` one element must be in place before; `waits_for`
    says which are not. `is_observed` says that the host is left alone. `digest` names exactly this plan.
    """

    id: ElementId
    op: str
    digest: str
    changes: tuple[KeyChange, ...] = ()
    actions: tuple[PlannedAction, ...] = ()
    needs: tuple[tuple[ElementId, ...], ...] = ()
    waits_for: tuple[str, ...] = ()
    is_observed: bool = False

    @property
    def safety(self) -> Safety:
        """The worst class among the actions."""
        order = list(Safety)
        return max((action.safety for action in self.actions), key=order.index, default=Safety.SAFE)

    def to_json(self) -> dict[str, Any]:
        """Sides of a change that are not there are left out."""
        return {
            "element": str(self.id),
            "op": self.op,
            "safety": self.safety.value,
            "changes": [
                {
                    "pointer": change.pointer,
                    **({} if change.old is ABSENT else {"found": change.old}),
                    **({} if change.new is ABSENT else {"wanted": change.new}),
                }
                for change in self.changes
            ],
            "actions": [{"summary": a.summary, "safety": a.safety.value, "step": a.step} for a in self.actions],
            "needs": [[str(id) for id in alternatives] for alternatives in self.needs],
            "waits_for": list(self.waits_for),
            "is_observed": self.is_observed,
            "digest": self.digest,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> PlanView:
        """The inverse of `to_json`; raises InvalidRequest for anything else."""
        try:
            return cls(
                id=ElementId.parse(fields["element"]),
                op=str(fields["op"]),
                digest=str(fields["digest"]),
                changes=tuple(
                    KeyChange(str(change["pointer"]), change.get("found", ABSENT), change.get("wanted", ABSENT))
                    for change in fields["changes"]
                ),
                actions=tuple(
                    PlannedAction(str(a["summary"]), Safety(a["safety"]), str(a["step"])) for a in fields["actions"]
                ),
                needs=tuple(tuple(map(ElementId.parse, alternatives)) for alternatives in fields["needs"]),
                waits_for=tuple(map(str, fields["waits_for"])),
                is_observed=bool(fields["is_observed"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidRequest(f"this is no plan: {error!r}", hint="opfs plan makes one") from None


def plan_lines(view: PlanView) -> Iterator[tuple[str, str]]:
    """The text of a plan, line by line, each with its kind: a safety class, `+`, `-`, `~`, or nothing."""
    verdict = view.op if not view.actions else f"{view.op}, {view.safety.value}"
    yield printable(f"{view.id}  {verdict}"), view.safety.value if view.actions else ""
    width = max((width_of(printable(change.pointer)) for change in view.changes), default=0)
    for change in view.changes:
        old, new = (show_json(v, _VALUE_SHOWN) if v is not ABSENT else "" for v in (change.old, change.new))
        if change.old is ABSENT:
            mark, text = "+", new
        elif change.new is ABSENT:
            mark, text = "-", old
        else:
            mark, text = "~", f"{old} → {new}"
        pointer = printable(change.pointer)
        yield f"  {mark} {pointer}{' ' * (width - width_of(pointer))}  {text}", mark
    for number, action in enumerate(view.actions, 1):
        yield f"  {number}. {action.safety.value:<11}  {printable(action.summary)}", action.safety.value
    for needed in view.waits_for:
        yield f"  waits for {printable(needed)}", ""
    if view.is_observed:
        yield "  the host is left alone: the element's mode is observe", ""
    elif not view.actions and not view.waits_for:
        yield "  nothing is to be done: it is so already", ""


def plan_text(view: PlanView) -> str:
    """The text of `.diff`."""
    return "".join(f"{text}\n" for text, _ in plan_lines(view)) + f"  plan {view.digest}\n"
