"""The ovs plugin on a real Open vSwitch: the contract of plugins, what others do to a bridge, and real packets."""

from __future__ import annotations

import json

import pytest
import trio
from becoming import become, observed

from opfs.clients.switch import SwitchPlace
from opfs.core.action import Safety
from opfs.errors import ApplyFailed, InvalidRequest
from opfs.plugins.ovs.plugin import OvsPlugin
from opfs.testing.contracts.plugin import CHECKS, PluginCase

pytestmark = pytest.mark.needs("root", "ovs")

NETDEV = {"datapath_type": "netdev"}


@pytest.fixture
def plugin(switch):
    return OvsPlugin(switch.place)


async def until(condition, plugin, document):
    """Observe br0 until the differences from its document are as expected."""
    with trio.fail_after(60):
        while not condition(plugin.compare("br0", document, await observed(plugin, "br0"))):  # noqa: ASYNC110
            await trio.sleep(0.01)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check, plugin, switch):
    async def disturb():
        switch.vsctl("set", "port", "lan0", "tag=77")

    protected = {
        **NETDEV,
        "protected": True,
        "protocols": ["OpenFlow13", "OpenFlow10"],
        "controller": ["tcp:127.0.0.1:6653"],
        "fail_mode": "secure",
        "rstp": True,
        "other_config": {"hwaddr": "02:00:00:00:00:01"},
        "external_ids": {"owner": "lab"},
        "ports": {"br0": {"tag": 5}, "lan1": {"type": "internal"}},
    }
    await check(
        PluginCase(
            plugin,
            "br0",
            [
                {**NETDEV, "ports": {"lan0": {"type": "internal", "tag": 10, "ofport_request": 7}}},
                {
                    **NETDEV,
                    "mcast_snooping": True,
                    "external_ids": {"owner": "you"},
                    "ports": {
                        "lan0": {"type": "internal", "trunks": [20, 10], "external_ids": {"room": "b"}},
                        "vx7": {"type": "vxlan", "options": {"remote_ip": "192.0.2.7", "key": "101"}},
                        "pair": {
                            "interfaces": {"m1": {"type": "internal"}, "m2": {"type": "internal"}},
                            "bond_mode": "active-backup",
                        },
                    },
                },
                protected,
                {},
            ],
            refused=[
                {"datapath_type": "magic"},
                {"ports": {"a b": {}}},
                {"ports": {"a/b": {}}},
                {"ports": {"../br0": {}}},
                {"ports": {"lan\n0": {}}},
                {"ports": {"": {}}},
                {"ports": {"sixteen-letters-": {"type": "internal"}}},
                {"ports": {"lan0": {"tag": 4096}}},
                {"ports": {"lan0": {"tag": "10"}}},
                {"ports": {"lan0": {"type": "warp"}}},
                {"ports": {"lan0": {"type": "gre", "options": {"psk": "swordfish"}}}},
                {"ports": {"lan0": {"type": "internal", "interfaces": {"a": {}, "b": {}}}}},
                {"ports": {"lan0": {"interfaces": {}}}},
                {"ports": {"lan0": {"bond_mode": "active-backup"}}},
                {"ports": {"lan0": {"interfaces": {"x": {}}}, "lan1": {"interfaces": {"x": {}}}}},
                {"ports": {"br0": {"type": "vxlan"}}},
                {"ports": {"lan0": {"external_ids": {"opfs": "{}"}}}},
                {"external_ids": {"opfs": "{}"}},
                {"external_ids": {"a": 1}},
                {"other_config": {"a": "b\nc"}},
                {"controller": "tcp:192.0.2.1"},
                {"controller": ["rm -rf /"]},
                {"protocols": ["OpenFlow99"]},
                {"fail_mode": "open"},
                {"origin": "foreign"},
                {"foreign_ids": {}},
                {"bridges": []},
            ],
            failing={**NETDEV, "ports": {"lan0": {"type": "internal"}, "no-such-device": {}}},
            disturb=disturb,
            protected=protected,
        )
    )
    assert switch.bridges() == []


