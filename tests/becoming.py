"""A plugin asked for one element as the daemon asks it, without policy, journal or blocks; for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opfs.core.action import StateDiff
    from opfs.ports import Plugin


async def observed(plugin: Plugin, element: str, desired: dict[str, Any] | None = None) -> Any:
    """What is there of an element, None if nothing; `desired` tells the plugin where to look."""
    hints = None if desired is None else {element: desired}
    return (await plugin.observe([element], desired=hints)).get(element)


async def become(plugin: Plugin, element: str, desired: dict[str, Any] | None) -> StateDiff:
    """Bring an element to where it is desired, and find it there; returns the plan."""
    if desired is not None:
        plugin.check(element, desired)
    diff = plugin.plan(element, await observed(plugin, element, desired), desired)
    for action in diff.actions:
        await plugin.apply(action)
    assert not plugin.compare(element, desired, await observed(plugin, element, desired))
    return diff
