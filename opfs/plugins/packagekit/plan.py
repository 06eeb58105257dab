"""What takes a package from what it is to what its document says; pure.

An observation says what the backend foretells: `removes_with`, the packages that would go along with this one, and
`replaces`, those that installing it would remove. Either makes the action `destructive`, and `apply` does it only if
that foretelling still holds. A package that opfs did not install stays when its document goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.core.action import Action, Difference, Document, Kind, Safety, StateDiff
from opfs.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGIN = "packagekit"


def plan_package(element: str, current: Document | None, desired: Document | None) -> StateDiff:
    """The ordered actions from `current` (None: not installed) to `desired` (None: delete).

    Raises Rejected where the host refuses to be without the package.
    """
    return StateDiff(PLUGIN, tuple(_actions(element, current, desired)))


def _actions(element: str, current: Document | None, desired: Document | None) -> Iterator[Action]:
    is_there = current is not None and current.get("ensure") != "absent"
    if desired is None or desired.get("ensure") == "absent":
        if is_there and current is not None and (desired is not None or current.get("origin") != "foreign"):
            yield _removal(Kind.DELETE if desired is None else Kind.MODIFY, element, current)
        return
    now: Document = current or {}
    # Only an observation has `installed`: undoing returns to the very version that was there.
    version = desired.get("version", desired.get("installed"))
    if not is_there:
        text = f"install {element}{f' {version}' if version else ''}"
        yield _installation(Kind.CREATE, element, text, version, now, desired)
    elif now.get("broken") and not desired.get("broken"):
        text = f"finish the installation of {element}, which is {now['broken']}"
        yield _installation(Kind.MODIFY, element, text, version or now.get("installed"), now, desired)
    elif version and version != now.get("installed"):
        text = f"change {element} from {now.get('installed')} to {version}"
        yield _installation(Kind.MODIFY, element, text, version, now, desired, Safety.DISRUPTIVE)
    elif desired.get("ensure") == "latest" and now.get("available"):
        text = f"upgrade {element} from {now.get('installed')} to {now['available']}"
        yield _installation(Kind.MODIFY, element, text, now["available"], now, desired, Safety.DISRUPTIVE)


def _installation(
    kind: Kind,
    element: str,
    text: str,
    version: str | None,
    current: Document,
    desired: Document,
    safety: Safety = Safety.SAFE,
) -> Action:
    replaced = list(current.get("replaces", ()))
    if replaced:
        text += f", which removes {', '.join(replaced)}"
        safety = Safety.DESTRUCTIVE
    is_ours = desired.get("origin") != "foreign" and current.get("origin") != "foreign"
    details = {"version": version, "replaces": replaced, "ours": is_ours}
    return Action(kind, element, "install", text, safety, ("ensure", "version"), details)


def _removal(kind: Kind, element: str, current: Document) -> Action:
    if current.get("locked"):
        raise Rejected(f"{element} cannot be removed: {current['locked']}")
    others = list(current.get("removes_with", ()))
    text = f"remove {element}" + (f", and with it {', '.join(others)}" if others else "")
    safety = Safety.DESTRUCTIVE if others else Safety.DISRUPTIVE
    return Action(kind, element, "remove", text, safety, ("ensure",), {"with": others})


def compare_package(desired: Document | None, observed: Document | None) -> Iterator[Difference]:
    """In what an observed package is not the desired one."""
    is_there = observed is not None and observed.get("ensure") != "absent"
    if desired is None:
        if is_there and observed is not None and observed.get("origin") != "foreign":
            yield Difference("", None, observed)
        return
    ensure = desired.get("ensure", "present")
    if (ensure == "absent") is is_there or observed is None:
        if ensure != "absent" or is_there:
            yield Difference("/ensure", ensure, "present" if is_there else "absent")
        return
    if ensure == "absent":
        return
    if observed.get("broken") and not desired.get("broken"):
        yield Difference("/ensure", ensure, observed["broken"])
    version = desired.get("version", desired.get("installed"))
    if version and version != observed.get("installed"):
        yield Difference("/version", version, observed.get("installed"))
    if ensure == "latest" and observed.get("available"):
        yield Difference("/ensure", f"latest, which is {observed['available']}", observed.get("installed"))
