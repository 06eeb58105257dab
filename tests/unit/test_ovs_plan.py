"""Plans of bridges: pure, complete, at rest where nothing is to do, and careful with what others made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st

from opfs.clients.openvswitch import Tables
from opfs.clients.ovsdb_values import Row, Uuid, decode, encode
from opfs.core.action import Kind, Safety
from opfs.core.schema import DocumentSchema
from opfs.plugins.ovs import operations
from opfs.plugins.ovs.plan import compare_bridge, plan_bridge
from opfs.plugins.ovs.rows import Mark, describe_bridge, parse_mark
from opfs.plugins.ovs.settled import settle

SCHEMA = DocumentSchema(json.loads((Path(operations.__file__).parent / "schema.json").read_bytes()))
WORDS = st.sampled_from(["a", "b", "c"])
IDS = st.dictionaries(WORDS, WORDS, max_size=2)
VLANS = st.integers(0, 4095)


def some(**keys):
    """Documents with any part of the keys."""
    return st.fixed_dictionaries({}, optional=keys)


INTERFACES = {
    "type": st.sampled_from(["internal", "system", "patch", "vxlan"]),
    "options": st.dictionaries(st.sampled_from(["peer", "key", "remote_ip"]), WORDS, max_size=2),
    "mtu_request": st.integers(68, 9000),
    "ofport_request": st.integers(1, 100),
    "mac": st.sampled_from(["02:00:00:00:00:0A", "02:00:00:00:00:0a"]),
}
SHARED = {
    "tag": VLANS,
    "trunks": st.lists(VLANS, max_size=3, unique=True),
    "vlan_mode": st.sampled_from(["access", "trunk", "native-tagged"]),
    "other_config": IDS,
    "external_ids": IDS,
}
BONDS = st.builds(
    lambda port, name, first, second: {**port, "interfaces": {f"{name}1": first, f"{name}2": second}},
    some(bond_mode=st.sampled_from(["active-backup", "balance-slb"]), **SHARED),
    WORDS,
    some(external_ids=IDS, **INTERFACES),
    some(external_ids=IDS, **INTERFACES),
)
BRIDGES = some(
    datapath_type=st.sampled_from(["system", "netdev"]),
    fail_mode=st.sampled_from(["standalone", "secure"]),
    protocols=st.lists(st.sampled_from(["OpenFlow10", "OpenFlow13"]), max_size=2, unique=True),
    controller=st.lists(st.sampled_from(["tcp:192.0.2.1", "tcp:192.0.2.2:6653"]), max_size=2, unique=True),
    stp=st.booleans(),
    flood_vlans=st.lists(VLANS, max_size=2, unique=True),
    other_config=IDS,
    external_ids=IDS,
    exclusive=st.booleans(),
    protected=st.booleans(),
    ports=st.builds(
        lambda ports, local: ports | local,
        st.dictionaries(st.sampled_from(["p", "q", "r"]), some(**SHARED, **INTERFACES) | BONDS, max_size=3),
        some(br0=some(**SHARED)),
    ),
)


class Database:
    """As much of ovsdb-server as the plugin's transactions use, rows in their JSON forms; switches at once."""

    DEFAULTS: ClassVar = {
        "Open_vSwitch": {"bridges": ["set", []], "next_cfg": 0, "cur_cfg": 0},
        "Bridge": {
            "name": "", "ports": ["set", []], "controller": ["set", []], "datapath_type": "", "fail_mode": ["set", []],
            "protocols": ["set", []], "flood_vlans": ["set", []], "stp_enable": False, "rstp_enable": False,
            "mcast_snooping_enable": False, "other_config": ["map", []], "external_ids": ["map", []],
        },
        "Port": {
            "name": "", "interfaces": ["set", []], "tag": ["set", []], "trunks": ["set", []], "cvlans": ["set", []],
            "vlan_mode": ["set", []], "bond_mode": ["set", []], "lacp": ["set", []], "other_config": ["map", []],
            "external_ids": ["map", []],
        },
        "Interface": {
            "name": "", "type": "", "options": ["map", []], "mtu_request": ["set", []], "ofport_request": ["set", []],
            "mac": ["set", []], "other_config": ["map", []], "external_ids": ["map", []], "ofport": 1, "ifindex": 1,
            "error": ["set", []],
        },
        "Controller": {"target": ""},
    }  # fmt: skip

    def __init__(self):
        self.rows = {table: {} for table in self.DEFAULTS}
        self.count = 0
        self.insert("Open_vSwitch", {})

    def insert(self, table, columns):
        self.count += 1
        uuid = f"00000000-0000-0000-0000-{self.count:012}"
        assert columns.keys() <= self.DEFAULTS[table].keys()
        self.rows[table][uuid] = {**self.DEFAULTS[table], **columns, "_uuid": ["uuid", uuid]}
        return uuid

    def tables(self):
        return Tables(
            {table: {Uuid(uuid): Row(table, row) for uuid, row in rows.items()} for table, rows in self.rows.items()}
        )

    def transact(self, operations):
        names = {}
        for operation in operations:
            if operation["op"] == "insert":
                names[operation["uuid-name"]] = self.insert(operation["table"], {})
        for operation in json.loads(json.dumps(operations)):
            self.carry_out(operation, names)
        self.collect_garbage()

    def carry_out(self, operation, names):
        def resolved(raw):
            if isinstance(raw, list) and len(raw) == 2 and raw[0] == "named-uuid":
                return ["uuid", names[raw[1]]]
            return [resolved(item) for item in raw] if isinstance(raw, list) else raw

        if operation["op"] == "comment":
            return
        table = self.rows[operation["table"]]
        columns = {column: resolved(value) for column, value in operation.get("row", {}).items()}
        if operation["op"] == "insert":
            table[names[operation["uuid-name"]]] |= columns
            return
        [[_, _, [_, uuid]]] = operation["where"]
        if operation["op"] == "wait":
            [expected] = operation["rows"]
            assert all(table[uuid][column] == value for column, value in expected.items())
        elif operation["op"] == "update":
            table[uuid] |= columns
        else:
            for column, mutator, raw in operation["mutations"]:
                now, part = decode(table[uuid][column]), decode(resolved(raw))
                table[uuid][column] = encode(now | part if mutator == "insert" else now - part)

    def collect_garbage(self):
        for table, column, target in (
            ("Open_vSwitch", "bridges", "Bridge"),
            ("Bridge", "ports", "Port"),
            ("Bridge", "controller", "Controller"),
            ("Port", "interfaces", "Interface"),
        ):
            used = {uuid.value for row in self.rows[table].values() for uuid in Row(table, row).references(column)}
            self.rows[target] = {uuid: row for uuid, row in self.rows[target].items() if uuid in used}

    def observe(self):
        tables = self.tables()
        row = tables.named("Bridge", "br0")
        return None if row is None else describe_bridge(tables, row)

    def become(self, document):
        diff = plan_bridge("br0", self.observe(), document)
        for action in diff.actions:
            details = json.loads(json.dumps(dict(action.details)))
            step = getattr(operations, action.step)
            self.transact(step(self.tables(), "br0", details))
            assert not [op for op in step(self.tables(), "br0", details) if op["op"] != "comment"], "not idempotent"
        return diff


