"""The transactions behind a plan's actions: from rows as they were just read to OVSDB operations; pure.

Each key is changed only from what the plan saw or to what it wants: anything else was changed by somebody since,
and fails. What is so already is left out, so an action may be repeated. `wait`s in front guard against a change
between the reading and the transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opfs.clients.openvswitch import ROOT, new_port, remove_ports, wait_unchanged, where
from opfs.clients.ovsdb_values import NamedUuid, Row, Uuid, encode
from opfs.core.difference import same_json
from opfs.errors import ApplyFailed
from opfs.plugins.ovs.rows import MARK, WITHHELD_OPTIONS, Mark, describe_bridge, read_mark
from opfs.plugins.ovs.settled import INTERFACE_DEFAULTS, PORT_DEFAULTS, plain_port, settle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.clients.openvswitch import Tables
    from opfs.clients.ovsdb import Operation

_RENAMED = {"stp": "stp_enable", "rstp": "rstp_enable", "mcast_snooping": "mcast_snooping_enable"}
_KEPT_IN_MARK = ("external_ids", "exclusive", "protected")


def create(tables: Tables, element: str, details: Mapping[str, Any]) -> list[Operation]:
    """Insert the bridge with all that is on it. Raises ApplyFailed where another of that name is there."""
    bridge: Mapping[str, Any] = details["bridge"]
    row = tables.named("Bridge", element)
    if row is not None:
        now = settle(element, describe_bridge(tables, row))
        ports = {name: plain_port(port) for name, port in now["ports"].items()}
        if same_json({key: now.get(key) for key in bridge}, bridge) and same_json(ports, details["ports"]):
            return []
        raise ApplyFailed(f"a bridge {element} was made by somebody since the plan")
    operations: list[Operation] = []
    members = []
    for name, port in details["ports"].items():
        _check_free(tables, name, element)
        is_ours = name in details["named"]
        member, inserts = new_port(_port_columns(name, port, is_ours), _interface_rows(port))
        members.append(member)
        operations += inserts
    controllers, inserts = _new_controllers(bridge["controller"])
    columns = {_column(key): _bridge_value(key, bridge[key]) for key in bridge if key not in _KEPT_IN_MARK}
    columns |= {"name": element, "ports": encode(frozenset(members)), "controller": encode(frozenset(controllers))}
    columns["external_ids"] = encode(_with_mark(bridge["external_ids"], _bridge_mark(bridge)))
    name = NamedUuid("bridge")
    mutation = ["bridges", "insert", encode(frozenset({name}))]
    return [
        *operations,
        *inserts,
        {"op": "insert", "table": "Bridge", "uuid-name": name.name, "row": columns},
        {"op": "mutate", "table": ROOT, "where": where(tables.root), "mutations": [mutation]},
    ]


def delete(tables: Tables, element: str, details: Mapping[str, Any]) -> list[Operation]:
    """Delete the bridge with the ports that the plan knew of. Raises ApplyFailed where there are others by now."""
    row = tables.named("Bridge", element)
    if row is None:
        return []
    ports = {port.text("name") for port in tables.referred(row, "ports", "Port")}
    unknown = sorted(ports - set(details["ports"]) - {element})
    if unknown:
        raise ApplyFailed(f"the bridge {element} got the port {', '.join(unknown)} since the plan")
    mutation = ["bridges", "delete", encode(frozenset({row.uuid}))]
    return [
        wait_unchanged(row, ["ports"]),
        {"op": "mutate", "table": ROOT, "where": where(tables.root), "mutations": [mutation]},
    ]


def retry(tables: Tables, element: str, details: Mapping[str, Any]) -> list[Operation]:
    """Change nothing, and so have ovs-vswitchd look at everything again."""
    del tables
    return [{"op": "comment", "comment": f"opfs: {element}: {len(details['ports'])} ports are not there"}]


def modify(tables: Tables, element: str, details: Mapping[str, Any]) -> list[Operation]:
    """Take the bridge's keys and its ports from what they were to what they are to be."""
    row = tables.named("Bridge", element)
    if row is None:
        raise ApplyFailed(f"the bridge {element} was deleted by somebody since the plan")
    now = settle(element, describe_bridge(tables, row))
    operations = _modify_bridge(tables, row, now, details)
    added: list[Uuid | NamedUuid] = []
    removed: list[Uuid] = []
    modified: set[str] = set()
    present = {port.text("name"): port for port in tables.referred(row, "ports", "Port")}
    for name, (before, after) in details["ports"].items():
        current = plain_port(now["ports"][name]) if name in present else None
        if same_json(current, after):
            continue
        if not same_json(current, before):
            raise _changed(f"the port {name} of {element}", before, current)
        if after is None:
            operations.append(wait_unchanged(present[name], ["interfaces"]))
            removed.append(present[name].uuid)
        elif current is None:
            _check_free(tables, name, element)
            member, inserts = new_port(_port_columns(name, after, True), _interface_rows(after))
            operations += inserts
            added.append(member)
        else:
            operations += _modify_port(tables, present[name], current, after)
            modified.add(name)
    for name in details["named"]:
        if name in present and name not in modified and read_mark(present[name]) is None:
            operations += _mark_port(present[name])
    if added:
        mutation = ["ports", "insert", encode(frozenset(added))]
        operations.append({"op": "mutate", "table": "Bridge", "where": where(row), "mutations": [mutation]})
    if removed:
        operations.append(remove_ports(row, removed))
    return operations


