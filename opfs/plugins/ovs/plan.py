"""What takes a bridge from what it is to what its document says; pure.

What opfs made carries a mark, and an observation says `"origin": "foreign"` of what does not. Ports and external
ids of others are left alone unless the document says `exclusive`. A port of others that the document names becomes
opfs' own. A bridge without any mark is observed as foreign and `exclusive`, with all that is on it, so that an
import adopts it as it is: its ports become opfs' own with the first change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from opfs.core.action import Action, Difference, Document, Kind, Safety, StateDiff
from opfs.core.difference import same_json
from opfs.core.position import join_pointer
from opfs.plugins.ovs.settled import (
    BRIDGE_DEFAULTS,
    FOREIGN,
    INTERFACE_DEFAULTS,
    PORT_DEFAULTS,
    Settled,
    host_interfaces,
    named_ports,
    owned_ids,
    plain_port,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PLUGIN = "ovs"
_UNFELT = ("protocols", "external_ids", "exclusive", "protected")
"""Keys of a bridge that no packet notices."""

Path: TypeAlias = tuple[str, ...]
Change: TypeAlias = list[Any]
"""A pair [before, after]; None is absent."""


# --- what differs --------------------------------------------------------------------------------------


def bridge_changes(current: Settled, wanted: Settled) -> dict[str, Change]:
    """The keys of the bridge itself that change."""
    changes: dict[str, Change] = {}
    for key in ("datapath_type", *BRIDGE_DEFAULTS):
        if key in wanted:
            after = owned_ids(current, wanted) if key == "external_ids" else wanted[key]
            if not same_json(current.get(key), after):
                changes[key] = [current.get(key), after]
    return changes


def port_changes(current: Settled, wanted: Settled) -> dict[str, Change]:
    """The ports that come, go or change, in full."""
    changes: dict[str, Change] = {}
    for name in sorted(current["ports"].keys() | wanted["ports"].keys()):
        before, after = current["ports"].get(name), wanted["ports"].get(name)
        if before is None:
            changes[name] = [None, plain_port(after)]
        elif after is None or after.get("is_implied"):
            # The document does not name it.
            if is_foreign(current, before) and not wanted["exclusive"]:
                continue
            if after is None:
                changes[name] = [plain_port(before), None]
            elif port_differences(before, after):
                changes[name] = [plain_port(before), plain_port(after)]
        elif port_differences(before, after):
            changes[name] = [plain_port(before), _as_it_will_be(before, after)]
    return changes


def port_differences(before: Settled, after: Settled) -> list[tuple[Path, Any, Any]]:
    """In what a port is not the wanted one, as (path, wanted, found)."""
    differences = list(_key_differences((), PORT_DEFAULTS, before, after))
    for member in sorted(before["interfaces"].keys() | after["interfaces"].keys()):
        path = ("interfaces", member)
        old, new = before["interfaces"].get(member), after["interfaces"].get(member)
        if old is None or new is None:
            differences.append((path, new, old))
        else:
            differences += _key_differences(path, INTERFACE_DEFAULTS, old, new)
    if before["origin"] == FOREIGN and after["origin"] != FOREIGN:
        differences.append((("origin",), None, FOREIGN))
    return differences


def is_foreign(current: Settled, port: Settled) -> bool:
    """Whether others put a port on the bridge."""
    return FOREIGN in (current["origin"], port["origin"]) and not port.get("is_implied")


def _key_differences(
    path: Path, keys: Mapping[str, Any], before: Settled, after: Settled
) -> Iterator[tuple[Path, Any, Any]]:
    for key in keys:
        wanted = owned_ids(before, after) if key == "external_ids" else after[key]
        if not same_json(before[key], wanted):
            yield (*path, key), wanted, before[key]


def _as_it_will_be(before: Settled, after: Settled) -> Settled:
    """The wanted port with only the external ids that will be opfs' own."""
    port = plain_port(after)
    port["external_ids"] = owned_ids(before, after)
    for member, interface in port["interfaces"].items():
        if member in before["interfaces"]:
            interface["external_ids"] = owned_ids(before["interfaces"][member], after["interfaces"][member])
    return port


def _broken(current: Settled, wanted: Settled) -> dict[str, str]:
    """Ports that are asked for and that ovs-vswitchd could not make, with its words."""
    return {
        name: port["error"]
        for name, port in current["ports"].items()
        if "error" in port and name in wanted["ports"] and wanted["ports"][name]["origin"] != FOREIGN
    }


def compare_bridge(element: str, desired: Document, observed: Document) -> Iterator[Difference]:
    """In what an observed bridge is not the desired one; ports that the switch could not make included."""
    wanted, current = settle(element, desired), settle(element, observed)
    for key, (before, after) in bridge_changes(current, wanted).items():
        yield Difference(join_pointer([key]), after, before)
    for name, (before, after) in port_changes(current, wanted).items():
        if before is None or after is None:
            yield Difference(join_pointer(["ports", name]), after, before)
        else:
            for path, new, old in port_differences(current["ports"][name], wanted["ports"][name]):
                yield Difference(join_pointer(["ports", name, *path]), new, old)
    for name, error in _broken(current, wanted).items():
        yield Difference(join_pointer(["ports", name, "error"]), None, error)


# --- the plan ------------------------------------------------------------------------------------------