def usable(document):
    """Interfaces belong to one port."""
    members = [member for port in settle("br0", document)["ports"].values() for member in port["interfaces"]]
    return len(set(members)) == len(members)


@settings(max_examples=50)
@given(st.lists(BRIDGES.filter(usable) | st.none(), min_size=1, max_size=4))
def test_any_document_is_reached_from_any_other_and_stays(documents):
    database = Database()
    for document in documents:
        database.become(document)
        found = database.observe()
        if document is None:
            assert found is None
            continue
        SCHEMA.check(found, b"{}")
        assert list(compare_bridge("br0", document, found)) == []
        assert not plan_bridge("br0", found, document).actions
        assert not plan_bridge("br0", found, found).actions
    database.become(None)
    assert [table for table, rows in database.rows.items() if rows] == ["Open_vSwitch"]


@settings(max_examples=50)
@given(BRIDGES.filter(usable), BRIDGES.filter(usable))
def test_the_inverse_plan_brings_back_what_was_there(before, after):
    database = Database()
    database.become(before)
    earlier = database.observe()
    database.become(after)
    database.become(earlier)
    found = database.observe()
    assert list(compare_bridge("br0", earlier, found)) == []
    assert list(compare_bridge("br0", before, found)) == []


@settings(max_examples=50)
@given(BRIDGES.filter(usable), BRIDGES.filter(usable))
def test_a_plan_is_silent_only_about_what_is_so(before, after):
    """Exactly where a plan has no actions there is no difference."""
    database = Database()
    database.become(before)
    found = database.observe()
    assert bool(plan_bridge("br0", found, after).actions) == bool(list(compare_bridge("br0", after, found)))


