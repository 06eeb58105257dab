"""A host in memory with a plugin on it: obeys the plugin contract, and misbehaves when told to.

Elements are flat documents of settings; every key that differs is an action of its own, so a plan can fail
half-way. Faults play a backend that refuses, dies half-way, lies, hangs, or cannot undo. Trio thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from opfs.core.action import Action, ApplyResult, Document, Kind, Safety, StateDiff
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed
from opfs.plugins.contract import ContractDefaults, refuse
from opfs.ports import Capabilities, Dependency, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "colour": {"type": "string", "description": "Any word.", "examples": ["red"]},
        "size": {"type": "integer", "minimum": 0, "description": "How large.", "examples": [3]},
        "precious": {"type": "boolean", "description": "Refuses to be deleted."},
        "guarded": {"type": "boolean", "description": "Deleting it needs a confirmation."},
        "after": {"type": "string", "description": "An element that must come first."},
        "either": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Elements of which one must come first.",
        },
    },
}


class MemoryPlugin(ContractDefaults):
    """Plugin `memory`. `host` is the world; `applied` lists the actions done, for tests to look at.

    `refuse_step`, `lie_step` and `hang_step` name an action (`set colour`, `remove`, …) that fails without
    effect, succeeds without effect, or never ends. `hanging` is set when an action hangs.
    """

    name = "memory"
    capabilities = Capabilities(watch=True)

    def __init__(self) -> None:
        self.schema = SCHEMA
        self.version_hash = "00" * 32
        self.apply_timeout_s = 60.0
        self.host: dict[str, dict[str, Any]] = {}
        self.applied: list[str] = []
        self.refuse_steps: set[str] = set()
        self.lie_steps: set[str] = set()
        self.hang_steps: set[str] = set()
        self.hanging = trio.Event()
        self.unavailable: str | None = None
        self.observe_count = 0
        self.sighted, self._sightings = trio.open_memory_channel[Sighting](100)

    def why_unavailable(self) -> str | None:
        return self.unavailable

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        await trio.lowlevel.checkpoint()
        self.observe_count += 1
        return {name: dict(found) for name, found in self.host.items() if elements is None or name in elements}

    def check(self, element: str, desired: Document) -> None:
        if desired.get("colour") == "invisible":
            refuse("/colour", "nobody could see that", "choose a visible colour")

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        if desired is None:
            if current is None:
                return StateDiff(self.name)
            safety = Safety.DESTRUCTIVE if current.get("guarded") else Safety.SAFE
            return StateDiff(self.name, (Action(Kind.DELETE, element, "remove", f"remove {element}", safety),))
        actions = []
        if current is None:
            actions.append(Action(Kind.CREATE, element, "add", f"add {element}"))
        for key in sorted({*(current or {}), *desired}):
            if (current or {}).get(key) != desired.get(key):
                text = f"set {key} of {element}"
                step, value = f"set {key}", {"key": key, "value": desired.get(key)}
                actions.append(Action(Kind.MODIFY, element, step, text, Safety.SAFE, (key,), value))
        return StateDiff(self.name, tuple(actions))

    async def apply(self, action: Action) -> ApplyResult:
        await trio.lowlevel.checkpoint()
        if action.step in self.refuse_steps:
            raise ApplyFailed(f"the backend refuses to {action.step}")
        if action.step in self.hang_steps:
            self.hanging.set()
            await trio.sleep_forever()
        if action.step not in self.lie_steps:
            self._do(action)
        self.applied.append(action.summary)
        return ApplyResult(action, f"did {action.summary}")

    def _do(self, action: Action) -> None:
        if action.kind is Kind.DELETE:
            self.host.pop(action.element, None)
        elif action.kind is Kind.CREATE:
            self.host.setdefault(action.element, {})
        elif action.details["value"] is None:
            self.host[action.element].pop(action.details["key"], None)
        else:
            self.host[action.element][action.details["key"]] = action.details["value"]

    def depends_on(self, element: str, desired: Document) -> Sequence[Dependency]:
        needs = [(desired["after"],)] if "after" in desired else []
        needs += [tuple(desired["either"])] if "either" in desired else []
        return [Dependency(tuple(ElementId(self.name, name) for name in need)) for need in needs]

    async def watch(self, report: Callable[[Sighting], None]) -> None:
        """Hand what a test sends to `sightings` on to whoever listens."""
        async for sighting in self._sightings.clone():
            report(sighting)

    def is_protected(self, element: str, current: Document) -> bool:
        return bool(current.get("precious"))
