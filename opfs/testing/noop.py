"""A plugin without a backend: it accepts any object, applies at once and remembers it in memory.

What it costs is nothing, so a benchmark with it shows opfs' own share. Single-threaded; never blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from blake3 import blake3

from opfs.core.action import Action, ApplyResult, Document, Kind, StateDiff
from opfs.errors import ApplyFailed
from opfs.plugins.contract import ContractDefaults
from opfs.ports import Capabilities

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class NoopPlugin(ContractDefaults):
    """Elements that are whatever was last asked for."""

    name: ClassVar[str] = "noop"
    capabilities: ClassVar[Capabilities] = Capabilities(supports_verification=False, atomic_operations=True)

    def __init__(self) -> None:
        self.schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "noop",
            "description": "Anything; nothing is done with it.",
            "type": "object",
            "examples": [{"answer": 42}],
        }
        self.version_hash = blake3(b"opfs noop 1").hexdigest()
        self.apply_timeout_s = 10.0
        self._elements: dict[str, Document] = {}

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        del desired
        if elements is None:
            return dict(self._elements)
        return {element: self._elements[element] for element in elements if element in self._elements}

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        if current == desired:
            return StateDiff(self.name)
        if desired is None:
            return StateDiff(self.name, (Action(Kind.DELETE, element, "forget", f"forget {element}"),))
        kind = Kind.CREATE if current is None else Kind.MODIFY
        before = current or {}
        keys = tuple(key for key in {**before, **desired} if before.get(key) != desired.get(key))
        details = {"document": desired}
        return StateDiff(self.name, (Action(kind, element, "set", f"set {element}", keys=keys, details=details),))

    async def apply(self, action: Action) -> ApplyResult:
        if action.step == "forget":
            self._elements.pop(action.element, None)
            return ApplyResult(action, f"forgot {action.element}")
        if action.step != "set":
            raise ApplyFailed(f"noop has no step {action.step!r}")
        self._elements[action.element] = action.details["document"]
        return ApplyResult(action, f"set {action.element}")
