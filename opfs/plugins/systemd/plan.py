"""What takes a unit from what it is to what its document says; pure.

A key that is left out is left as it is, with one exception: what opfs itself has put there (the unit file,
drop-ins, properties) goes when the document no longer says it. Whose a part is, an observation says in `origin`,
by the part's name: `unit`, `dropins/NAME`, `properties/NAME`. A part that opfs did not put there is replaced only
if the document names it, and then as `disruptive`; removed it is only as `destructive`.

Order: stop, change files, limits and links, start. `pending` in an observation is what a crash left to be done.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from opfs.core.action import Action, Difference, Document, Kind, Safety, StateDiff
from opfs.core.position import join_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PLUGIN = "systemd"
RELOAD_MANAGER = "reload-manager"
POLICY: Mapping[str, Any] = {"on_change": "restart", "protected": False}
"""What a document says to opfs and systemd does not keep, with the defaults."""
_SWITCHES = ("enabled", "active", "masked")
_VITAL = re.compile(r"(dbus|dbus-broker|systemd-.*|ssh|sshd|opfs|opfs[@-].*)\.[a-z]+\Z")
"""Without these nobody gets at the host, or opfs at its system manager."""
_CUTS_WHEN_RESTARTED = re.compile(r"(dbus|dbus-broker)\.[a-z]+\Z")
"""Of those, the ones that cut others off even if they come back at once."""


def plan_unit(element: str, current: Document | None, desired: Document | None) -> StateDiff:
    """The ordered actions from `current` (None: no such unit) to `desired` (None: delete)."""
    if desired is None:
        actions = [] if current is None else list(_removal(element, current))
    else:
        actions = list(_changes(element, current, desired))
    return StateDiff(PLUGIN, tuple(actions))


def parts_of(document: Document) -> dict[str, str]:
    """The texts of a document by part: `unit` and `dropins/NAME`."""
    texts = {"unit": document["unit"]} if "unit" in document else {}
    return texts | {f"dropins/{name}": text for name, text in document.get("dropins", {}).items()}


def own_parts(observed: Document) -> set[str]:
    """The parts of an observed unit that opfs put there, properties included."""
    origin = observed.get("origin", {})
    parts = [*parts_of(observed), *(f"properties/{name}" for name in observed.get("properties", {}))]
    return {part for part in parts if origin.get(part) != "foreign"}


def compare_unit(desired: Document | None, observed: Document | None) -> Iterator[Difference]:
    """In what an observed unit is not the desired one; a deleted one may be there if nothing of it is ours."""
    if desired is None:
        if observed is not None and (own_parts(observed) or _policy_of(observed) != POLICY):
            yield Difference("", None, observed)
        return
    if observed is None:
        yield Difference("", desired, None)
        return
    wanted, found, ours = _flat(desired), _flat(observed), own_parts(observed)
    for part in sorted(wanted.keys() | ours):
        otherwise = False if part in _SWITCHES else None
        if wanted.get(part) != found.get(part, otherwise):
            yield Difference(join_pointer(part.split("/", 1)), wanted.get(part), found.get(part, otherwise))
    for key, value in _policy_of(desired).items():
        if value != _policy_of(observed)[key]:
            yield Difference(join_pointer([key]), value, _policy_of(observed)[key])
    if observed.get("pending"):
        yield Difference("/pending", [], observed["pending"])


def _flat(document: Document) -> dict[str, Any]:
    """Parts, limits and switches, by name."""
    limits = {f"properties/{name}": value for name, value in document.get("properties", {}).items()}
    return parts_of(document) | limits | {key: document[key] for key in _SWITCHES if key in document}


def _policy_of(document: Document) -> dict[str, Any]:
    return {key: document.get(key, default) for key, default in POLICY.items()}


def _changes(element: str, current: Document | None, desired: Document) -> Iterator[Action]:
    kind = Kind.MODIFY if current else Kind.CREATE
    now: Document = current or {}
    is_active, is_masked = now.get("active", False), now.get("masked", False)
    to_be_active = desired.get("active", is_active)
    to_be_masked = desired.get("masked", False if "unit" in desired else is_masked)
    vital = _cost_if_vital(element, now, desired)

    if is_active and not to_be_active:
        yield Action(kind, element, "stop", f"stop {element}", vital or Safety.DISRUPTIVE, ("active",))
    if is_masked and not to_be_masked:
        yield Action(kind, element, "unmask", f"unmask {element}", keys=("masked",))
    if _policy_of(now) != _policy_of(desired):
        policy = {key: value for key, value in _policy_of(desired).items() if value != POLICY[key]}
        text = f"note that {element} has {', '.join(f'{key} {value}' for key, value in policy.items()) or 'no policy'}"
        yield Action(kind, element, "note", text.lower(), keys=tuple(POLICY), details={"policy": policy})

    files = _file_changes(kind, element, now, desired, is_running=bool(is_active and to_be_active))
    yield from files
    limits = list(_limit_changes(kind, element, now, desired))
    yield from limits
    if "enabled" in desired and desired["enabled"] != now.get("enabled", False):
        verb = "enable" if desired["enabled"] else "disable"
        cost = Safety.SAFE if desired["enabled"] else vital or Safety.SAFE
        yield Action(kind, element, verb, f"{verb} {element}", cost, ("enabled",))
    if to_be_masked and not is_masked:
        yield Action(kind, element, "mask", f"mask {element}", vital or Safety.SAFE, ("masked",))
    yield from _run_changes(kind, element, now, desired, is_changed=bool(files))


def _run_changes(kind: Kind, element: str, now: Document, desired: Document, *, is_changed: bool) -> Iterator[Action]:
    is_active = now.get("active", False)
    to_be_active = desired.get("active", is_active)
    pending = [step for step in now.get("pending", ()) if step != RELOAD_MANAGER]
    step = _policy_of(desired)["on_change"] if is_changed else pending[0] if pending else "none"
    if to_be_active and not is_active:
        yield Action(kind, element, "start", f"start {element}", keys=("active",))
    elif to_be_active and step != "none":
        yield _restart(kind, element, step)
    elif pending and not is_changed:
        yield Action(kind, element, "settle", f"leave {element} as it is", keys=("active",))


def _file_changes(kind: Kind, element: str, now: Document, desired: Document, *, is_running: bool) -> list[Action]:
    """One action for all files, so that the manager reads them once."""
    have, want, origin = parts_of(now), parts_of(desired), now.get("origin", {})
    # Only an observation has origins: undoing gives a file back to whom it belonged.
    foreign = sorted(part for part in want if desired.get("origin", {}).get(part) == "foreign")
    write = {
        part: text
        for part, text in want.items()
        if have.get(part) != text
        or origin.get(part) == "changed"
        or (part in foreign and origin.get(part) != "foreign")
    }
    remove = sorted(part for part in have if part not in want and origin.get(part) != "foreign")
    theirs = sorted(part for part in (*write, *remove) if part in origin and have.get(part) != want.get(part))
    if not write and not remove:
        if RELOAD_MANAGER in now.get("pending", ()):
            return [Action(kind, element, RELOAD_MANAGER, "let systemd read its unit files again")]
        return []
    safety = Safety.SAFE
    if theirs:
        safety = Safety.DESTRUCTIVE if any(part in remove for part in theirs) else Safety.DISRUPTIVE
    words = [f"write {_named(element, part)}" for part in write] + [
        f"remove {_named(element, part)}" for part in remove
    ]
    if theirs:
        words.append(f"of which opfs did not write {', '.join(theirs)} as it is")
    details = {
        "write": write,
        "remove": remove,
        "theirs": sorted(part for part in (*write, *remove) if part in origin),
        "foreign": [part for part in foreign if part in write],
        "then": _policy_of(desired)["on_change"] if is_running else "none",
    }
    keys = tuple(dict.fromkeys(part.split("/")[0] for part in (*write, *remove)))
    return [Action(kind, element, "write", ", ".join(words), safety, keys, details)]


def _limit_changes(kind: Kind, element: str, now: Document, desired: Document) -> Iterator[Action]:
    have, want = now.get("properties", {}), desired.get("properties", {})
    change = {name: value for name, value in want.items() if have.get(name) != value}
    if change:
        text = f"set {', '.join(f'{name} {value}' for name, value in change.items())} of {element}"
        foreign = [name for name in change if desired.get("origin", {}).get(f"properties/{name}") == "foreign"]
        details = {"properties": change, "foreign": foreign}
        yield Action(kind, element, "set-properties", text, keys=("properties",), details=details)
    ours = own_parts(now)
    gone = [name for name in have if name not in want and f"properties/{name}" in ours]
    if gone:
        text = f"lift {', '.join(gone)} of {element}"
        yield Action(kind, element, "unset-properties", text, keys=("properties",), details={"properties": gone})


def _removal(element: str, current: Document) -> Iterator[Action]:
    ours, origin = own_parts(current), current.get("origin", {})
    files = sorted(part for part in parts_of(current) if part in ours)
    limits = [name for name in current.get("properties", {}) if f"properties/{name}" in ours]
    vital = _cost_if_vital(element, current, {})
    goes, is_active = "unit" in ours, current.get("active", False)
    if goes and is_active:
        yield Action(Kind.DELETE, element, "stop", f"stop {element}", vital or Safety.DISRUPTIVE, ("active",))
    if goes and current.get("enabled"):
        yield Action(Kind.DELETE, element, "disable", f"disable {element}", vital or Safety.SAFE, ("enabled",))
    if limits:
        text = f"lift {', '.join(limits)} of {element}"
        yield Action(
            Kind.DELETE, element, "unset-properties", text, keys=("properties",), details={"properties": limits}
        )
    restarts = bool(files) and not goes and is_active and _policy_of(current)["on_change"] != "none"
    if files:
        changed = [part for part in files if part in origin]
        text = f"remove {', '.join(_named(element, part) for part in files)}"
        text += f", of which {', '.join(changed)} was changed since opfs wrote it" if changed else ""
        then = _policy_of(current)["on_change"] if restarts else "none"
        details: dict[str, Any] = {"write": {}, "remove": files, "theirs": changed, "foreign": [], "then": then}
        safety = Safety.DESTRUCTIVE if changed else Safety.SAFE
        yield Action(Kind.DELETE, element, "write", text, safety, ("unit", "dropins"), details)
    if restarts:
        step = _policy_of(current)["on_change"]
        yield _restart(Kind.DELETE, element, step)
    if files or limits or _policy_of(current) != POLICY or current.get("pending"):
        yield Action(Kind.DELETE, element, "forget", f"forget {element}; what is not opfs' own stays as it is")


def _restart(kind: Kind, element: str, step: str) -> Action:
    """What follows a change, `restart` or `reload`; a unit that cannot reload is restarted."""
    text = f"restart {element}" if step == "restart" else f"let {element} read its configuration again"
    cost = Safety.DESTRUCTIVE if _CUTS_WHEN_RESTARTED.match(element) else Safety.DISRUPTIVE
    return Action(kind, element, step, text, cost, ("active",))


def _cost_if_vital(element: str, current: Document, desired: Document) -> Safety | None:
    """What stopping, disabling and masking cost where they may lock everybody out; None for any other unit."""
    is_vital = _VITAL.match(element) or current.get("protected") or desired.get("protected")
    return Safety.DESTRUCTIVE if is_vital else None


def _named(element: str, part: str) -> str:
    return f"the unit file of {element}" if part == "unit" else f"{element}.d/{part.removeprefix('dropins/')}"
