"""What takes an interface from what it is to what its document says; pure.

The order of the steps is what the kernel needs: options and size first, then its place (down, master, up),
then addresses, then the routes that need them. A link that goes down loses its IPv6 addresses and its routes,
so those that are wanted are seen to again. What the kernel fixes when a link is made (type, parent, a VLAN's
number) takes the link away and makes it anew.

Taking away what connects is `disruptive`; where the host's default route goes through the interface, or it is
the loopback, it is `destructive`: it may cut the one who asks for it from the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opfs.clients.netlink.kinds import TYPES
from opfs.core.action import Action, Difference, Document, Kind, Safety, StateDiff
from opfs.core.difference import same_json
from opfs.core.position import join_pointer
from opfs.errors import Rejected
from opfs.plugins.net.settings import FOUND, PLAIN, PLUGIN, Settled, is_default_route, is_made, settle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LIVE = ("mtu", "mac", "description")
_IDENTITY = ("type", "parent", "peer")


def plan_interface(element: str, current: Document | None, desired: Document | None) -> StateDiff:
    """The ordered actions from `current` (None: absent) to `desired` (None: delete).

    Raises Rejected where an interface would have to be made or removed that documents cannot make or remove.
    """
    if desired is None:
        actions = [] if current is None or not is_made(current) else [_removal(element, current)]
    elif current is None:
        actions = list(_creation(element, settle(desired)))
    else:
        actions = list(_adaptation(element, current, settle(current), settle(desired)))
    return StateDiff(PLUGIN, tuple(actions))


def compare_interface(element: str, desired: Document | None, observed: Document | None) -> Iterator[Difference]:
    """In what an observed interface is not the desired one."""
    del element
    if desired is None and observed is not None and not is_made(observed):
        return  # it was let go of, and it exists by itself
    if desired is None or observed is None:
        if desired is not observed:
            yield Difference("", desired, observed)
        return
    wanted, found = settle(desired), settle(observed)
    if wanted["type"] != found["type"]:
        yield Difference("/type", wanted["type"], found["type"])
        return
    for key in (*PLAIN, "addresses", "routes"):
        # The other end of a veth has no name while it is in another network namespace.
        if key in wanted and not (key == "peer" and key not in found) and not same_json(wanted[key], found.get(key)):
            yield Difference(join_pointer([key]), wanted[key], found.get(key))
    for word, value in wanted.get("options", {}).items():
        if not same_json(value, found["options"][word]):
            yield Difference(join_pointer([wanted["type"], word]), value, found["options"][word])


def _adaptation(element: str, current: Document, now: Settled, wanted: Settled) -> Iterator[Action]:
    if now["type"] in FOUND or wanted["type"] in FOUND:
        _check_found(element, now, wanted)
    elif _is_another(now, wanted):
        yield _removal(element, current, "to make it anew")
        yield from _creation(element, wanted)
        return
    yield from _changes(Kind.MODIFY, element, now, wanted, _is_guarded(element, current))


def _check_found(element: str, current: Settled, desired: Settled) -> None:
    """Raise unless both are the same sort of interface that exists by itself."""
    if current["type"] == desired["type"]:
        return
    kind = f" (of the kernel's kind {current['kind']})" if "kind" in current else ""
    if current["type"] in FOUND:
        reason = f"{element} is there as {_a(current['type'])} interface{kind}, which opfs neither makes nor removes"
    else:
        reason = f"{element} is there as {_a(current['type'])}, and opfs cannot make it {_a(desired['type'])}"
    raise Rejected(reason, hint=f'say "type": "{current["type"]}", or use another name')


def _is_another(now: Settled, wanted: Settled) -> bool:
    """Whether the link must be made anew."""
    if any(key in wanted and key in now and wanted[key] != now[key] for key in _IDENTITY):
        return True
    fixed = [word for word, option in TYPES[wanted["type"]].options.items() if option.fixed]
    return any(not same_json(wanted["options"][word], now["options"][word]) for word in fixed)


def _is_guarded(element: str, current: Document) -> bool:
    if current["type"] == "loopback" or element == "lo" or current.get("default_route"):
        return True
    return any(is_default_route(route) for route in current.get("routes", ()))


def _removal(element: str, current: Document, purpose: str = "") -> Action:
    is_guarded = _is_guarded(element, current)
    lost = ", which the default route goes through" if is_guarded else ""
    text = f"remove the {current['type']} {element}{lost}{f', {purpose}' if purpose else ''}"
    safety = Safety.DESTRUCTIVE if is_guarded else Safety.DISRUPTIVE
    return Action(Kind.MODIFY if purpose else Kind.DELETE, element, "delete", text, safety)


def _creation(element: str, wanted: Settled) -> Iterator[Action]:
    if not is_made(wanted):
        raise Rejected(
            f"there is no interface {element} on this host, and {_a(wanted['type'])} interface cannot be made",
            hint=f"types that can be made: {', '.join(TYPES)}",
        )
    options = {
        word: wanted["options"][word]
        for word, option in TYPES[wanted["type"]].options.items()
        if option.said or not same_json(wanted["options"][word], option.default)
    }
    details = {key: wanted[key] for key in ("type", "parent", "peer", "mtu", "mac") if wanted.get(key)}
    on = f" on {wanted['parent']}" if wanted.get("parent") else ""
    other = f" with its other end {wanted['peer']}" if wanted.get("peer") else ""
    text = f"create the {wanted['type']} {element}{on}{other}"
    keys = (*details, *([wanted["type"]] if options else []))
    yield Action(Kind.CREATE, element, "create", text, keys=keys, details={**details, "options": options})
    fresh = {**wanted, "state": "down", "master": "", "description": "", "addresses": [], "routes": []}
    yield from _changes(Kind.CREATE, element, fresh, wanted, is_guarded=False)


def _changes(kind: Kind, element: str, now: Settled, wanted: Settled, is_guarded: bool) -> Iterator[Action]:
    changed = {key for key, value in wanted.items() if not same_json(value, now.get(key))}
    if not changed:
        return
    cuts = Safety.DESTRUCTIVE if is_guarded else Safety.DISRUPTIVE

    def action(step: str, text: str, keys: Sequence[str], details: Settled, safety: Safety = Safety.SAFE) -> Action:
        return Action(kind, element, step, text, safety, tuple(keys), details)

    if "options" in changed:
        yield from _option_changes(kind, element, now, wanted)
    live = [key for key in _LIVE if key in changed]
    if live:
        is_smaller = "mtu" in live and wanted["mtu"] < now.get("mtu", 0)
        safety = cuts if "mac" in live else Safety.DISRUPTIVE if is_smaller else Safety.SAFE
        text = f"set {', '.join(_text(key, wanted[key]) for key in live)} of {element}"
        yield action("set-link", text, live, {key: wanted[key] for key in live}, safety)
    goes_down = "state" in changed and wanted["state"] == "down"
    goes_up = "state" in changed and wanted["state"] == "up"
    if goes_down:
        yield action("set-state", f"take {element} down", ["state"], {"state": "down"}, cuts)
    if "master" in changed:
        master = wanted["master"]
        text = f"make {element} a port of {master}" if master else f"make {element} a port of nothing"
        is_new = kind is Kind.CREATE
        yield action("set-master", text, ["master"], {"master": master}, Safety.SAFE if is_new else cuts)
    if goes_up:
        yield action("set-state", f"bring {element} up", ["state"], {"state": "up"})
    # On its way down, and into a bond or a VRF, a link loses addresses and routes that are to stay.
    is_moved = goes_down or "master" in changed
    had: list[str] = now.get("addresses", [])
    addresses: list[str] = wanted.get("addresses", had)
    had_routes: list[Settled] = now.get("routes", [])
    routes: list[Settled] = wanted.get("routes", had_routes)
    gone = [address for address in had if address not in addresses]
    if "addresses" in changed or (is_moved and addresses):
        new = [address for address in addresses if address not in had]
        text = f"{_delta(new, gone) or 'keep the addresses'} on {element}"
        safety = cuts if gone else Safety.SAFE
        yield action("set-addresses", text, ["addresses"], {"addresses": addresses}, safety)
    is_up = wanted.get("state", now.get("state")) == "up"  # through one that is down there are no routes
    if is_up and ("routes" in changed or ((is_moved or gone) and routes)):
        lost = [route for route in had_routes if route not in routes]
        new_routes = [_route_text(route) for route in routes if route not in had_routes]
        text = f"{_delta(new_routes, [_route_text(route) for route in lost]) or 'keep the routes'} through {element}"
        safety = cuts if any(map(is_default_route, lost)) else Safety.DISRUPTIVE if lost else Safety.SAFE
        yield action("set-routes", text, ["routes"], {"routes": routes}, safety)


def _option_changes(kind: Kind, element: str, now: Settled, wanted: Settled) -> Iterator[Action]:
    type_ = wanted["type"]
    changed = {word: value for word, value in wanted["options"].items() if value != now["options"][word]}
    # The kernel holds the other timers to the protocol's limits for as long as a bridge speaks it.
    first = {"stp": changed.pop("stp")} if changed.get("stp") is False else {}
    for part in (first, changed):
        if part:
            text = f"set {', '.join(_text(word, value) for word, value in part.items())} of {element}"
            yield Action(
                kind, element, "set-options", text, Safety.SAFE, (type_,), {"type": type_, "options": dict(part)}
            )


def _delta(new: Sequence[str], gone: Sequence[str]) -> str:
    parts = [f"add {', '.join(new)}"] if new else []
    return "; ".join([*parts, *([f"remove {', '.join(gone)}"] if gone else [])])


def _route_text(route: Settled) -> str:
    return f"{route['to']} via {route['via']}" if "via" in route else str(route["to"])


def _text(key: str, value: Any) -> str:
    if key == "description":
        return "the description"
    return f"{key} {'none' if value is None else str(value).lower() if isinstance(value, bool) else value}"


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
