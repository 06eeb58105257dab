"""The openflow plugin on a real Open vSwitch: the contract of plugins, flows of others, failed bundles, packets."""

from __future__ import annotations

import pytest
import trio
from becoming import become, observed
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from opfs.core.action import Safety
from opfs.errors import ApplyFailed, InvalidRequest
from opfs.plugins.openflow.plugin import OpenFlowPlugin
from opfs.testing.contracts.plugin import CHECKS, PluginCase

pytestmark = pytest.mark.needs("root", "ovs")


@pytest.fixture
def bridge(switch):
    switch.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
    return "br0"


@pytest.fixture
def plugin(switch, bridge):
    return OpenFlowPlugin(switch.place)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check, plugin, switch, bridge):
    async def disturb():
        switch.ofctl("del-flows", switch.management(bridge), "arp")

    protected = {"flows": ["priority=0,actions=drop"], "protected": True}
    await check(
        PluginCase(
            plugin,
            bridge,
            [
                {"flows": ["priority=10,arp,actions=normal", {"match": "in_port=1", "actions": "drop", "cookie": 7}]},
                {
                    "flows": [
                        {"table": 1, "priority": 5, "match": "ip,nw_dst=192.0.2.77/24", "actions": "group:3"},
                        "priority=10,arp,actions=output:2,output:3",
                        "dl_vlan=5,actions=mod_vlan_vid:6,strip_vlan,resubmit(,1)",
                        "table=7,actions=drop",
                    ],
                    "groups": ["group_id=3,type=select,bucket=output:1,bucket=weight=5,output:2"],
                },
                {
                    "flows": ["cookie=0xdeadbeefdeadbeef,priority=9,actions=NORMAL"],
                    "groups": ["group_id=3,type=all,bucket=output:1"],
                    "exclusive": True,
                },
                protected,
                {"flows": []},
            ],
            refused=[
                {},
                {"flows": "priority=10,arp,actions=normal"},
                {"flows": ["arrp,actions=normal"]},
                {"flows": ["arp"]},
                {"flows": [""]},
                {"flows": [" "]},
                {"flows": ["arp,actions=drop\narp,actions=normal"]},
                {"flows": ["arp,actions=drop#"]},
                {"flows": ["# arp,actions=drop"]},
                {"flows": ["delete table=0"]},
                {"flows": ["delete,table=0,actions=drop"]},
                {"flows": ["--bundle"]},
                {"flows": ["arp,idle_timeout=5,actions=drop"]},
                {"flows": ["arp,check_overlap,actions=drop"]},
                {"flows": ["cookie=0x100000000,arp,actions=drop"]},
                {"flows": ["cookie=1/1,arp,actions=drop"]},
                {"flows": ["arp,actions=drop", {"match": "dl_type=0x806", "actions": "NORMAL"}]},
                {"flows": ["tcp_dst=80,actions=drop"]},
                {"flows": ["in_port=lan0,actions=drop"]},
                {"flows": ["actions=output:/etc/passwd"]},
                {"flows": [{"match": "arp"}]},
                {"flows": [{"actions": "drop", "priority": 70000}]},
                {"flows": [{"actions": "drop", "surprise": 1}]},
                {"flows": [], "groups": ["group_id=1,type=magic,bucket=output:1"]},
                {"flows": [], "groups": ["--help"]},
                {"flows": [], "groups": ["group_id=1,type=all", "group_id=1,type=all,bucket=output:2"]},
                {"flows": [], "others": 1},
                {"flows": [], "origin": "foreign"},
                {"flows": [], "bridge": "br1"},
            ],
            failing={"flows": ["priority=10,arp,actions=normal", "ip,actions=group:99"]},
            disturb=disturb,
            protected=protected,
        )
    )
    assert switch.ofctl("--no-stats", "dump-flows", switch.management(bridge)) == " priority=0 actions=NORMAL\n"
    assert switch.vsctl("get", "bridge", bridge, "external_ids") == "{}"


def flows(switch, bridge):
    """What ovs-ofctl shows, cookies included."""
    return switch.ofctl("--no-stats", "--no-names", "dump-flows", switch.management(bridge)).splitlines()


