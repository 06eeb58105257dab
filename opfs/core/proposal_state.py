"""A restore state as the original proposal writes it (heritage: system_restore_state.json), as documents; pure.

Its sections are those of a desired state of operation-dbus under other names, so they are read as such a state
(opfs.core.operation_dbus): key by key, with a remark, and its JSON pointer, for each that has no equivalent. What it
says of its own chain, models and quadrants is of no use to another host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opfs.core.operation_dbus import Converted, Remark, convert_state
from opfs.core.position import join_pointer, split_pointer
from opfs.core.restore_schema import PLUGINS
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.core.action import Document

_SECTIONS: Mapping[str, tuple[str, str]] = {
    "network_interfaces": ("net", "interfaces"),
    "ovs_bridges": ("net", "interfaces"),
    "systemd_units": ("systemd", "units"),
    "lxc_containers": ("lxc", "containers"),
    "containers": ("lxc", "containers"),
    "packages": ("packagekit", "packages"),
}
"""Where the items of each section stand in a desired state."""
_FACTS = ("timestamp", "quadrants", "blockchain", "ai_models", "security")
_NAME_KEY: Mapping[str, str] = {"net": "name", "lxc": "id"}
"""The key that names an item where items have no names of their own."""


def convert_restore_state(fields: Document) -> Converted:
    """The documents that a file of the proposal asks for; raises InvalidRequest where it asks for none."""
    given = fields.get(PLUGINS, {})
    plugins: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {}
    spots: dict[str, tuple[str | int, ...]] = {}
    sections = [key for key in fields if key in _SECTIONS]
    for plugin, items in dict.fromkeys(_SECTIONS[section] for section in sections):
        state = plugins.get(plugin, {})
        state = dict(state) if isinstance(state, Mapping) else {}
        gathered = dict(_named(state.get(items, {}), plugin, PLUGINS, plugin, items, spots=spots))
        for section in sections:
            if _SECTIONS[section] == (plugin, items):
                kind = {"type": "ovs-bridge"} if section == "ovs_bridges" else {}
                found = _named(fields[section], plugin, section, spots=spots)
                gathered |= {key: {**kind, **item} for key, item in found}
        plugins[plugin] = {**state, items: gathered}
    if not plugins:
        raise InvalidRequest(
            "this is no restore state", hint="opfs restore-state export makes one; opfs restore-state schema says how"
        )
    rest = {key: value for key, value in fields.items() if key not in (*sections, *_FACTS, PLUGINS, "version")}
    converted = convert_state({"version": 1, "plugins": plugins})
    converted.remarks = [Remark(_original(remark.pointer, spots), remark.said) for remark in converted.remarks]
    converted.remarks += [
        Remark(join_pointer([key]), "is told for the record, and not set") for key in _FACTS if key in fields
    ]
    converted.remarks += [Remark(join_pointer([key]), "has no equivalent") for key in rest]
    return converted


def _named(items: Any, plugin: str, *path: str, spots: dict[str, tuple[str | int, ...]]) -> Iterator[tuple[str, Any]]:
    """The items of an array or an object as objects that say their names, each under a key of its own.

    For systemd and packagekit the key is the name, else one that only leads back to where the item stands.
    """
    pairs: Sequence[tuple[str | int, Any]]
    if isinstance(items, Mapping):
        pairs = list(items.items())
    elif isinstance(items, Sequence) and not isinstance(items, str):
        pairs = list(enumerate(items))
    else:
        raise InvalidRequest(f"{join_pointer(path)} is neither an object nor an array", hint="list what is to be there")
    name_key = _NAME_KEY.get(plugin)
    for key, item in pairs:
        named = {"name": item} if isinstance(item, str) else item
        if not isinstance(named, Mapping):
            raise InvalidRequest(f"{join_pointer((*path, key))} is no object", hint="write its keys in an object")
        if name_key is None:
            own = str(named.get("name", key)) if isinstance(key, int) else key
            fields = {inner: value for inner, value in named.items() if inner != "name"}
        else:
            own = f"{len(spots)}"
            fields = {name_key: key, **named} if isinstance(key, str) else dict(named)
        spots[own] = (*path, key)
        yield own, fields


def _original(pointer: str, spots: Mapping[str, tuple[str | int, ...]]) -> str:
    """Where in the file something stands that a desired state has at `pointer`: /plugins/<plugin>/<items>/<key>/…"""
    parts = split_pointer(pointer)
    if len(parts) > 3 and parts[3] in spots:
        return join_pointer((*spots[parts[3]], *parts[4:]))
    return pointer