# --- the bridge ----------------------------------------------------------------------------------------


def _modify_bridge(tables: Tables, row: Row, now: Mapping[str, Any], details: Mapping[str, Any]) -> list[Operation]:
    columns: dict[str, Any] = {}
    inserts: list[Operation] = []
    for key, (before, after) in details["bridge"].items():
        if same_json(now.get(key), after):
            continue
        if not same_json(now.get(key), before):
            raise _changed(f"{key} of the bridge {row.text('name')}", before, now.get(key))
        if key == "controller":
            kept = [c for c in tables.referred(row, "controller", "Controller") if c.text("target") in after]
            missing = sorted(set(after) - {controller.text("target") for controller in kept})
            names, inserts = _new_controllers(missing)
            columns["controller"] = encode(frozenset({*(controller.uuid for controller in kept), *names}))
        elif key not in _KEPT_IN_MARK:
            columns[_column(key)] = _bridge_value(key, after)
    own = now["external_ids"]
    if "external_ids" in details["bridge"]:
        own = details["bridge"]["external_ids"][1]
    ids = _with_mark({**now["foreign_ids"], **own}, _bridge_mark({"external_ids": own, **details["mark"]}))
    if ids != row.pairs("external_ids"):
        columns["external_ids"] = encode(ids)
    if not columns:
        return []
    return [
        wait_unchanged(row, columns),
        *inserts,
        {"op": "update", "table": "Bridge", "where": where(row), "row": columns},
    ]


def _bridge_value(key: str, value: Any) -> Any:
    if key == "datapath_type":
        return "" if value == "system" else value
    if key == "fail_mode":
        # Standalone is what no value means, and the default; so a bridge like any other has no value.
        return encode(frozenset() if value == "standalone" else frozenset({value}))
    return encode(frozenset(value)) if isinstance(value, list | tuple) else encode(value)


def _bridge_mark(bridge: Mapping[str, Any]) -> Mark:
    return Mark(tuple(bridge["external_ids"]), bool(bridge["exclusive"]), bool(bridge["protected"]))


def _new_controllers(targets: list[str]) -> tuple[list[NamedUuid], list[Operation]]:
    names = [NamedUuid(f"c_{index}") for index in range(len(targets))]
    inserts = [
        {"op": "insert", "table": "Controller", "uuid-name": name.name, "row": {"target": target}}
        for name, target in zip(names, targets, strict=True)
    ]
    return names, inserts


# --- ports ---------------------------------------------------------------------------------------------


def _check_free(tables: Tables, port: str, bridge: str) -> None:
    row = tables.named("Port", port)
    if row is None:
        return
    owner = next((b.text("name") for b in tables.rows["Bridge"].values() if row.uuid in b.references("ports")), None)
    if owner is not None and owner != bridge:
        raise ApplyFailed(f"the port {port} is on the bridge {owner}", hint=f"take it off {owner} first")