async def test_flows_of_others_stay_and_are_no_drift(plugin, switch, bridge):
    document = {"flows": ["cookie=7,priority=10,arp,actions=NORMAL"]}
    await become(plugin, bridge, document)
    switch.ofctl("add-flow", switch.management(bridge), "cookie=0x9,priority=5,icmp,actions=drop")
    now = await observed(plugin, bridge)
    assert now == {"flows": ["cookie=0x7,priority=10,arp,actions=NORMAL"], "others": 1}
    assert not plugin.compare(bridge, document, now)
    await become(plugin, bridge, {"flows": ["priority=10,ip,actions=NORMAL"]})
    assert flows(switch, bridge) == [
        " cookie=0x6f70667300000000, priority=10,ip actions=NORMAL",
        " cookie=0x9, priority=5,icmp actions=drop",
        " priority=0 actions=NORMAL",
    ]
    await become(plugin, bridge, None)
    assert flows(switch, bridge) == [" cookie=0x9, priority=5,icmp actions=drop", " priority=0 actions=NORMAL"]


async def test_a_flow_of_others_is_never_replaced(plugin, switch, bridge):
    switch.ofctl("add-flow", switch.management(bridge), "cookie=0x9,priority=5,icmp,actions=drop")
    with pytest.raises(ApplyFailed, match="a flow of others with the same table, priority and match: cookie=0x9"):
        await become(plugin, bridge, {"flows": ["arp,actions=drop", "priority=5,icmp,actions=NORMAL"]})
    switch.ofctl("add-group", switch.management(bridge), "group_id=3,type=all,bucket=output:1")
    with pytest.raises(ApplyFailed, match="a group 3 of others"):
        await become(plugin, bridge, {"flows": [], "groups": ["group_id=3,type=all,bucket=output:2"]})
    assert flows(switch, bridge) == [" cookie=0x9, priority=5,icmp actions=drop", " priority=0 actions=NORMAL"]


async def test_an_exclusive_document_removes_flows_of_others_which_needs_a_confirmation(plugin, switch, bridge):
    document = {"flows": ["priority=10,arp,actions=NORMAL"], "exclusive": True}
    await become(plugin, bridge, {"flows": ["priority=1,arp,actions=NORMAL"]})
    switch.ofctl("add-flow", switch.management(bridge), "cookie=0x9,priority=5,icmp,actions=drop")
    plan = await become(plugin, bridge, document)
    assert plan.safety is Safety.DESTRUCTIVE
    assert "remove 1 flow that opfs did not make" in plan.actions[0].summary
    assert flows(switch, bridge) == [" priority=10,arp actions=NORMAL"]
    switch.ofctl("add-flow", switch.management(bridge), "cookie=0x9,priority=5,icmp,actions=drop")
    assert [d.observed for d in plugin.compare(bridge, document, await observed(plugin, bridge))] == [
        "cookie=0x9,priority=5,icmp,actions=drop"
    ]
    await become(plugin, bridge, document)
    assert flows(switch, bridge) == [" priority=10,arp actions=NORMAL"]
    await become(plugin, bridge, None)
    assert flows(switch, bridge) == [" priority=0 actions=NORMAL"], "the bridge is as Open vSwitch makes them"


async def test_an_exclusive_document_waits_for_a_new_plan_where_others_were_quicker(plugin, switch, bridge):
    document = {"flows": ["priority=10,arp,actions=NORMAL"], "exclusive": True}
    [action] = plugin.plan(bridge, None, document).actions
    switch.ofctl("add-flow", switch.management(bridge), "cookie=0x9,priority=5,icmp,actions=drop")
    with pytest.raises(ApplyFailed, match="1 flows that opfs did not make, more than the plan knew of"):
        await plugin.apply(action)
    assert " cookie=0x9, priority=5,icmp actions=drop" in flows(switch, bridge)


async def test_flows_made_by_others_are_adopted_as_they_are(plugin, switch, bridge):
    """What an import does: the first plan is empty."""
    switch.ofctl("add-flow", switch.management(bridge), "cookie=0x9,priority=5,icmp,actions=drop")
    found = await observed(plugin, bridge)
    document = {key: value for key, value in found.items() if key != "origin"}
    assert document == {
        "flows": ["cookie=0x9,priority=5,icmp,actions=drop", "priority=0,actions=NORMAL"],
        "exclusive": True,
    }
    assert not plugin.plan(bridge, found, document).actions
    assert not plugin.compare(bridge, document, found)
    assert not plugin.plan(bridge, found, None).actions, "what opfs did not make it does not remove"
    await become(plugin, bridge, {**document, "flows": document["flows"][1:]})
    assert flows(switch, bridge) == [" priority=0 actions=NORMAL"]


