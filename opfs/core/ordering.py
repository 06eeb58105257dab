"""In which order elements that need each other can be brought about, and that some cannot; pure.

A need is a set of alternatives, any of which will do. What is mentioned and not declared may be provided by the host,
so only declared elements can stand in each other's way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opfs.core.names import ElementId

Need = Sequence["ElementId"]
NeedsOf = Callable[["ElementId"], "Sequence[Need] | None"]
"""What a declared element needs, all of it; None where the element is not declared."""


def find_cycle(start: ElementId, needs_of: NeedsOf) -> tuple[ElementId, ...] | None:
    """A circle of elements that keeps `start` from ever being in place, its first one again at the end; else None.

    `start` itself need not be on the circle. An alternative that is not declared breaks it, and so does one that can
    be brought about.
    """
    declared = _reachable(start, needs_of)
    possible = _possible(declared)
    if start in possible:
        return None
    path: dict[ElementId, None] = {}
    id = start
    while id not in path:
        path[id] = None
        unmet = next(need for need in declared[id] if not _can_be_met(need, declared, possible))
        id = next(alternative for alternative in unmet if alternative in declared)
    circle = list(path)
    return (*circle[circle.index(id) :], id)


def in_order(ids: Sequence[ElementId], needs_of: NeedsOf) -> list[ElementId]:
    """`ids` so that each comes after those of them that it needs; otherwise as they are.

    Where they need each other in a circle, the order given stands for those on it.
    """
    among = set(ids)
    ordered: dict[ElementId, None] = {}
    for first in ids:
        stack: list[tuple[ElementId, list[ElementId]]] = [(first, _needed_among(first, among, needs_of))]
        entered = {first}
        while stack and first not in ordered:
            id, needed = stack[-1]
            if needed:
                other = needed.pop(0)
                if other not in ordered and other not in entered:
                    entered.add(other)
                    stack.append((other, _needed_among(other, among, needs_of)))
            else:
                ordered[id] = None
                stack.pop()
    return list(ordered)


def _needed_among(id: ElementId, among: set[ElementId], needs_of: NeedsOf) -> list[ElementId]:
    return [other for need in needs_of(id) or () for other in need if other in among and other != id]


def _reachable(start: ElementId, needs_of: NeedsOf) -> dict[ElementId, Sequence[Need]]:
    """Every declared element that `start` may need, with what it needs."""
    found: dict[ElementId, Sequence[Need]] = {}
    pending = [start]
    while pending:
        id = pending.pop()
        if id in found:
            continue
        needs = needs_of(id)
        if needs is not None:
            found[id] = needs
            pending += [alternative for need in needs for alternative in need]
    return found


def _possible(declared: Mapping[ElementId, Sequence[Need]]) -> set[ElementId]:
    """Those that can be brought about one after the other; each is looked at again only where that may help."""
    users: dict[ElementId, list[ElementId]] = {}
    for id, needs in declared.items():
        for need in needs:
            for alternative in need:
                users.setdefault(alternative, []).append(id)
    possible: set[ElementId] = set()
    pending = list(declared)
    while pending:
        id = pending.pop()
        if id not in possible and all(_can_be_met(need, declared, possible) for need in declared[id]):
            possible.add(id)
            pending += users.get(id, ())
    return possible


def _can_be_met(need: Need, declared: Mapping[ElementId, Sequence[Need]], possible: set[ElementId]) -> bool:
    return not need or any(alternative not in declared or alternative in possible for alternative in need)
