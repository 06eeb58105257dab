"""What a change would do, worked out without doing it, and a digest by which it is done exactly or not at all.

Pure: whoever calls has observed and planned. The digest covers what the plan follows from, so that the same one later
means the same actions on the same world; what the schema calls volatile is no part of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opfs.core.canonical import hash_hex
from opfs.errors import Stale

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from opfs.core.action import Action, Document
    from opfs.core.names import ElementId

_PART_DIGITS = 32
"""Of each of the three hashes: 128 bits, which nobody finds a second preimage of."""


@dataclass(frozen=True, slots=True)
class Preview:
    """The plan of one change.

    `op` is `create`, `update`, `delete`, or `apply` where the document is the committed one. `waits_for` names what
    the element would wait for: then it has no actions yet. `is_observed` says that its mode is `observe`, in which
    the host is left alone. `base_event` is the version of the document that the plan starts from.
    """

    id: ElementId
    op: str
    observed: Document | None
    desired: Document | None
    actions: tuple[Action, ...]
    base_event: str | None
    digest: str
    waits_for: tuple[str, ...] = ()
    is_observed: bool = False


def plan_digest(
    observed: Document | None, base_event: str | None, actions: Sequence[Action], schema: Mapping[str, Any]
) -> str:
    """Three hashes with dashes between them: of what is there, of the version it starts from, of what is to be done."""
    parts = (
        None if observed is None else without_volatile(observed, schema),
        base_event,
        [action.to_json() for action in actions],
    )
    return "-".join(hash_hex(_stable_bytes(part))[:_PART_DIGITS] for part in parts)


def digest_of_all(digests: Iterable[str]) -> str:
    """One digest for the plans of several elements, in whatever order."""
    return hash_hex("\n".join(sorted(digests)).encode())


def check_plan(id: ElementId, expected: str, found: str) -> None:
    """Raise Stale, saying what has moved, unless the two digests are the same."""
    if expected == found:
        return
    moved = [
        what
        for what, one, other in zip(
            ("the host has changed", "the document has changed", "the plan is another"),
            expected.split("-"),
            found.split("-"),
            strict=False,
        )
        if one != other
    ]
    raise Stale(
        f"{id} is not what it was when the plan was made: {', '.join(moved) or 'this is no digest of a plan'}",
        hint="make the plan again and look at it",
    )


def without_volatile(document: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The document without what the host changes by itself."""
    rules = schema.get("properties", {})
    kept: dict[str, Any] = {}
    for key, value in document.items():
        rule = rules.get(key)
        rule = rule if isinstance(rule, dict) else {}
        if not rule.get("x-volatile"):
            kept[key] = without_volatile(value, rule) if isinstance(value, dict) else value
    return kept


def _stable_bytes(value: object) -> bytes:
    """The same bytes for the same JSON value within one daemon's life and the next; not a format."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()
