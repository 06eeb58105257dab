"""A plugin whose world is two files per element, so that a crash can catch it half-way: for crash tests.

An element is in place when both files, left and right, hold the same document. They lie in the plugin's own
directory in the pool, so a power cut takes host and chain at the same moment. A document says how its own apply
fails: `{"fail": "before"}` does nothing, `{"fail": "between"}` stops after the first file.

Every change of a file is durable before the next begins. Blocking calls run in worker threads; concurrent calls
are of distinct elements.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, ClassVar, Self

import trio
from blake3 import blake3

from opfs.core.action import Action, ApplyResult, Document, Kind, StateDiff
from opfs.errors import ApplyFailed
from opfs.plugins.contract import ContractDefaults
from opfs.ports import Capabilities

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from opfs.plugins.contract import PluginContext

SIDES = ("left", "right")


class ShelfPlugin(ContractDefaults):
    """Elements on a shelf."""

    name: ClassVar[str] = "shelf"
    capabilities: ClassVar[Capabilities] = Capabilities()

    def __init__(self, directory: Path) -> None:
        self.schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "shelf",
            "description": "Any object; kept in two files.",
            "type": "object",
            "properties": {"fail": {"description": "How its apply fails.", "enum": ["before", "between"]}},
            "examples": [{"answer": 42}],
        }
        self.version_hash = blake3(b"opfs shelf 1").hexdigest()
        self.apply_timeout_s = 30.0
        self._directory = directory

    @classmethod
    def from_context(cls, context: PluginContext) -> Self:
        return cls(context.state_dir)

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        del desired
        return await trio.to_thread.run_sync(look, self._directory, elements)

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        """One action for each side that is not as desired, left first."""
        actions = []
        for side in SIDES:
            there = _side(current, side)
            if there == desired:
                continue
            if desired is None:
                actions.append(Action(Kind.DELETE, element, f"remove {side}", f"empty the {side} of {element}"))
                continue
            kind = Kind.CREATE if there is None else Kind.MODIFY
            details = {"document": desired}
            text = f"put {element} on the {side}"
            actions.append(Action(kind, element, f"put {side}", text, keys=tuple(desired), details=details))
        return StateDiff(self.name, tuple(actions))

    async def apply(self, action: Action) -> ApplyResult:
        what, _, side = action.step.partition(" ")
        path = self._directory / f"{action.element}.{side}"
        if what == "remove":
            await trio.to_thread.run_sync(_remove, path)
            return ApplyResult(action, f"emptied the {side} of {action.element}")
        document = action.details["document"]
        if document.get("fail") == {"left": "before", "right": "between"}[side]:
            raise ApplyFailed(f"the shelf has no room on the {side} for {action.element}")
        await trio.to_thread.run_sync(_put, path, json.dumps(document).encode())
        return ApplyResult(action, f"put {action.element} on the {side}")


def look(directory: Path, elements: Collection[str] | None = None) -> dict[str, Document]:
    """What is on the shelf: documents, or `{"torn": {side: document}}` where the sides differ. Blocking."""
    found: dict[str, dict[str, Document]] = {}
    names = os.listdir(directory) if directory.is_dir() else []
    wanted = None if elements is None else set(elements)
    for name in names:
        element, _, side = name.rpartition(".")
        if side in SIDES and (wanted is None or element in wanted):
            found.setdefault(element, {})[side] = json.loads((directory / name).read_bytes())
    shelf: dict[str, Document] = {}
    for element, sides in found.items():
        left, right = (sides.get(side) for side in SIDES)
        shelf[element] = left if left == right and left is not None else {"torn": sides}
    return shelf


def _side(document: Document | None, side: str) -> Document | None:
    if document is None or "torn" not in document:
        return document
    there: Document | None = document["torn"].get(side)
    return there


def _put(path: Path, content: bytes) -> None:
    """Replace a file in one step, durably."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync(path.parent)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