async def test_the_default_flow_comes_back_when_ours_goes(plugin, switch, bridge):
    await become(plugin, bridge, {"flows": ["priority=0,actions=drop"]})
    assert flows(switch, bridge) == [" cookie=0x6f70667300000000, priority=0 actions=drop"]
    await become(plugin, bridge, {"flows": ["arp,actions=NORMAL"]})
    assert " priority=0 actions=NORMAL" in flows(switch, bridge)
    switch.vsctl("set-fail-mode", bridge, "secure")
    await become(plugin, bridge, {"flows": ["priority=0,actions=drop"]})
    await become(plugin, bridge, None)
    assert flows(switch, bridge) == [], "a secure bridge has none"


async def test_a_refused_bundle_leaves_the_flows_that_were_there(plugin, switch, bridge):
    await become(plugin, bridge, {"flows": ["priority=10,arp,actions=NORMAL", "priority=10,ip,actions=NORMAL"]})
    before = flows(switch, bridge)
    with pytest.raises(ApplyFailed, match=r"OFPBAC_BAD_OUT_GROUP: ADD .*actions=group:99"):
        await become(plugin, bridge, {"flows": ["priority=9,arp,actions=drop", "ip,actions=group:99"]})
    assert flows(switch, bridge) == before


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        ("arrp,actions=drop", "field arrp missing value"),
        ("ip,tcp_dst=80,actions=drop", "would take ip,tp_dst=80 as ip: a field lacks what it needs"),
        ("nw_dst=192.0.2.1,actions=drop", "would take nw_dst=192.0.2.1 as any packet"),
        ("arp,actions=warp", "unknown action warp"),
        ("in_port=lan0,actions=drop", "lan0: invalid or unknown port"),
        ("ip,actions=set_field:80->tcp_dst", "OFPBAC_MATCH_INCONSISTENT"),
    ],
)
def test_a_refusal_names_the_flow_and_says_why(plugin, flow, words):
    documents = [f"priority={number},arp,actions=NORMAL" for number in range(200)]
    with pytest.raises(InvalidRequest) as caught:
        plugin.check("br0", {"flows": [*documents, flow, "ip,actions=drop"]})
    assert caught.value.location.pointer == "/flows/200"
    assert "flow 201" in str(caught.value)
    assert words in str(caught.value)


async def test_a_bridge_without_openflow_1_3_is_explained(plugin, switch, bridge):
    switch.vsctl("set", "bridge", bridge, "protocols=OpenFlow10")
    with pytest.raises(ApplyFailed, match="the bridge's protocols must have OpenFlow13"):
        await observed(plugin, bridge)


async def test_without_its_bridge_it_fails_and_observes_nothing(plugin, switch):
    assert await observed(plugin, "br7") is None
    with pytest.raises(ApplyFailed, match="no Open vSwitch bridge 'br7'"):
        await become(plugin, "br7", {"flows": ["actions=drop"]})
    [dependency] = plugin.depends_on("br7", {"flows": []})
    assert str(dependency.any_of[0]) == "ovs/br7"


async def test_a_restarted_switch_has_lost_its_flows_which_is_drift_and_is_repaired(plugin, switch, bridge):
    document = {"flows": ["priority=10,arp,actions=NORMAL"], "groups": ["group_id=1,type=all,bucket=output:1"]}
    await become(plugin, bridge, document)
    switch.restart_vswitchd()
    assert len(plugin.compare(bridge, document, await observed(plugin, bridge))) == 2
    await become(plugin, bridge, document)
    assert " cookie=0x6f70667300000000, priority=10,arp actions=NORMAL" in flows(switch, bridge)


async def test_packets_obey_the_flows(plugin, switch, bridge):
    for name, number in (("lan1", 1), ("lan2", 2)):
        switch.vsctl(
            "add-port", bridge, name, "--", "set", "interface", name, "type=internal", f"ofport_request={number}"
        )
    one = switch.host("lan1", "192.0.2.1/24")
    switch.host("lan2", "192.0.2.2/24")
    switched = ["in_port=1,actions=output:2", "in_port=2,actions=group:1"]
    group = ["group_id=1,type=all,bucket=output:1"]
    await become(plugin, bridge, {"flows": switched, "groups": group, "exclusive": True})
    assert one.reaches("192.0.2.2")
    await become(
        plugin, bridge, {"flows": [*switched, "priority=40000,icmp,actions=drop"], "groups": group, "exclusive": True}
    )
    assert not one.pings("192.0.2.2")
    await become(plugin, bridge, {"flows": switched, "groups": group, "exclusive": True})
    assert one.reaches("192.0.2.2")