async def test_ports_of_others_stay_and_are_no_drift(plugin, switch):
    document = {**NETDEV, "ports": {"lan0": {"type": "internal"}}}
    await become(plugin, "br0", document)
    switch.vsctl("add-port", "br0", "theirs", "--", "set", "interface", "theirs", "type=internal")
    now = await observed(plugin, "br0")
    assert now["ports"]["theirs"] == {"type": "internal", "origin": "foreign"}
    assert not plugin.compare("br0", document, now)
    assert not plugin.plan("br0", now, document).actions
    await become(plugin, "br0", {**NETDEV, "ports": {"lan1": {"type": "internal"}}})
    assert switch.vsctl("list-ports", "br0").split() == ["lan1", "theirs"]


async def test_an_exclusive_document_removes_ports_of_others_which_needs_a_confirmation(plugin, switch):
    document = {**NETDEV, "exclusive": True, "ports": {"lan0": {"type": "internal"}}}
    await become(plugin, "br0", document)
    switch.vsctl("add-port", "br0", "theirs", "--", "set", "interface", "theirs", "type=internal")
    now = await observed(plugin, "br0")
    assert [difference.pointer for difference in plugin.compare("br0", document, now)] == ["/ports/theirs"]
    diff = await become(plugin, "br0", document)
    assert diff.safety is Safety.DESTRUCTIVE
    assert "remove port theirs" in diff.actions[0].summary
    assert switch.vsctl("list-ports", "br0") == "lan0"


async def test_a_port_of_others_that_a_document_names_becomes_ours(plugin, switch):
    await become(plugin, "br0", NETDEV)
    switch.vsctl("add-port", "br0", "lan0", "--", "set", "interface", "lan0", "type=internal")
    switch.vsctl("set", "port", "lan0", "external_ids:vm=7")
    diff = await become(plugin, "br0", {**NETDEV, "ports": {"lan0": {"type": "internal"}}})
    assert (diff.actions[0].summary, diff.safety) == ("take over port lan0", Safety.SAFE)
    assert (await observed(plugin, "br0"))["ports"]["lan0"]["foreign_ids"] == {"vm": "7"}
    await become(plugin, "br0", NETDEV)
    assert switch.vsctl("list-ports", "br0") == "", "now it goes with its line in the document"


async def test_a_bridge_made_by_others_is_adopted_as_it_is(plugin, switch):
    """What an import does: the first plan is empty, and from the first change on it is opfs' own."""
    switch.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "external_ids:site=a")
    switch.vsctl("add-port", "br0", "lan0", "tag=4", "--", "set", "interface", "lan0", "type=internal")
    found = await observed(plugin, "br0")
    assert found["origin"] == "foreign"
    document = {key: value for key, value in found.items() if key not in ("origin", "foreign_ids")}
    plugin.check("br0", document)
    assert document == {**NETDEV, "exclusive": True, "ports": {"lan0": {"type": "internal", "tag": 4}}}
    assert not plugin.plan("br0", found, document).actions
    await become(plugin, "br0", {**document, "ports": {**document["ports"], "lan1": {"type": "internal"}}})
    assert "origin" not in await observed(plugin, "br0")
    assert (await become(plugin, "br0", NETDEV)).safety is Safety.DISRUPTIVE
    assert switch.vsctl("list-ports", "br0") == ""
    assert switch.vsctl("get", "bridge", "br0", "external_ids:site") == "a"


async def test_deleting_a_bridge_with_ports_of_others_needs_a_confirmation(plugin, switch):
    await become(plugin, "br0", {**NETDEV, "ports": {"lan0": {"type": "internal"}}})
    assert plugin.plan("br0", await observed(plugin, "br0"), None).safety is Safety.DISRUPTIVE
    plan = plugin.plan("br0", await observed(plugin, "br0"), None)
    switch.vsctl("add-port", "br0", "theirs", "--", "set", "interface", "theirs", "type=internal")
    with pytest.raises(ApplyFailed, match="got the port theirs since the plan"):
        await plugin.apply(plan.actions[0])
    assert switch.bridges() == ["br0"]
    diff = await become(plugin, "br0", None)
    assert diff.safety is Safety.DESTRUCTIVE
    assert "others made port theirs" in diff.actions[0].summary