def plan_bridge(element: str, current: Document | None, desired: Document | None) -> StateDiff:
    """From `current` (None: absent) to `desired` (None: delete); one action, since one transaction does it all."""
    action: Action | None = None
    if desired is None and current is not None:
        action = _removal(element, settle(element, current))
    elif desired is not None and current is None:
        action = _creation(element, settle(element, desired))
    elif desired is not None and current is not None:
        action = _change(element, settle(element, current), settle(element, desired))
    return StateDiff(PLUGIN, () if action is None else (action,))


def _creation(element: str, wanted: Settled) -> Action:
    named = sorted(named_ports(wanted))
    taken = [member for name in named for member in host_interfaces(wanted["ports"][name])]
    keys = [key for key, default in BRIDGE_DEFAULTS.items() if not same_json(wanted[key], default)]
    return Action(
        Kind.CREATE,
        element,
        "create",
        f"create the bridge {element}" + (f" with {_names(named)}" if named else ""),
        Safety.DISRUPTIVE if taken else Safety.SAFE,
        (*keys, "ports"),
        {
            "bridge": {"datapath_type": "system", **{key: wanted[key] for key in wanted if key in _BRIDGE_KEYS}},
            "ports": {name: plain_port(port) for name, port in wanted["ports"].items()},
            "named": named,
        },
    )


_BRIDGE_KEYS = ("datapath_type", *BRIDGE_DEFAULTS)


def _removal(element: str, current: Settled) -> Action:
    ports = sorted(name for name in current["ports"] if name != element)
    foreign = [name for name in ports if current["ports"][name]["origin"] == FOREIGN]
    text = f"delete the bridge {element}" + (f" with {_names(ports)}" if ports else "")
    if foreign:
        text += f"; others made {_names(foreign)}"
    # What a foreign port was is nowhere on record; a bridge that is foreign as a whole is in its document.
    safety = Safety.DESTRUCTIVE if foreign else Safety.DISRUPTIVE
    return Action(Kind.DELETE, element, "delete", text, safety, details={"ports": ports})


def _change(element: str, current: Settled, wanted: Settled) -> Action | None:
    bridge, ports = bridge_changes(current, wanted), port_changes(current, wanted)
    broken = sorted(_broken(current, wanted))
    if not bridge and not ports:
        if not broken:
            return None
        text = f"have ovs-vswitchd make {_names(broken)} again"
        return Action(Kind.MODIFY, element, "retry", text, keys=("ports",), details={"ports": broken})
    return Action(
        Kind.MODIFY,
        element,
        "modify",
        "; ".join(_texts(bridge, ports)),
        _safety(current, bridge, ports),
        (*bridge, "ports") if ports else tuple(bridge),
        {
            "bridge": bridge,
            "ports": ports,
            "named": sorted(named_ports(wanted)),
            "mark": {key: wanted[key] for key in ("exclusive", "protected")},
        },
    )


def _safety(current: Settled, bridge: Mapping[str, Change], ports: Mapping[str, Change]) -> Safety:
    safety = Safety.DISRUPTIVE if any(key not in _UNFELT for key in bridge) else Safety.SAFE
    for name, (before, after) in ports.items():
        if after is None and is_foreign(current, current["ports"][name]):
            return Safety.DESTRUCTIVE
        # Traffic stops on a port that goes or changes, and on an interface that the switch takes from the host.
        if host_interfaces(after) if before is None else after is None or _is_felt(before, after):
            safety = Safety.DISRUPTIVE
    return safety


def _is_felt(before: Settled, after: Settled) -> bool:
    return any(path[-1] != "external_ids" for path, _, _ in _plain_differences(before, after))


def _plain_differences(before: Settled, after: Settled) -> list[tuple[Path, Any, Any]]:
    """Of two plain ports."""
    nobody = {"origin": "", "foreign_ids": {}}
    members = {name: {**interface, **nobody} for name, interface in before["interfaces"].items()}
    return port_differences({**before, **nobody, "interfaces": members}, {**after, **nobody})


# --- words ---------------------------------------------------------------------------------------------


def _texts(bridge: Mapping[str, Change], ports: Mapping[str, Change]) -> list[str]:
    texts = [f"set {key} {_value(after)}" for key, (_, after) in bridge.items()]
    added = [name for name, (before, _) in ports.items() if before is None]
    removed = [name for name, (_, after) in ports.items() if after is None]
    texts += [f"{verb} {_names(names)}" for verb, names in (("add", added), ("remove", removed)) if names]
    changed = [(name, *pair) for name, pair in ports.items() if None not in pair]
    for name, before, after in changed[:8]:
        said = [f"{path[-1]} {_value(value)}" for path, value, _ in _plain_differences(before, after)[:4]]
        texts.append(f"set {', '.join(said)} of port {name}" if said else f"take over port {name}")
    if len(changed) > 8:
        texts.append(f"change {len(changed) - 8} more ports")
    return texts


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{'port' if len(names) == 1 else 'ports'} {', '.join(names[:8])}{more}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        value = [f"{key}={item}" if isinstance(item, str) else key for key, item in value.items()]
    if isinstance(value, list | tuple):
        value = " ".join(map(str, value[:8]))
    text = " ".join(str(value).split())
    return "none" if value is None or not text else text[:200]
