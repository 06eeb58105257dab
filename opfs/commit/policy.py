"""What may be done and what may not: the writer's base, protection, confirmations, dependents, modes.

Decides from the chain, the confirmations and the configuration, and never looks at the host. Trio thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.commit.foreign import guarded
from opfs.core.action import Safety
from opfs.core.meta import Mode
from opfs.core.rules import DEFAULT_RULES
from opfs.errors import NotFound, Rejected, Stale

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from opfs.commit.catalog import Catalog
    from opfs.commit.change import Change
    from opfs.commit.confirmations import Confirmations
    from opfs.core.action import StateDiff
    from opfs.core.meta import Declared
    from opfs.core.names import ElementId
    from opfs.core.rules import PluginRules
    from opfs.ports import Plugin

_SHOWN = 5


class Policy:
    """Raises Rejected, Stale or NotFound; what it lets pass may be done."""

    def __init__(self, catalog: Catalog, confirmations: Confirmations, rules: Mapping[str, PluginRules]) -> None:
        self._catalog = catalog
        self._confirmations = confirmations
        self._rules = rules

    def rules(self, plugin: str) -> PluginRules:
        """What the configuration says of a plugin."""
        return self._rules.get(plugin, DEFAULT_RULES)

    def is_observed(self, id: ElementId, declared: Declared | None) -> bool:
        """Whether the host is left alone: as the document says, else as the plugin is configured."""
        mode = declared.meta.mode if declared is not None else None
        return (mode or self.rules(id.plugin).mode) is Mode.OBSERVE

    def check_base(self, change: Change) -> None:
        """The element exists, where it is to be deleted, and is the version that the writer started from."""
        entry = self._catalog.get(change.id)
        if change.content is None and entry is None:
            raise NotFound(f"{change.id} does not exist")
        if change.base_event is None or (entry is not None and entry.last_event == change.base_event):
            return
        if entry is None:
            raise Stale(f"{change.id} has been deleted since it was read", hint="write the whole document again")
        where = self._catalog.where(entry)
        raise Stale(
            f"{change.id} was changed by {entry.author or 'somebody'} in {where} since it was read",
            hint="read it again and repeat the change",
        )

    def check_protected(self, id: ElementId, plugin: Plugin, committed: Declared | None) -> None:
        """No protected element is deleted."""
        if committed is not None:
            with guarded(plugin, id):
                is_protected = plugin.is_protected(id.element, committed.document)
            if is_protected:
                raise Rejected(f"{id} is protected", hint="write it without its protection first, then delete it")

    def check_confirmed(self, plans: Iterable[tuple[str, ElementId, StateDiff]], uid: int) -> None:
        """Nothing is destroyed that `uid` has not confirmed: operation, element and plan of each change of a request.

        Where one confirmation is missing, the others are not used up.
        """
        destroying = [
            ("delete" if op == "delete" else "update", id, diff)
            for op, id, diff in plans
            if diff.safety is Safety.DESTRUCTIVE
        ]
        missing = [plan for plan in destroying if not self._confirmations.has(*plan[:2], uid)]
        if missing:
            raise Rejected(_listed(map(_destruction, missing)), hint=_how_to_confirm(missing))
        for confirmed, id, _ in destroying:
            self._confirmations.use(confirmed, id, uid)

    def check_dependents(self, id: ElementId, losing: Sequence[ElementId]) -> None:
        """Nothing is deleted from under elements that need it."""
        if losing:
            more = f" and {len(losing) - _SHOWN} more" if len(losing) > _SHOWN else ""
            raise Rejected(
                f"{id} is needed by {', '.join(map(str, losing[:_SHOWN]))}{more}",
                hint="delete these first, or change them so that they do without it",
            )


def _destruction(plan: tuple[str, ElementId, StateDiff]) -> str:
    _, id, diff = plan
    what = "; ".join(action.summary for action in diff.actions if action.safety is Safety.DESTRUCTIVE)
    return f"{id}: this destroys something: {what}"


def _how_to_confirm(plans: Sequence[tuple[str, ElementId, StateDiff]]) -> str:
    confirmed, id, _ = plans[0]
    each = f"each of the {len(plans)}, e.g. " if len(plans) > 1 else ""
    return f"to go on, {each}echo 'confirm {confirmed} {id}' > ctl at the top of the mount, then repeat it"


def _listed(told: Iterable[str]) -> str:
    """The first few, and how many more."""
    told = list(told)
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return "; ".join(told[:_SHOWN]) + more
