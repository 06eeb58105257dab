"""The `ovs` plugin: bridges of Open vSwitch by OVSDB, one transaction an action, done when ovs-vswitchd says so.

It keeps nothing of its own: what opfs made is marked in the database. Flows, groups and meters are not its matter.
Runs on the trio thread; calls for different bridges may run concurrently, since every one is a transaction.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any, ClassVar, Self

from opfs.clients.openvswitch import ROOT, OpenVSwitch, interface_problems
from opfs.clients.ovsdb import OvsdbClient
from opfs.clients.ovsdb_values import Row
from opfs.clients.switch import DEFAULT, SwitchPlace
from opfs.core.action import Action, ApplyResult, Checkpoint, Difference, Document, StateDiff
from opfs.core.names import ELEMENT_NAME, ElementId
from opfs.errors import ApplyFailed
from opfs.plugins.contract import ContractDefaults, PluginContext, refuse
from opfs.plugins.ovs import operations
from opfs.plugins.ovs.plan import PLUGIN, compare_bridge, plan_bridge
from opfs.plugins.ovs.restore import Layout, dump_bridge, restore_operations
from opfs.plugins.ovs.rows import MARK, WITHHELD_OPTIONS, describe_bridge
from opfs.plugins.ovs.settled import SHORT_KEYS, host_interfaces, named_ports, settle
from opfs.plugins.ovs.watch import BridgeWatch
from opfs.ports import Capabilities, Dependency

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from opfs.clients.ovsdb import Session
    from opfs.clients.ovsdb_values import Uuid
    from opfs.ports import Sighting

BRIDGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,14}\Z")
"""A bridge is a network device too: 15 bytes (IFNAMSIZ), and its name is that of files in the run directory."""
_DEVICE_TYPES = ("system", "internal", "tap")
_STEPS = {
    "create": operations.create,
    "modify": operations.modify,
    "retry": operations.retry,
    "delete": operations.delete,
}


class OvsPlugin(ContractDefaults):
    """Bridges of Open vSwitch as elements."""

    name: ClassVar[str] = PLUGIN
    capabilities: ClassVar[Capabilities] = Capabilities(
        supports_rollback=True, supports_checkpoints=True, atomic_operations=True, watch=True
    )

    def __init__(self, place: SwitchPlace = DEFAULT) -> None:
        super().__init__()
        self.apply_timeout_s = 6 * place.timeout_s
        self._place = place
        self.switch = OpenVSwitch(OvsdbClient(place.database, timeout_s=place.timeout_s))

    @classmethod
    def from_context(cls, context: PluginContext) -> Self:
        """Settings: those of `SwitchPlace.of`."""
        return cls(SwitchPlace.of(context.settings))

    def why_unavailable(self) -> str | None:
        return self._place.why_unavailable()

    # --- pure ------------------------------------------------------------------------------------------

    def check(self, element: str, desired: Document) -> None:
        super().check(element, desired)
        if not BRIDGE_NAME.match(element):
            hint = "1 to 15 of A-Z a-z 0-9 . _ @ + -, since the bridge is a network device too"
            refuse("", f"{element!r} cannot name a bridge", hint)
        _check_ids("/external_ids", desired)
        for name, port in desired.get("ports", {}).items():
            _check_port(element, name, port)
        members: dict[str, str] = {}
        for name, port in settle(element, desired)["ports"].items():
            for member in port["interfaces"]:
                if members.setdefault(member, name) != name:
                    refuse(f"/ports/{name}", f"the interface {member!r} is in the port {members[member]!r} too")

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        return plan_bridge(element, current, desired)

    def compare(self, element: str, desired: Document | None, observed: Document | None) -> Sequence[Difference]:
        if desired is None or observed is None:
            return super().compare(element, desired, observed)
        return tuple(compare_bridge(element, desired, observed))

    def depends_on(self, element: str, desired: Document) -> Sequence[Dependency]:
        """The host's own interfaces that are to be ports."""
        named = named_ports(settle(element, desired)).values()
        members = sorted({member for port in named for member in host_interfaces(port)})
        return [Dependency((ElementId("net", member),)) for member in members if ELEMENT_NAME.match(member)]

    # --- the switch ------------------------------------------------------------------------------------

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        """All bridges in one transaction, whatever their number."""
        del desired
        tables = await self.switch.read()
        found = {row.text("name"): row for row in tables.rows["Bridge"].values()}
        names = sorted(found.keys() if elements is None else found.keys() & set(elements))
        return {name: describe_bridge(tables, found[name]) for name in names if ELEMENT_NAME.match(name)}

    async def apply(self, action: Action) -> ApplyResult:
        step = _STEPS.get(action.step)
        if step is None or not BRIDGE_NAME.match(action.element):
            raise ApplyFailed(f"ovs has no step {action.step!r} for {action.element!r}")
        element, details = action.element, action.details
        tables = await self.switch.change(
            f"opfs: {action.step} ovs/{element}", lambda tables: step(tables, element, details)
        )
        if action.step != "delete":
            problems = interface_problems(tables, {element, *details["ports"]})
            if problems:
                raise ApplyFailed(f"ovs-vswitchd cannot do it for {element}: {'; '.join(problems[:5])}")
        return ApplyResult(action, f"{action.summary} (in one transaction)")

    async def watch(self, report: Callable[[Sighting], None]) -> None:
        """Report the bridges that a transaction changed; OVSDB does not say who made it."""
        async with self.switch.client.session() as session:
            await BridgeWatch(session).run(report)

    # --- restore points --------------------------------------------------------------------------------

    async def checkpoint(self, element: str) -> Checkpoint:
        async with self.switch.client.session() as session:
            layout, rows, _ = await self._configuration(session)
        details = {"rows": dump_bridge(layout, rows, element)}
        return Checkpoint(secrets.token_hex(8), PLUGIN, element, details)

    async def rollback(self, checkpoint: Checkpoint) -> None:
        """One transaction that brings the rows back, and ovs-vswitchd's word that it followed."""
        element, dump = checkpoint.element, checkpoint.details["rows"]
        async with self.switch.client.session() as session:
            layout, rows, root = await self._configuration(session)
        restoring = restore_operations(layout, rows, root, element, dump)
        await self.switch.change(f"opfs: roll back ovs/{element}", lambda _: restoring)

    async def _configuration(self, session: Session) -> tuple[Layout, dict[str, dict[str, Row]], Uuid]:
        """All configuration that bridges are made of, by table and identity, and the identity of the root."""
        layout = Layout(await session.call("get_schema", self.switch.client.database))
        tables = [ROOT, *layout.tables]
        columns = {ROOT: ["_uuid"]} | {table: ["_uuid", *layout.columns(table)] for table in layout.tables}
        selects = [{"op": "select", "table": table, "where": [], "columns": columns[table]} for table in tables]
        found = await session.rows(selects)
        rows: dict[str, dict[str, Row]] = {}
        for table, raw in zip(tables, found, strict=True):
            typed = [Row(table, row) for row in raw]
            rows[table] = {row.uuid.value: row for row in typed}
        [root] = rows.pop(ROOT).values()
        return layout, rows, root.uuid


