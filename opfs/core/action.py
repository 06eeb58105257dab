"""What a plugin intends to do: actions, their safety, and what came of them; pure.

The vocabulary is the plugin contract's (plugins.md); `StateDiff`, `ApplyResult` and `Checkpoint` keep the
names of the original proposal (heritage.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from opfs.core.printable import show_json

_SHOWN = 200

Document = Mapping[str, Any]
"""A parsed desired-state or observed-state document of one element, in the plugin's schema's shape."""


class Safety(StrEnum):
    """What an action may cost the user. `DESTRUCTIVE` needs a confirmation."""

    SAFE = "safe"
    DISRUPTIVE = "disruptive"
    DESTRUCTIVE = "destructive"


class Kind(StrEnum):
    """What an action does to the element."""

    CREATE = "create"
    MODIFY = "modify"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Action:
    """One step of a plan, complete in itself: `apply` gets nothing else.

    `step` is the plugin's own verb (e.g. `set-memory`), `summary` one line for a person, `keys` the changed
    top-level keys, `details` JSON-only arguments of the step. Actions are journaled and recorded in events.
    """

    kind: Kind
    element: str
    step: str
    summary: str
    safety: Safety = Safety.SAFE
    keys: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The whole action, as the intent journal keeps it."""
        return {
            "kind": self.kind.value,
            "element": self.element,
            "step": self.step,
            "summary": self.summary,
            "safety": self.safety.value,
            "keys": list(self.keys),
            "details": dict(self.details),
        }

    def to_event(self) -> dict[str, object]:
        """The action as an event's `plan` lists it: no details, which may be large or secret."""
        return {"step": self.step, "summary": self.summary, "safety": self.safety.value}


@dataclass(frozen=True, slots=True)
class StateDiff:
    """The ordered actions that take one element from `current` to desired; empty if nothing is to do."""

    plugin: str
    actions: tuple[Action, ...] = ()

    @property
    def safety(self) -> Safety:
        """The worst class among the actions."""
        order = list(Safety)
        return max((action.safety for action in self.actions), key=order.index, default=Safety.SAFE)


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """What one action did: one line for a person, as done (not as planned)."""

    action: Action
    done: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A backend's own restore point for one element, taken before its actions."""

    id: str
    plugin: str
    element: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """One key in which the observed state is not the desired one."""

    pointer: str
    desired: Any
    observed: Any

    def __str__(self) -> str:
        return f"{self.pointer or '/'}: wanted {_shown(self.desired)}, found {_shown(self.observed)}"


def _shown(value: Any) -> str:
    """A value in one line; of a long one, as the text of a file, its beginning."""
    return "nothing" if value is None else show_json(value, _SHOWN)
