"""Flows in ovs-ofctl's normal form, the bundles that lead from some to others, and whose flow is whose; pure."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.clients.openflow_text import NORMAL, Flow, Group, read_dump, read_flow, read_groups, read_parsed
from opfs.core.action import Safety
from opfs.errors import ApplyFailed
from opfs.plugins.openflow.documents import read_observed, write_document
from opfs.plugins.openflow.plan import NAMESPACE, Contents, Goal, check_no_clash, differences, is_ours, plan_flows
from opfs.plugins.openflow.record import Record, read_record

MATCHES = ["", "arp", "ip,nw_dst=192.0.2.0/24", "tcp,tp_dst=22", "dl_src=02:00:00:00:00:01", "ct_state=+trk-new,ip"]
FLOWS = st.builds(
    Flow,
    st.integers(0, 253),
    st.sampled_from([0, 1, 32768, 65535]),
    st.sampled_from(MATCHES),
    st.sampled_from(["drop", "NORMAL", "output:1,output:2", "learn(table=1,actions=x),resubmit(,2)", "group:1"]),
    st.sampled_from([0, 7, 0xFFFFFFFF]),
    st.sampled_from([(), ("send_flow_rem",), ("no_packet_counts", "no_byte_counts")]),
)
GROUPS = st.builds(
    lambda number, rest: Group(number, f"group_id={number},{rest}"),
    st.integers(1, 4),
    st.sampled_from(["type=all,bucket=actions=output:1", "type=select,bucket=weight:5,actions=output:2"]),
)


def unique(flows):
    return tuple({flow.identity: flow for flow in flows}.values())


CONTENTS = st.builds(
    lambda flows, groups, is_exclusive, is_protected: Contents(
        unique(flows), tuple({group.number: group for group in groups}.values()), is_exclusive, is_protected
    ),
    st.lists(FLOWS, max_size=6),
    st.lists(GROUPS, max_size=3),
    st.booleans(),
    st.booleans(),
)


def perform(lines, flows, groups):
    """What a switch makes of a bundle."""
    flows, groups = {flow.identity: flow for flow in flows}, {group.number: group for group in groups}
    for line in lines:
        kind, verb, text = line.split(" ", 2)
        if kind == "group" and verb == "delete":
            del groups[int(text.removeprefix("group_id="))]
        elif kind == "group":
            [group] = read_groups(f" {text}")
            assert (verb == "modify") == (group.number in groups)
            groups[group.number] = group
        elif verb == "add":
            flow = read_flow(text)
            flows[flow.identity] = flow
        else:
            cookie, selector = re.fullmatch(r"cookie=(0x[0-9a-f]+)/-1,(.*)", text).groups()
            flow = next(flow for flow in flows.values() if flow.selector == selector)
            assert flow.cookie == int(cookie, 16)
            del flows[flow.identity]
    return tuple(flows.values()), tuple(groups.values())


@given(st.lists(FLOWS, max_size=6).map(unique), CONTENTS, CONTENTS)
def test_a_bundle_leads_from_any_flows_to_any_others_and_leaves_those_of_others(others, before, after):
    """Of others, unless `after` has a flow in the place of one, which is refused beforehand."""
    places = {flow.identity for flow in (*before.flows, *after.flows)}
    others = [flow for flow in others if flow.identity not in places]
    present = [*others, *Contents(before.flows).on_the_switch]
    goal = Goal(tuple(after.on_the_switch), after.groups, frozenset(group.number for group in before.groups))
    flows, groups = perform(goal.lines(present, before.groups), present, before.groups)
    kept = [flow for flow in flows if not is_ours(flow) and flow not in after.on_the_switch]
    assert sorted(kept, key=repr) == sorted(others, key=repr)
    assert {flow for flow in flows if flow not in others} == set(after.on_the_switch)
    assert set(groups) == set(after.groups)
    assert goal.lines(flows, groups) == []


@given(st.lists(FLOWS, max_size=6).map(unique), CONTENTS)
def test_a_goal_that_removes_everything_leaves_itself(others, after):
    goal = Goal(tuple(after.on_the_switch), after.groups, removes_all=True)
    theirs = (Group(9, "group_id=9,type=all"),)
    flows, groups = perform(goal.lines(others, theirs), others, theirs)
    assert (set(flows), set(groups)) == (set(after.on_the_switch), set(after.groups))


@given(CONTENTS)
def test_what_is_so_needs_no_plan_and_survives_as_a_document(contents):
    assert not plan_flows("br0", contents, contents).actions
    assert read_observed(write_document(contents)) == contents


@given(CONTENTS, CONTENTS)
def test_a_plan_has_an_action_exactly_where_there_is_a_difference(before, after):
    diff = plan_flows("br0", before, after)
    assert bool(diff.actions) == bool(list(differences(after, before)))
    for action in diff.actions:
        assert [read_flow(text) for text in action.details["flows"]] == list(after.flows)
        assert "\n" not in action.summary


@given(FLOWS)
def test_a_text_is_read_back(flow):
    assert read_flow(flow.text) == flow


def test_listings_and_parses_are_read_alike():
    dumped = read_dump(
        "OFPST_FLOW reply (OF1.3) (xid=0x2):\n"
        " cookie=0x5, duration=4.1s, table=4, n_packets=0, n_bytes=0, idle_timeout=4, hard_timeout=9, "
        "send_flow_rem no_packet_counts priority=3,tcp,tp_dst=80 actions=drop\n"
        " priority=0 actions=NORMAL\n"
        " table=5, actions=learn(table=1,actions=drop)\n"
    )
    parsed = read_parsed(
        "usable protocols: any\nchosen protocol: OXM-OpenFlow13\n"
        "OFPT_FLOW_MOD (OF1.3) (xid=0x1): ADD table:4 priority=3,tcp,tp_dst=80 cookie:0x5 idle:4 hard:9 "
        "send_flow_rem no_packet_counts actions=drop\n"
        "OFPT_FLOW_MOD (OF1.3) (xid=0x2): ADD priority=0 actions=NORMAL\n"
        "OFPT_FLOW_MOD (OF1.3) (xid=0x2): ADD table:5 actions=learn(table=1,actions=drop)\n"
    )
    assert dumped == parsed
    assert dumped[1] == NORMAL
    assert dumped[0] == Flow(
        4, 3, "tcp,tp_dst=80", "drop", 5, ("send_flow_rem", "no_packet_counts"), ("idle_timeout=4", "hard_timeout=9")
    )
    assert dumped[2].identity == (5, 32768, "")


def test_removing_flows_of_others_is_destructive_and_everything_else_disruptive():
    ours, wanted = Contents((NORMAL,), others=3), Contents((NORMAL,), is_exclusive=True)
    assert plan_flows("br0", ours, wanted).safety is Safety.DESTRUCTIVE
    assert "remove 3 flows that opfs did not make" in plan_flows("br0", ours, wanted).actions[0].summary
    foreign = Contents((NORMAL, Flow(1, 5, "arp", "drop")), is_exclusive=True, is_foreign=True)
    assert plan_flows("br0", foreign, wanted).safety is Safety.DESTRUCTIVE
    assert plan_flows("br0", foreign, Contents((Flow(1, 6, "arp", "drop"),))).safety is Safety.DISRUPTIVE
    assert plan_flows("br0", None, wanted).safety is Safety.DISRUPTIVE
    assert plan_flows("br0", ours, None).safety is Safety.DISRUPTIVE
    assert not plan_flows("br0", foreign, None).actions


def test_a_clash_with_others_is_refused_but_not_with_the_default_or_ours():
    other, mine = Flow(0, 5, "arp", "drop", 9), Flow(0, 5, "arp", "NORMAL", NAMESPACE)
    check_no_clash("br0", [NORMAL, mine], [NORMAL.with_cookie(NAMESPACE), mine])
    with pytest.raises(ApplyFailed, match="cookie=0x9,priority=5,arp,actions=drop"):
        check_no_clash("br0", [other], [mine])


@given(st.text() | st.none())
def test_any_note_is_one_of_ours_or_none(text):
    record = read_record(text)
    assert record is None or read_record(record.render()) == record


@given(st.booleans(), st.booleans(), st.frozensets(st.integers(0, 2**32)))
def test_a_note_is_read_back(is_exclusive, is_protected, groups):
    record = Record(is_exclusive, is_protected, groups)
    assert read_record(record.render()) == record
    assert read_record(record.with_groups([7]).render()).groups == groups | {7}


@pytest.mark.parametrize(
    "text", ["", "[]", "7", '{"groups": 7}', '{"groups": ["x"]}', '{"groups": [true]}', "[" * 100_000]
)
def test_a_note_of_somebody_else_is_none(text):
    assert read_record(text) is None
