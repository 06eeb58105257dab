"""The Open_vSwitch database as its programs use it: read all of it, commit, wait for ovs-vswitchd, add a port.

A transaction that changes anything raises `next_cfg`; ovs-vswitchd sets `cur_cfg` to it when the switch is as the
database says (ovs-vswitchd.conf.db(5), "Configuration Status"). So "done" here means done by the switch. Knows the
tables and no document. Runs on the trio thread; calls may run concurrently, each on a connection of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import trio

from opfs.clients.ovsdb import Operation, OvsdbClient, OvsdbRefused, Session
from opfs.clients.ovsdb_values import NamedUuid, OvsdbProtocolError, Row, Uuid, encode
from opfs.errors import ApplyFailed, ApplyTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ROOT = "Open_vSwitch"
COLUMNS: Mapping[str, tuple[str, ...]] = {
    ROOT: ("_uuid", "bridges", "next_cfg", "cur_cfg"),
    "Bridge": (
        *("_uuid", "name", "ports", "controller", "datapath_type", "fail_mode", "protocols", "flood_vlans"),
        *("stp_enable", "rstp_enable", "mcast_snooping_enable", "other_config", "external_ids"),
    ),
    "Port": (
        *("_uuid", "name", "interfaces", "tag", "trunks", "cvlans", "vlan_mode", "bond_mode", "lacp"),
        *("other_config", "external_ids"),
    ),
    "Interface": (
        *("_uuid", "name", "type", "options", "mtu_request", "ofport_request", "mac"),
        *("other_config", "external_ids", "ofport", "ifindex", "error"),
    ),
    "Controller": ("_uuid", "target"),
}
"""What is read of each table."""


@dataclass(frozen=True)
class Tables:
    """The rows of one moment, by table and identity."""

    rows: Mapping[str, Mapping[Uuid, Row]]

    @property
    def root(self) -> Row:
        found = list(self.rows[ROOT].values())
        if len(found) != 1:
            raise OvsdbProtocolError(f"the database has {len(found)} rows in {ROOT}, which has one")
        return found[0]

    @cached_property
    def _by_name(self) -> dict[str, dict[str, Row]]:
        return {
            table: {row.text("name"): row for row in self.rows[table].values()}
            for table in ("Bridge", "Port", "Interface")
            if table in self.rows
        }

    def named(self, table: str, name: str) -> Row | None:
        """The row of that name."""
        return self._by_name[table].get(name)

    def referred(self, row: Row, column: str, table: str) -> list[Row]:
        """The rows of `table` that a column refers to, by name where they have one."""
        found = []
        for uuid in sorted(row.references(column)):
            if uuid not in self.rows[table]:
                raise OvsdbProtocolError(f"{row.table}.{column} refers to a row of {table} that is not there")
            found.append(self.rows[table][uuid])
        return sorted(found, key=lambda row: row.text("name")) if table != "Controller" else found


class OpenVSwitch:
    """One Open vSwitch: its database, and its ovs-vswitchd by way of it."""

    def __init__(self, client: OvsdbClient) -> None:
        self.client = client

    async def read(self, session: Session | None = None, names: Sequence[str] = tuple(COLUMNS)) -> Tables:
        """The tables of these names, all of them unless said, in one transaction."""
        if session is None:
            async with self.client.session() as own:
                return await self.read(own, names)
        selects = [{"op": "select", "table": t, "where": [], "columns": list(COLUMNS[t])} for t in names]
        found = await session.rows(selects)
        tables = {}
        for table, rows in zip(names, found, strict=True):
            typed = [Row(table, row) for row in rows]
            tables[table] = {row.uuid: row for row in typed}
        return Tables(tables)

    async def change(self, comment: str, plan: Callable[[Tables], Sequence[Operation]]) -> Tables:
        """Read, let `plan` (which is pure) say what to do, do it in one transaction, wait for ovs-vswitchd.

        Returns the tables afterwards. `plan` puts a `wait` before what must not have changed since it was read;
        where something has, the whole is done again once. Without operations it is only waited. Raises ApplyFailed,
        ApplyTimeout where ovs-vswitchd has not finished in time, and whatever `plan` raises.
        """
        async with self.client.session() as session:
            await session.monitor({ROOT: ["cur_cfg"]})
            for is_last in (False, True):
                tables = await self.read(session)
                operations = list(plan(tables))
                if not operations:
                    wanted = tables.root.integer("next_cfg")
                    break
                try:
                    wanted = await self._commit(session, tables.root, operations, comment)
                    break
                except OvsdbRefused as refused:
                    if refused.error != "timed out" or is_last:
                        raise
            await self._wait_configured(session, tables.root.integer("cur_cfg"), wanted)
            return await self.read(session)

    async def _commit(self, session: Session, root: Row, operations: Sequence[Operation], comment: str) -> int:
        """Returns the number of the configuration that was made."""
        where = [["_uuid", "==", encode(root.uuid)]]
        results = await session.transact(
            [
                *operations,
                {"op": "mutate", "table": ROOT, "where": where, "mutations": [["next_cfg", "+=", 1]]},
                {"op": "select", "table": ROOT, "where": where, "columns": ["next_cfg"]},
                {"op": "comment", "comment": comment},
            ]
        )
        rows = results[-2].get("rows")
        if not isinstance(rows, list) or len(rows) != 1 or not isinstance(rows[0], dict):
            raise OvsdbProtocolError(f"ovsdb-server answered a select of {ROOT} without its row")
        return Row(ROOT, rows[0]).integer("next_cfg")

    async def _wait_configured(self, session: Session, configured: int, wanted: int) -> None:
        limit_s = self.client.timeout_s
        try:
            with trio.fail_after(limit_s):
                while configured < wanted:
                    for change in await session.next_update():
                        if change.columns and "cur_cfg" in change.columns:
                            configured = Row(ROOT, change.columns).integer("cur_cfg")
        except trio.TooSlowError:
            raise ApplyTimeout(
                f"the database has the change, and ovs-vswitchd has not carried it out within {limit_s:g} s",
                hint="is ovs-vswitchd running? its log says what it waits for",
            ) from None

    # --- ports, for what attaches interfaces of its own ------------------------------------------------

    async def attach_port(
        self,
        bridge: str,
        port: str,
        *,
        tag: int | None = None,
        trunks: Sequence[int] = (),
        external_ids: Mapping[str, str] | None = None,
    ) -> None:
        """Make the host's interface `port` a port of `bridge`; where it is one, it is taken off first.

        For a port that is there ovs-vswitchd may hold a device of that name that is no more: its own datapath
        (netdev) does not open one that was made anew, unless the port was away in between.
        With a `tag` it is an access port of that VLAN, with `trunks` those VLANs pass tagged as well; without
        either it carries all. `external_ids` go to the port and say whose it is. Raises ApplyFailed where there is no
        such bridge, where the port is another bridge's, and where ovs-vswitchd cannot open the interface: then
        the port is taken off again.
        """
        ids = dict(external_ids or {})
        vlans = {
            "tag": frozenset() if tag is None else frozenset({tag}),
            "trunks": frozenset(trunks),
            # With a tag and no mode a port is an access port, and trunks would mean nothing.
            "vlan_mode": frozenset({"native-untagged"}) if trunks and tag is not None else frozenset(),
        }

        def plan(tables: Tables) -> list[Operation]:
            row = self._bridge(tables, bridge)
            if tables.named("Port", port) is not None:
                raise ApplyFailed(f"the port {port} is there already, on another bridge than {bridge}")
            columns = {column: encode(value) for column, value in vlans.items()}
            return insert_port(row, {**columns, "name": port, "external_ids": encode(ids)}, {port: {"name": port}})

        await self.detach_port(bridge, port)
        tables = await self.change(f"opfs: attach {port} to {bridge}", plan)
        problems = interface_problems(tables, [port])
        if problems:
            await self.detach_port(bridge, port)
            raise ApplyFailed(f"ovs-vswitchd cannot attach {port} to {bridge}: {'; '.join(problems)}")

    async def detach_port(self, bridge: str, port: str) -> None:
        """Take a port off a bridge; nothing to do where either is gone."""

        def plan(tables: Tables) -> list[Operation]:
            row, there = tables.named("Bridge", bridge), tables.named("Port", port)
            if row is None or there is None or there.uuid not in row.references("ports"):
                return []
            return [remove_ports(row, [there.uuid])]

        await self.change(f"opfs: detach {port} from {bridge}", plan)

    def _bridge(self, tables: Tables, name: str) -> Row:
        row = tables.named("Bridge", name)
        if row is None:
            known = ", ".join(sorted(row.text("name") for row in tables.rows["Bridge"].values())) or "none"
            raise ApplyFailed(f"there is no Open vSwitch bridge {name!r}", hint=f"there are: {known}")
        return row


# --- pieces of a transaction ---------------------------------------------------------------------------


def where(row: Row) -> list[Any]:
    """The condition that means this row."""
    return [["_uuid", "==", encode(row.uuid)]]


def wait_unchanged(row: Row, columns: Iterable[str]) -> Operation:
    """Fail the transaction at once where these columns are no longer as they were read (RFC 7047, 5.2.6)."""
    names = sorted(columns)
    return {
        "op": "wait",
        "timeout": 0,
        "table": row.table,
        "where": where(row),
        "columns": names,
        "until": "==",
        "rows": [{name: row.raw(name) for name in names}],
    }


def insert_port(
    bridge: Row, columns: Mapping[str, Any], interfaces: Mapping[str, Mapping[str, Any]]
) -> list[Operation]:
    """Make a port with its interfaces, each in JSON forms, and give it to a bridge that is there."""
    port, operations = new_port(columns, interfaces)
    return [*operations, _mutate_ports(bridge, "insert", [port])]


def new_port(
    columns: Mapping[str, Any], interfaces: Mapping[str, Mapping[str, Any]]
) -> tuple[NamedUuid, list[Operation]]:
    """The inserts of a port and its interfaces, and the name by which the transaction refers to it."""
    stem = "".join(character if character.isalnum() else f"_{ord(character)}_" for character in columns["name"])
    inserts: list[Operation] = []
    members = []
    for index, row in enumerate(interfaces.values()):
        name = NamedUuid(f"i_{index}_{stem}")
        members.append(name)
        inserts.append({"op": "insert", "table": "Interface", "uuid-name": name.name, "row": dict(row)})
    port = NamedUuid(f"p_{stem}")
    row = {**columns, "interfaces": encode(frozenset(members))}
    return port, [*inserts, {"op": "insert", "table": "Port", "uuid-name": port.name, "row": row}]


def remove_ports(bridge: Row, ports: Sequence[Uuid]) -> Operation:
    """Take ports off a bridge, which deletes them: nothing else refers to them."""
    return _mutate_ports(bridge, "delete", ports)


def _mutate_ports(bridge: Row, mutator: str, ports: Sequence[Uuid | NamedUuid]) -> Operation:
    mutation = ["ports", mutator, encode(frozenset(ports))]
    return {"op": "mutate", "table": "Bridge", "where": where(bridge), "mutations": [mutation]}


def interface_problems(tables: Tables, ports: Iterable[str]) -> list[str]:
    """Why ovs-vswitchd could not make interfaces of these ports, in its own words."""
    problems = []
    for name in ports:
        port = tables.named("Port", name)
        for interface in tables.referred(port, "interfaces", "Interface") if port else ():
            problem = interface_problem(tables, interface)
            if problem:
                problems.append(f"{interface.text('name')}: {problem}")
    return problems


def interface_problem(tables: Tables, interface: Row) -> str | None:
    """What is wrong with an interface; None where the switch has it, or has not come to it yet."""
    error, ofport = interface.optional("error"), interface.optional("ofport")
    if _is_cable_with_one_end(tables, interface):
        return None
    if error is not None:
        return str(error)
    if interface.text("type") in ("", "system") and interface.optional("ifindex") == 0:
        return "its network device is gone (No such device)"
    if ofport == -1:
        return "ovs-vswitchd could not make it and gives no reason"
    if ofport is None and tables.root.integer("cur_cfg") >= tables.root.integer("next_cfg"):
        return "ovs-vswitchd has not made it, perhaps for want of the bridge's datapath; its log has the reason"
    return None


def _is_cable_with_one_end(tables: Tables, interface: Row) -> bool:
    """Whether a patch waits for its peer: one of the two is made first, and ovs-vswitchd calls that an error."""
    peer = interface.pairs("options").get("peer")
    return interface.text("type") == "patch" and peer is not None and tables.named("Interface", peer) is None