def with_foreign_port(document):
    database = Database()
    database.become(document)
    [bridge] = database.rows["Bridge"].values()
    interface = database.insert("Interface", {"name": "theirs"})
    port = database.insert("Port", {"name": "theirs", "interfaces": ["uuid", interface]})
    ports = decode(bridge["ports"]) if isinstance(decode(bridge["ports"]), frozenset) else {decode(bridge["ports"])}
    bridge["ports"] = encode(frozenset({*ports, Uuid(port)}))
    return database


@settings(max_examples=50)
@given(BRIDGES.filter(usable), BRIDGES.filter(usable))
def test_a_port_of_others_goes_only_where_the_document_is_exclusive_and_never_silently(before, after):
    database = with_foreign_port(before)
    diff = database.become(after)
    stays = not after.get("exclusive", False)
    assert ("theirs" in database.observe().get("ports", {})) is stays
    assert stays or diff.safety is Safety.DESTRUCTIVE
    assert plan_bridge("br0", database.observe(), None).safety is (Safety.DESTRUCTIVE if stays else Safety.DISRUPTIVE)


def test_safety_classes():
    lan = {"type": "internal"}
    now = {"datapath_type": "netdev", "ports": {"a": lan, "b": {**lan, "tag": 5}}}

    def safety(**changes):
        return plan_bridge("br0", now, {**now, **changes}).safety

    assert safety(external_ids={"a": "b"}) is Safety.SAFE
    assert safety(ports={**now["ports"], "c": lan}) is Safety.SAFE
    assert safety(ports={**now["ports"], "a": {**lan, "external_ids": {"a": "b"}}}) is Safety.SAFE
    assert safety(ports={**now["ports"], "eth0": {}}) is Safety.DISRUPTIVE
    assert safety(ports={"a": lan}) is Safety.DISRUPTIVE
    assert safety(ports={**now["ports"], "a": {**lan, "tag": 6}}) is Safety.DISRUPTIVE
    assert safety(datapath_type="system") is Safety.DISRUPTIVE
    assert safety(fail_mode="secure") is Safety.DISRUPTIVE
    assert plan_bridge("br0", None, now).safety is Safety.SAFE
    assert plan_bridge("br0", None, {"ports": {"eth0": {}}}).safety is Safety.DISRUPTIVE


def test_a_plan_reads_well_and_stays_short():
    lan = {"type": "internal"}
    now = {"ports": {"a": lan, "b": lan}}
    wanted = {"stp": True, "ports": {"a": {**lan, "tag": 6}, "c": lan}}
    [action] = plan_bridge("br0", now, wanted).actions
    assert action.summary == "set stp on; add port c; remove port b; set tag 6 of port a"
    assert (action.kind, action.keys) == (Kind.MODIFY, ("stp", "ports"))
    many = {"ports": {f"p{number}": lan for number in range(1000)}}
    [action] = plan_bridge("br0", None, many).actions
    assert action.summary.endswith("p102, p103, p104 and 992 more")


@given(st.text() | st.none())
def test_any_mark_is_one_of_ours_or_none(text):
    mark = parse_mark(text)
    assert mark is None or parse_mark(mark.render()) == Mark(
        tuple(sorted(mark.ids)), mark.is_exclusive, mark.is_protected
    )