async def test_what_somebody_changes_between_plan_and_apply_is_not_overwritten(plugin, switch):
    await become(plugin, "br0", {**NETDEV, "ports": {"lan0": {"type": "internal", "tag": 1}}})
    wanted = {**NETDEV, "stp": True, "ports": {"lan0": {"type": "internal", "tag": 2}}}
    plan = plugin.plan("br0", await observed(plugin, "br0"), wanted)
    switch.vsctl("set", "port", "lan0", "tag=3")
    with pytest.raises(ApplyFailed, match="lan0 of br0 was changed by somebody since the plan"):
        await plugin.apply(plan.actions[0])
    assert switch.vsctl("get", "port", "lan0", "tag") == "3"
    assert switch.vsctl("get", "bridge", "br0", "stp_enable") == "false", "nothing of the action was done"


async def test_what_changes_between_reading_and_the_transaction_is_not_overwritten(plugin, switch):
    """The `wait` in the transaction: somebody is quicker by a millisecond, and is seen at the second reading."""
    await become(plugin, "br0", {**NETDEV, "ports": {"lan0": {"type": "internal", "tag": 1}}})
    action = plugin.plan(
        "br0", await observed(plugin, "br0"), {**NETDEV, "ports": {"lan0": {"type": "internal", "tag": 2}}}
    ).actions[0]
    read, tables_seen = plugin.switch.read, []

    async def read_and_be_overtaken(session=None):
        tables = await read(session)
        tables_seen.append(tables)
        if len(tables_seen) == 1:
            switch.vsctl("set", "port", "lan0", "tag=3", wait=False)
        return tables

    plugin.switch.read = read_and_be_overtaken
    with pytest.raises(ApplyFailed, match="was changed by somebody"):
        await plugin.apply(action)
    assert len(tables_seen) == 2
    assert switch.vsctl("get", "port", "lan0", "tag") == "3"


async def test_external_ids_of_others_stay_and_ours_go_with_their_keys(plugin, switch):
    await become(plugin, "br0", {**NETDEV, "external_ids": {"owner": "lab", "room": "b"}})
    switch.vsctl("set", "bridge", "br0", "external_ids:site=a")
    await become(plugin, "br0", {**NETDEV, "external_ids": {"owner": "you"}})
    now = await observed(plugin, "br0")
    assert (now["external_ids"], now["foreign_ids"]) == ({"owner": "you"}, {"site": "a"})
    assert switch.vsctl("get", "bridge", "br0", "external_ids:opfs") == r'"{\"ids\":[\"owner\"]}"'


async def test_a_device_that_is_not_there_fails_with_the_words_of_the_switch(plugin, switch):
    with pytest.raises(ApplyFailed, match="could not open network device eth7 \\(No such device\\)"):
        await become(plugin, "br0", {**NETDEV, "ports": {"eth7": {}}})


async def test_a_tunnel_without_an_end_and_a_bridge_without_a_datapath_fail(plugin, switch):
    with pytest.raises(ApplyFailed, match="requires valid 'remote_ip'"):
        await become(plugin, "br0", {**NETDEV, "ports": {"vx": {"type": "vxlan"}}})
    with pytest.raises(ApplyFailed, match="for want of the bridge's datapath"):
        await become(plugin, "br1", {"datapath_type": "system"})


async def test_a_device_that_goes_away_is_drift_and_comes_back_by_itself(plugin, switch):
    switch.veth("eth7")
    document = {**NETDEV, "ports": {"eth7": {}}}
    assert (await become(plugin, "br0", document)).safety is Safety.DISRUPTIVE, "the host loses the interface"
    switch.sh("ip", "link", "del", "eth7")
    await until(lambda differences: differences, plugin, document)
    [difference] = plugin.compare("br0", document, await observed(plugin, "br0"))
    assert difference.pointer == "/ports/eth7/error"
    [action] = plugin.plan("br0", await observed(plugin, "br0"), document).actions
    with pytest.raises(ApplyFailed, match="No such device"):
        await plugin.apply(action)
    switch.veth("eth7")
    await until(lambda differences: not differences, plugin, document)
    await plugin.apply(action)
    assert not plugin.compare("br0", document, await observed(plugin, "br0"))


