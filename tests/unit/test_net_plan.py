"""The net plugin's plan, pure: every plan, carried out on a model of the kernel, gives what was asked for.

Also for the types that the kernel of the tests may lack: vlan, bond, dummy, vrf, geneve.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.clients.netlink.kinds import TYPES
from opfs.core.action import Kind, Safety
from opfs.errors import InvalidRequest, Rejected
from opfs.plugins.contract import load_schema
from opfs.plugins.net.plugin import NetPlugin
from opfs.plugins.net.settings import settle

SCHEMA = load_schema(Path(__file__).parents[2] / "opfs/plugins/net")
VALIDATOR = jsonschema_rs.Draft202012Validator(dict(SCHEMA))
PLUGIN = NetPlugin()
ADDRESSES = st.lists(
    st.sampled_from(["192.0.2.1/24", "192.0.2.2/24", "10.0.0.1/8", "2001:db8::1/64", "2001:DB8::2/64"]), unique=True
)
ROUTES = st.lists(
    st.sampled_from(
        [
            {"to": "default", "via": "192.0.2.9"},
            {"to": "::/0", "via": "2001:db8::9"},
            {"to": "203.0.113.0/24", "metric": 5},
            {"to": "198.51.100.0/24", "via": "192.0.2.9", "table": 100, "onlink": True},
        ]
    ),
    unique_by=lambda route: route["to"],
)
OPTIONS = {
    "bridge": st.fixed_dictionaries(
        {},
        optional={
            "stp": st.booleans(),
            "priority": st.integers(0, 65535),
            "ageing_time": st.sampled_from([0, 0.5, 300]),
        },
    ),
    "vlan": st.fixed_dictionaries(
        {"id": st.integers(1, 4094)}, optional={"protocol": st.sampled_from(["802.1Q", "802.1ad"])}
    ),
    "vxlan": st.fixed_dictionaries(
        {"id": st.integers(0, 5)}, optional={"port": st.just(4789), "ttl": st.integers(0, 255)}
    ),
    "geneve": st.fixed_dictionaries({"id": st.integers(0, 5), "remote": st.just("192.0.2.2")}),
    "macvlan": st.fixed_dictionaries({}, optional={"mode": st.sampled_from(["bridge", "private"])}),
    "bond": st.fixed_dictionaries(
        {}, optional={"mode": st.sampled_from(["802.3ad", "active-backup"]), "miimon": st.integers(0, 200)}
    ),
    "vrf": st.fixed_dictionaries({"table": st.integers(100, 102)}),
    "tap": st.fixed_dictionaries({}, optional={"owner": st.integers(0, 2000)}),
}


@st.composite
def documents(draw):
    """An acceptable document of any type that can be made."""
    type_ = draw(st.sampled_from(sorted(TYPES)))
    document = {"type": type_}
    document |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "state": st.sampled_from(["up", "down"]),
                "mtu": st.sampled_from([1400, 1500, 9000]),
                "addresses": ADDRESSES,
                "master": st.sampled_from(["", "br0", "br1"]),
                "description": st.sampled_from(["", "office"]),
            },
        )
    )
    if type_ in OPTIONS:
        options = draw(OPTIONS[type_])
        document |= {type_: options} if options or draw(st.booleans()) else {}
    if TYPES[type_].parent_required:
        document["parent"] = draw(st.sampled_from(["eth0", "eth1"]))
    if type_ == "veth":
        document["peer"] = draw(st.sampled_from(["other", "another"]))
    if document.get("state") != "down":
        document["routes"] = draw(ROUTES)
    PLUGIN.check("element", document)
    assert VALIDATOR.is_valid(document), document
    return document


class Kernel:
    """What the kernel does with the steps, as far as the plan relies on it."""

    def __init__(self, document):
        self.document = None if document is None else {"state": "up", **copy.deepcopy(document)}

    def carry_out(self, action):
        details = json.loads(json.dumps(dict(action.details)))
        if action.step == "create":
            assert self.document is None, "made twice"
            self.document = {key: value for key, value in details.items() if key != "options"} | {"state": "down"}
            self.document[details["type"]] = details["options"]
            return
        assert self.document is not None, f"{action.step} of nothing"
        if action.step == "delete":
            self.document = None
        elif action.step == "set-options":
            self.document.setdefault(details["type"], {}).update(details["options"])
            fixed = [word for word, option in TYPES[details["type"]].options.items() if option.fixed]
            assert not set(fixed) & set(details["options"]), "the kernel does not change these"
        elif action.step == "set-state" and details["state"] == "down":
            self.document["state"] = "down"
            self._lose_ipv6_and_routes()
        elif action.step == "set-master":
            self.document["master"] = details["master"]
            self._lose_ipv6_and_routes()
        elif action.step == "set-routes":
            assert self.document["state"] == "up" or not details["routes"], "routes need a link that is up"
            self.document["routes"] = details["routes"]
        else:
            self.document.update(details)

    def _lose_ipv6_and_routes(self):
        self.document["addresses"] = [one for one in self.document.get("addresses", []) if ":" not in one]
        self.document["routes"] = []


@given(st.one_of(st.none(), documents()), st.one_of(st.none(), documents()))
def test_every_plan_carried_out_gives_what_was_asked_for(current, desired):
    diff = PLUGIN.plan("element", current, desired)
    kernel = Kernel(current)
    for action in diff.actions:
        assert action.summary
        kernel.carry_out(action)
    assert not PLUGIN.compare("element", desired, kernel.document)
    assert not PLUGIN.plan("element", kernel.document, desired).actions
    assert PLUGIN.plan("element", current, current).actions == ()


@given(documents())
def test_settling_twice_changes_nothing(document):
    settled = settle(document)
    again = {key: value for key, value in settled.items() if key != "options"}
    again[document["type"]] = {word: value for word, value in settled.get("options", {}).items() if value is not None}
    assert settle(again) == settled


@given(documents())
def test_order_of_addresses_and_routes_means_nothing(document):
    reversed_ = {key: value[::-1] if isinstance(value, list) else value for key, value in document.items()}
    assert not PLUGIN.plan("element", document, reversed_).actions
    assert not PLUGIN.compare("element", document, reversed_)


FOUND = {"type": "ethernet", "state": "up", "mtu": 1500, "addresses": ["192.0.2.2/24"], "routes": [], "master": ""}


def test_what_is_left_out_of_hardware_is_left_alone():
    assert not PLUGIN.plan("eth1", FOUND, {"type": "ethernet"}).actions
    [action] = PLUGIN.plan("eth1", FOUND, {"type": "ethernet", "mtu": 9000}).actions
    assert (action.step, action.details, action.safety) == ("set-link", {"mtu": 9000}, Safety.SAFE)
    assert not PLUGIN.plan("eth1", FOUND, None).actions, "hardware is let go of, not removed"
    assert not PLUGIN.compare("eth1", None, FOUND)


@pytest.mark.parametrize(
    ("current", "desired", "reason"),
    [
        (None, {"type": "ethernet"}, "no interface element on this host"),
        (FOUND, {"type": "bridge"}, "is there as an ethernet interface"),
        ({"type": "bridge", "state": "up"}, {"type": "ethernet"}, "is there as a bridge"),
        ({"type": "other", "kind": "wireguard", "state": "up"}, {"type": "dummy"}, r"kernel's kind wireguard"),
    ],
)
def test_hardware_is_neither_made_nor_taken_for_something_else(current, desired, reason):
    with pytest.raises(Rejected, match=reason):
        PLUGIN.plan("element", current, desired)


GUARDED = {**FOUND, "default_route": True, "routes": [{"to": "default", "via": "192.0.2.1"}]}


@pytest.mark.parametrize(
    "change",
    [
        {"state": "down"},
        {"addresses": []},
        {"routes": []},
        {"routes": [{"to": "default", "via": "192.0.2.7"}]},
        {"master": "br0"},
        {"mac": "02:00:00:00:00:01"},
    ],
)
def test_what_may_cut_off_who_asks_for_it_needs_a_confirmation(change):
    desired = {"type": "ethernet", **change}
    assert PLUGIN.plan("eth0", GUARDED, desired).safety is Safety.DESTRUCTIVE
    dhcp = {key: value for key, value in GUARDED.items() if key != "routes"}
    if "routes" not in change:
        assert PLUGIN.plan("eth0", dhcp, desired).safety is Safety.DESTRUCTIVE, "a default route from DHCP"
    plain = {**GUARDED, "routes": [{"to": "10.0.0.0/8"}], "default_route": False}
    assert PLUGIN.plan("eth1", plain, desired).safety is Safety.DISRUPTIVE


def test_the_loopback_is_guarded():
    lo = {"type": "loopback", "state": "up", "addresses": ["10.0.0.1/32"]}
    assert PLUGIN.plan("lo", lo, {"type": "loopback", "state": "down"}).safety is Safety.DESTRUCTIVE
    assert PLUGIN.plan("lo", lo, {"type": "loopback", "addresses": []}).safety is Safety.DESTRUCTIVE
    assert (
        PLUGIN.plan("lo", lo, {"type": "loopback", "addresses": ["10.0.0.1/32", "10.0.0.2/32"]}).safety is Safety.SAFE
    )


def test_removing_what_the_default_route_goes_through_is_said():
    bridge = {"type": "bridge", "state": "up", "default_route": True}
    for desired in (None, {"type": "veth", "peer": "x"}):
        diff = PLUGIN.plan("br0", bridge, desired)
        assert diff.safety is Safety.DESTRUCTIVE
        assert "default route" in diff.actions[0].summary
    assert PLUGIN.plan("br0", {"type": "bridge", "state": "up"}, None).safety is Safety.DISRUPTIVE


def test_hardware_that_goes_down_is_asked_for_no_routes():
    desired = {"type": "ethernet", "state": "down", "addresses": ["192.0.2.2/24", "2001:db8::1/64"]}
    steps = [action.step for action in PLUGIN.plan("eth0", GUARDED, desired).actions]
    assert steps == ["set-state", "set-addresses"]


def test_what_is_fixed_makes_it_anew_and_the_first_step_says_why():
    vlan = {"type": "vlan", "parent": "eth0", "vlan": {"id": 5}, "state": "up"}
    diff = PLUGIN.plan("v5", vlan, {**vlan, "vlan": {"id": 6}, "addresses": ["192.0.2.1/24"]})
    assert [action.step for action in diff.actions] == ["delete", "create", "set-state", "set-addresses"]
    assert diff.actions[0].kind is Kind.MODIFY
    assert "to make it anew" in diff.actions[0].summary


def test_a_bridge_stops_speaking_stp_before_its_timers_leave_the_protocol():
    now = {"type": "bridge", "state": "up", "bridge": {"stp": True}}
    diff = PLUGIN.plan("br0", now, {"type": "bridge", "bridge": {"forward_delay": 0}})
    assert [action.details["options"] for action in diff.actions] == [{"stp": False}, {"forward_delay": 0}]


def test_a_veth_whose_other_end_is_elsewhere_is_left_as_it_is():
    there = {"type": "veth", "state": "up"}
    wanted = {"type": "veth", "peer": "inside"}
    assert not PLUGIN.plan("v", there, wanted).actions
    assert not PLUGIN.compare("v", wanted, there)


def test_dependencies_are_of_the_kernel_s_or_of_open_vswitch():
    needed = PLUGIN.depends_on("v5", {"type": "vlan", "parent": "eth0", "master": "br0", "vlan": {"id": 5}})
    assert [list(map(str, one.any_of)) for one in needed] == [["net/br0", "ovs/br0"], ["net/eth0", "ovs/eth0"]]
    assert not PLUGIN.depends_on("br0", {"type": "bridge", "master": ""})


@pytest.mark.parametrize(
    ("element", "reason"),
    [("sixteen-letters-", "16 characters long"), ("a:b", "cannot name an interface"), ("lo", "the loopback")],
)
def test_names_that_the_kernel_cannot_have_are_refused(element, reason):
    with pytest.raises(InvalidRequest, match=reason):
        PLUGIN.check(element, {"type": "bridge"})


@pytest.mark.parametrize("mask", [1, 2, 4, 65535])
def test_groups_that_the_kernel_never_forwards_are_refused_with_what_is_left(mask):
    with pytest.raises(InvalidRequest, match="never forwarded") as told:
        PLUGIN.check("br0", {"type": "bridge", "bridge": {"group_fwd_mask": mask}})
    assert told.value.hint == f"say {mask & 0xFFF8}"
    PLUGIN.check("br0", {"type": "bridge", "bridge": {"group_fwd_mask": mask & 0xFFF8}})