def _modify_port(tables: Tables, row: Row, current: Mapping[str, Any], after: Mapping[str, Any]) -> list[Operation]:
    columns: dict[str, Any] = {}
    for key in PORT_DEFAULTS:
        if key != "external_ids" and not same_json(current[key], after[key]):
            columns[key] = _row_value(after[key])
    columns |= _changed_ids(row, current["external_ids"], after["external_ids"], always=True)
    operations: list[Operation] = []
    members = {member.text("name"): member for member in tables.referred(row, "interfaces", "Interface")}
    kept: list[Uuid | NamedUuid] = []
    for index, (name, interface) in enumerate(after["interfaces"].items()):
        if name in members:
            kept.append(members[name].uuid)
            operations += _modify_interface(members[name], current["interfaces"][name], interface)
        else:
            new = NamedUuid(f"m_{index}_{row.uuid.value.replace('-', '')}")
            kept.append(new)
            columns_of_new = _interface_columns(name, interface)
            operations.append({"op": "insert", "table": "Interface", "uuid-name": new.name, "row": columns_of_new})
    if frozenset(kept) != row.references("interfaces"):
        columns["interfaces"] = encode(frozenset(kept))
    if columns:
        operations.append({"op": "update", "table": "Port", "where": where(row), "row": columns})
        operations.insert(0, wait_unchanged(row, columns))
    return operations


def _modify_interface(row: Row, current: Mapping[str, Any], after: Mapping[str, Any]) -> list[Operation]:
    columns = {
        key: _interface_value(key, after[key])
        for key in INTERFACE_DEFAULTS
        if key != "external_ids" and not same_json(current[key], after[key])
    }
    if "options" in columns:
        withheld = {key: value for key, value in row.pairs("options").items() if key in WITHHELD_OPTIONS}
        columns["options"] = encode({**after["options"], **withheld})
    columns |= _changed_ids(row, current["external_ids"], after["external_ids"], always=False)
    if not columns:
        return []
    return [
        wait_unchanged(row, columns),
        {"op": "update", "table": "Interface", "where": where(row), "row": columns},
    ]


def _mark_port(row: Row) -> list[Operation]:
    ids = _with_mark(row.pairs("external_ids"), Mark())
    return [
        wait_unchanged(row, ["external_ids"]),
        {"op": "update", "table": "Port", "where": where(row), "row": {"external_ids": encode(ids)}},
    ]


def _changed_ids(row: Row, before: Mapping[str, str], after: Mapping[str, str], *, always: bool) -> dict[str, Any]:
    """The column external_ids with the ids of opfs' own replaced and marked, if that changes it."""
    ids = {key: value for key, value in row.pairs("external_ids").items() if key not in before}
    ids |= after
    if always or after or read_mark(row) is not None:
        ids = _with_mark(ids, Mark(tuple(after)))
    return {} if ids == row.pairs("external_ids") else {"external_ids": encode(ids)}


def _port_columns(name: str, port: Mapping[str, Any], is_ours: bool) -> dict[str, Any]:
    columns = {key: _row_value(port[key]) for key in PORT_DEFAULTS if port[key] not in (None, [], {}, ())}
    ids = dict(port["external_ids"])
    return {**columns, "name": name, "external_ids": encode(_with_mark(ids, Mark(tuple(ids))) if is_ours else ids)}


def _interface_rows(port: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: _interface_columns(name, interface) for name, interface in port["interfaces"].items()}


def _interface_columns(name: str, interface: Mapping[str, Any]) -> dict[str, Any]:
    columns = {
        key: _interface_value(key, interface[key]) for key in INTERFACE_DEFAULTS if interface[key] not in (None, {})
    }
    ids = dict(interface["external_ids"])
    return {**columns, "name": name, "external_ids": encode(_with_mark(ids, Mark(tuple(ids))) if ids else {})}


def _interface_value(key: str, value: Any) -> Any:
    if key == "type":
        return "" if value == "system" else value
    return _row_value(value)


def _row_value(value: Any) -> Any:
    if value is None:
        return encode(frozenset())
    return encode(frozenset(value)) if isinstance(value, list | tuple) else encode(value)


def _with_mark(ids: Mapping[str, str], mark: Mark) -> dict[str, str]:
    return {**{key: value for key, value in ids.items() if key != MARK}, MARK: mark.render()}


def _column(key: str) -> str:
    return _RENAMED.get(key, key)


def _changed(what: str, before: Any, now: Any) -> ApplyFailed:
    return ApplyFailed(f"{what} was changed by somebody since the plan: it was {_said(before)}, it is {_said(now)}")


def _said(value: Any) -> str:
    text = "absent" if value is None else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