async def test_a_port_of_another_bridge_is_named(plugin, switch):
    await become(plugin, "br0", {**NETDEV, "ports": {"lan0": {"type": "internal"}}})
    with pytest.raises(ApplyFailed, match="the port lan0 is on the bridge br0"):
        await become(plugin, "br1", {**NETDEV, "ports": {"lan0": {"type": "internal"}}})
    with pytest.raises(ApplyFailed, match='rows in "Interface" table to have identical values'):
        await become(plugin, "br1", {**NETDEV, "ports": {"x": {"interfaces": {"lan0": {"type": "internal"}}}}})
    assert switch.bridges() == ["br0"]


async def test_a_secret_option_is_not_shown_not_recorded_and_not_lost(plugin, switch):
    await become(plugin, "br0", {**NETDEV, "ports": {"g": {"type": "gre", "options": {"remote_ip": "192.0.2.1"}}}})
    switch.vsctl("set", "interface", "g", "options:psk=swordfish")
    assert "swordfish" not in json.dumps(await observed(plugin, "br0"))
    checkpoint = await plugin.checkpoint("br0")
    assert "swordfish" not in json.dumps(checkpoint.details)
    await become(plugin, "br0", {**NETDEV, "ports": {"g": {"type": "gre", "options": {"remote_ip": "192.0.2.2"}}}})
    assert switch.vsctl("get", "interface", "g", "options:psk") == "swordfish"
    await plugin.rollback(checkpoint)
    assert switch.vsctl("get", "interface", "g", "options") == '{psk=swordfish, remote_ip="192.0.2.1"}'


async def test_a_rollback_brings_back_what_no_document_speaks_of(plugin, switch):
    """A mirror refers to ports; bridge, ports and mirror are made anew, and refer to each other as before."""
    await become(plugin, "br0", {**NETDEV, "ports": {"a": {"type": "internal"}, "b": {"type": "internal"}}})
    switch.vsctl(
        *("--", "--id=@a", "get", "port", "a", "--", "--id=@b", "get", "port", "b"),
        *("--", "--id=@m", "create", "mirror", "name=m", "select-src-port=@a", "output-port=@b"),
        *("--", "set", "bridge", "br0", "mirrors=@m", "flood_vlans=7"),
    )
    before = switch.vsctl("--columns=name", "find", "mirror"), await observed(plugin, "br0")
    checkpoint = await plugin.checkpoint("br0")
    await become(plugin, "br0", None)
    await plugin.rollback(checkpoint)
    assert (switch.vsctl("--columns=name", "find", "mirror"), await observed(plugin, "br0")) == before
    port = switch.vsctl("get", "port", "a", "_uuid")
    assert switch.vsctl("get", "mirror", "m", "select_src_port") == f"[{port}]"


async def test_a_rollback_leaves_what_others_did_meanwhile(plugin, switch):
    await become(plugin, "br0", {**NETDEV, "external_ids": {"owner": "lab"}, "ports": {"a": {"type": "internal"}}})
    checkpoint = await plugin.checkpoint("br0")
    await become(plugin, "br0", {**NETDEV, "ports": {"b": {"type": "internal"}}})
    switch.vsctl("add-port", "br0", "theirs", "--", "set", "interface", "theirs", "type=internal")
    switch.vsctl("set", "bridge", "br0", "external_ids:site=x")
    await plugin.rollback(checkpoint)
    assert switch.vsctl("list-ports", "br0").split() == ["a", "theirs"]
    now = await observed(plugin, "br0")
    assert (now["external_ids"], now["foreign_ids"]) == ({"owner": "lab"}, {"site": "x"})


async def test_the_watch_names_the_bridge_that_others_change(plugin, switch):
    await become(plugin, "br0", {**NETDEV, "ports": {"a": {"type": "internal"}}})
    await become(plugin, "br1", {**NETDEV, "controller": ["tcp:127.0.0.1:1"]})
    send, receive = trio.open_memory_channel(1000)

    async def seen(element, *command):
        """Return when it is told; of what was done before word may still come."""
        await trio.to_thread.run_sync(lambda: switch.vsctl(*command))
        with trio.fail_after(60):
            while (await receive.receive()).element != element:
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(plugin.watch, send.send_nowait)
        # Until the monitor is up changes are not seen; afterwards each is.
        sighting = None
        while sighting is None:
            switch.vsctl("set", "bridge", "br1", f"external_ids:n={trio.current_time()}")
            with trio.move_on_after(0.05):
                sighting = await receive.receive()
        assert sighting.element == "br1", "nobody changed the other"
        await seen("br0", "set", "port", "a", "tag=9")
        await seen("br0", "set", "interface", "a", "mtu_request=1400")
        await seen("br1", "set-controller", "br1", "tcp:127.0.0.1:2")
        await seen("br0", "del-br", "br0")
        nursery.cancel_scope.cancel()