async def test_the_watch_reports_flows_that_others_change_and_a_switch_that_was_restarted(plugin, switch, bridge):
    seen = trio.Event()

    def report(sighting):
        assert sighting.element == bridge
        seen.set()

    async def expect(change):
        nonlocal seen
        while True:
            seen = trio.Event()
            await trio.to_thread.run_sync(change)
            with trio.move_on_after(0.3):
                await seen.wait()
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(plugin.watch, report)
        with trio.fail_after(120):
            await expect(lambda: switch.ofctl("add-flow", switch.management(bridge), "priority=5,icmp,actions=drop"))
            await expect(lambda: switch.ofctl("del-flows", switch.management(bridge), "icmp"))
            switch.restart_vswitchd()
            seen = trio.Event()
            await seen.wait()
            await expect(lambda: switch.ofctl("add-flow", switch.management(bridge), "priority=5,icmp,actions=drop"))
        nursery.cancel_scope.cancel()


MATCHES = """
arp | ip | ip,nw_dst=192.0.2.77/24 | tcp,tp_dst=80 | udp6,tp_src=53 | dl_vlan=5 | in_port=LOCAL | ip,nw_tos=8,nw_frag=no
dl_dst=02:00:00:00:00:01/ff:00:00:00:00:00 | ct_state=+trk-new,ip | metadata=5/0xf | icmp,icmp_type=8 | tun_id=7
ipv6,ipv6_dst=2001:db8::/32 | reg0=0x5,reg1=7/0xff | vlan_tci=0x1005/0x1fff |
"""
ACTIONS = """
drop | NORMAL | output:1 | 1,2,LOCAL | flood | all | in_port | controller | CONTROLLER:128 | mod_vlan_vid:5,output:2 |
strip_vlan,normal | resubmit(,4) | goto_table:9 | write_metadata:0x5/0xff | set_field:02:00:00:00:00:01->eth_dst,1
load:0x5->NXM_NX_REG0[0..7],1 | set_queue:3,1 | dec_ttl,1 | mod_dl_src:02:00:00:00:00:02,1 | note:1.2.3
ct(commit,zone=7,table=3) | push_vlan:0x8100,output:1 | move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],1
learn(table=1,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]) | write_actions(output:3),goto_table:9
clear_actions,goto_table:9 | multipath(eth_src,50,modulo_n,1,0,NXM_NX_REG0[])
"""


def any_of(words):
    return st.sampled_from([word.strip() for line in words.strip().splitlines() for word in line.split("|")])


FLOWS = st.lists(
    st.builds(
        lambda table, priority, cookie, match, actions, flags: ",".join(
            filter(
                None, [f"cookie={cookie}", f"table={table}", f"priority={priority}", match, flags, f"actions={actions}"]
            )
        ),
        st.integers(0, 3),
        st.sampled_from([0, 1, 32768, 65535]),
        st.sampled_from([0, 7, 0xFFFFFFFF]),
        any_of(MATCHES),
        any_of(ACTIONS),
        st.sampled_from(["", "", "send_flow_rem", "no_packet_counts,no_byte_counts"]),
    ),
    max_size=12,
)


def test_what_is_parsed_is_what_the_switch_shows(private_switch):
    """For any flows that are accepted: applied, they are observed without a difference, and need no second plan."""
    private_switch.clear()
    private_switch.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
    plugin = OpenFlowPlugin(private_switch.place)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(FLOWS)
    def check(texts):
        document = {"flows": texts}
        try:
            plugin.check("br0", document)
        except InvalidRequest:
            assume(False)

        async def run():
            diff = plugin.plan("br0", await observed(plugin, "br0"), document)
            for action in diff.actions:
                await plugin.apply(action)
            found = await observed(plugin, "br0")
            assert list(plugin.compare("br0", document, found)) == []
            assert not plugin.plan("br0", found, document).actions
            assert not plugin.plan("br0", found, found).actions

        trio.run(run)

    check()
    private_switch.clear()