def _check_port(element: str, name: str, port: Mapping[str, Any]) -> None:
    pointer = f"/ports/{name.replace('~', '~0')}"
    short = [key for key in SHORT_KEYS if key in port]
    if "interfaces" in port and short:
        refuse(f"{pointer}/{short[0]}", f"{short[0]!r} belongs to an interface", "put it below 'interfaces'")
    interfaces = port.get("interfaces") or {name: port}
    for member, interface in interfaces.items():
        kind = interface.get("type", "internal" if member == element else "system")
        where = f"{pointer}/interfaces/{member}" if "interfaces" in port else pointer
        if kind in _DEVICE_TYPES and len(member) > 15:
            refuse(where, f"{member!r} is too long for a network device", "15 characters at most")
        if member == element and kind != "internal":
            refuse(f"{where}/type", "the port called like its bridge is the host's own", 'its type is "internal"')
        for option in WITHHELD_OPTIONS:
            if option in interface.get("options", {}):
                refuse(f"{where}/options/{option}", f"{option!r} is a secret, and a document may not hold one")
        _check_ids(f"{where}/external_ids", interface)
    _check_ids(f"{pointer}/external_ids", port)
    if "bond_mode" in port and len(interfaces) < 2:
        refuse(f"{pointer}/bond_mode", "a bond has two interfaces or more", "name them below 'interfaces'")


def _check_ids(pointer: str, part: Mapping[str, Any]) -> None:
    if MARK in part.get("external_ids", {}):
        refuse(f"{pointer}/{MARK}", f"opfs keeps its own mark in the external id {MARK!r}", "use another key")