async def test_attaching_ports_of_others(plugin, switch):
    """What the plugin of containers uses: idempotent, checked, and no drift of the bridge."""
    document = {**NETDEV, "ports": {"lan0": {"type": "internal"}}}
    await become(plugin, "br0", document)
    switch.veth("veth7")
    for _ in range(2):
        await plugin.switch.attach_port("br0", "veth7", tag=5, trunks=[6, 7], external_ids={"opfs-lxc": "web"})
    assert switch.vsctl("get", "port", "veth7", "tag", "trunks", "vlan_mode").split("\n") == [
        "5",
        "[6, 7]",
        "native-untagged",
    ]
    assert not plugin.compare("br0", document, await observed(plugin, "br0"))
    for bridge, port, words in (("br0", "no-such", "No such device"), ("br9", "veth7", "no Open vSwitch bridge 'br9'")):
        with pytest.raises(ApplyFailed, match=words):
            await plugin.switch.attach_port(bridge, port)
    assert switch.vsctl("list-ports", "br0").split() == ["lan0", "veth7"]
    for _ in range(2):
        await plugin.switch.detach_port("br0", "veth7")
    assert switch.vsctl("list-ports", "br0") == "lan0"


async def test_packets_go_where_the_document_says(plugin, switch):
    """Two hosts with internal ports and one by a veth; VLANs keep them apart, a patch joins two bridges."""
    lan = {"type": "internal"}
    await become(plugin, "br0", {**NETDEV, "ports": {"lan1": lan, "lan2": lan}})
    one, two = switch.host("lan1", "192.0.2.1/24"), switch.host("lan2", "192.0.2.2/24")
    assert one.reaches("192.0.2.2")
    apart = {"lan1": {**lan, "tag": 10}, "lan2": {**lan, "tag": 20}}
    await become(plugin, "br0", {**NETDEV, "ports": apart})
    assert not one.pings("192.0.2.2")
    three = switch.veth("eth7")
    three.sh("ip", "address", "add", "192.0.2.3/24", "dev", "eth0")
    ends = [{"type": "patch", "options": {"peer": peer}} for peer in ("to-br0", "to-br1")]
    await become(plugin, "br1", {**NETDEV, "ports": {"eth7": {"tag": 20}, "to-br0": ends[1]}})
    assert not three.pings("192.0.2.2"), "the patch has one end only"
    await become(plugin, "br0", {**NETDEV, "ports": {**apart, "to-br1": ends[0]}})
    assert three.reaches("192.0.2.2")
    assert two.reaches("192.0.2.3")
    assert not three.pings("192.0.2.1")


def test_a_bridge_waits_for_the_host_s_interfaces(plugin):
    ports = {
        "eth7": {"tag": 20},
        "x": {"type": "patch"},
        "bond": {"interfaces": {"eth1": {}, "m": {"type": "internal"}}},
    }
    needed = [str(dependency.any_of[0]) for dependency in plugin.depends_on("br1", {"ports": ports})]
    assert needed == ["net/eth1", "net/eth7"]


def test_a_bridge_name_is_that_of_a_device(plugin):
    for name in ("a" * 16, "a:b"):
        with pytest.raises(InvalidRequest, match="cannot name a bridge"):
            plugin.check(name, {})


async def test_without_a_database_it_says_what_to_do(tmp_path):
    plugin = OvsPlugin(SwitchPlace.of({"run_dir": tmp_path}))
    assert "apt-get install openvswitch-switch" in plugin.why_unavailable()
    (tmp_path / "db.sock").touch()
    assert "no socket" in plugin.why_unavailable()
    with pytest.raises(ApplyFailed, match="nobody answers"):
        await plugin.observe(None)
