"""Meshes and tunnels, pure: what a mesh expands to, what is folded back, and plans carried out on a model."""

from __future__ import annotations

import base64
import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.clients.wireguard.tunnel import compare_tunnel, plan_tunnel, routed_networks, settle_tunnel
from opfs.core.action import Safety
from opfs.errors import InvalidRequest
from opfs.plugins.contract import PluginContext
from opfs.plugins.mesh.accepts import check_mesh
from opfs.plugins.mesh.expansion import expand, fold, settle_mesh
from opfs.plugins.mesh.plan import compare_mesh, plan_mesh
from opfs.plugins.mesh.plugin import MeshPlugin


def key(number):
    return base64.b64encode(bytes([number]) * 32).decode()


@pytest.fixture(scope="module")
def validator(tmp_path_factory):
    plugin = MeshPlugin(PluginContext(tmp_path_factory.mktemp("mesh")))
    return jsonschema_rs.Draft202012Validator(dict(plugin.schema))


def node(number):
    """The node of that number, with addresses and networks that are its own."""
    return st.fixed_dictionaries(
        {
            "public_key": st.just(key(number)),
            "addresses": st.sampled_from([[f"10.9.0.{number}"], [f"10.9.0.{number}", f"2001:db8:9::{number}"]]),
        },
        optional={
            "endpoint": st.sampled_from([f"192.0.2.{number}:51820", f"[2001:db8::{number}]:51821"]),
            "allowed_ips": st.sampled_from([[], [f"198.51.{number}.0/24"]]),
            "keepalive": st.integers(0, 60),
        },
    )


@st.composite
def meshes(draw):
    numbers = draw(st.lists(st.integers(2, 6), unique=True, max_size=4))
    nodes = {f"n{number}": draw(node(number)) for number in [1, *numbers]}
    mesh = {"private_key": {"$secret": "k"}, "networks": ["10.9.0.0/24", "2001:db8:9::/64"], "nodes": nodes}
    return mesh | draw(
        st.fixed_dictionaries(
            {},
            optional={
                "listen_port": st.integers(1, 65535),
                "keepalive": st.integers(0, 60),
                "mtu": st.sampled_from([1300, 1400]),
                "state": st.sampled_from(["up", "down"]),
                "preshared_key": st.just({"$secret": "psk"}),
            },
        )
    )


def as_seen(settled):
    """A settlement as an interface with a whole record shows it."""
    seen = {"state": settled["state"], "mtu": settled.get("mtu", 1420), "listen_port": settled["listen_port"]}
    seen |= {"public_key": settled["public_key"], "addresses": settled["addresses"]}
    seen["private_key"] = {"$secret": settled["private_key"]}
    seen["peers"] = {}
    for public_key, peer in settled["peers"].items():
        shown = {name: value for name, value in peer.items() if name not in ("name", "preshared_key")}
        shown["public_key"] = public_key
        shown |= {"preshared_key": {"$secret": peer["preshared_key"]}} if "preshared_key" in peer else {}
        seen["peers"][peer["name"]] = shown
    if settled["state"] == "up" and settled["routes"] != routed_networks(seen["addresses"], seen["peers"].values()):
        seen["routes"] = settled["routes"]
    return seen


@given(meshes())
def test_what_a_mesh_expands_to_folds_back_to_it(mesh):
    check_mesh("mesh0", mesh)
    seen = as_seen(settle_mesh(mesh, "n1"))
    assert fold(seen, mesh) == {**mesh, "self": "n1"}
    assert not list(compare_mesh(mesh, fold(seen, mesh)))
    assert not plan_mesh("mesh0", fold(seen, mesh), mesh).actions


@given(meshes(), meshes())
def test_whatever_is_seen_is_a_mesh_that_would_give_it(applied, real):
    """The record is of another document, or lost: the mesh that is shown expands to what is there."""
    wanted = settle_mesh(real, "n1")
    seen = as_seen(wanted)
    for record in (applied, {}):
        folded = fold(seen, record)
        check_mesh("mesh0", folded)
        shown = settle_mesh(folded, folded["self"])
        assert not list(compare_tunnel(wanted, shown))
        assert not list(compare_tunnel(shown, settle_tunnel(seen)))


@given(meshes())
def test_what_is_folded_without_a_record_fits_the_schema(validator, mesh):
    folded = fold(as_seen(settle_mesh(mesh, "n1")), {})
    assert validator.is_valid(folded), [str(error) for error in validator.iter_errors(folded)]


@given(meshes(), st.integers(0, 4))
def test_two_nodes_agree_on_each_other(mesh, which):
    """What one sends to the other is what the other takes from it, and the other way round."""
    names = list(mesh["nodes"])
    other = names[which % len(names)]
    if other == "n1":
        return
    here, there = expand(mesh, "n1"), expand(mesh, other)
    for mine, peer in ((here, there["peers"]["n1"]), (there, here["peers"][other])):
        assert peer["public_key"] == mine["public_key"]
        own = {address.split("/")[0] for address in mine["addresses"]}
        assert own <= {network.split("/")[0] for network in peer["allowed_ips"]}


class Interface:
    """What a WireGuard interface becomes by the steps of a plan."""

    def __init__(self, settled):
        self.settled = settled

    def carry_out(self, action):
        details = json.loads(json.dumps(dict(action.details)))
        if action.step == "create":
            self.settled = {"state": "down", "fwmark": 0, "addresses": [], "routes": [], "peers": {}}
        elif action.step == "delete":
            self.settled = None
        elif action.step == "set-peers":
            peers = {name: peer for name, peer in self.settled["peers"].items() if name not in details["remove"]}
            for public_key, peer in details["set"].items():
                peers[public_key] = {**peers.get(public_key, {}), **peer}
                peers[public_key].pop("preshared_key", None)
                if "preshared_key" in peer:
                    peers[public_key]["preshared_key"] = peer["preshared_key"]["$secret"]
            self.settled = {**self.settled, "peers": peers}
        else:
            if "private_key" in details:
                details["private_key"] = details["private_key"]["$secret"]
            if details.get("state") == "down":
                kept = [address for address in self.settled["addresses"] if ":" not in address]
                details |= {"addresses": kept, "routes": []}
            self.settled = {**self.settled, **details}


@given(st.one_of(st.none(), meshes()), st.one_of(st.none(), meshes()))
def test_every_plan_carried_out_gives_what_was_asked_for(before, after):
    now = None if before is None else settle_mesh(before, "n1")
    wanted = None if after is None else settle_mesh(after, "n1")
    interface = Interface(now)
    for action in plan_tunnel("mesh", "mesh0", now, wanted).actions:
        assert action.summary.isprintable()
        interface.carry_out(action)
    if wanted is None:
        assert interface.settled is None
    else:
        assert not list(compare_tunnel(wanted, interface.settled))
        assert not plan_tunnel("mesh", "mesh0", interface.settled, wanted).actions


A, B = {"public_key": key(1), "addresses": ["10.9.0.1"]}, {"public_key": key(2), "addresses": ["10.9.0.2"]}
PAIR = {"private_key": {"$secret": "k"}, "networks": ["10.9.0.0/24"], "nodes": {"a": A, "b": B}}


def test_a_hidden_node_keeps_the_way_open_from_its_side_alone():
    mesh = {**PAIR, "nodes": {"a": {**A, "endpoint": "192.0.2.1:7"}, "b": B}}
    assert expand(mesh, "b")["peers"]["a"]["keepalive"] == 25
    assert expand(mesh, "a")["peers"]["b"]["keepalive"] == 0
    assert expand(mesh, "a")["listen_port"] == 7
    assert expand(mesh, "b")["listen_port"] == 51820


def test_losing_a_node_is_told_from_gaining_one():
    seen = fold(as_seen(settle_mesh(PAIR, "a")), PAIR)
    grown = {**PAIR, "nodes": {**PAIR["nodes"], "c": {"public_key": key(3), "addresses": ["10.9.0.3"]}}}
    assert plan_mesh("mesh0", seen, grown).safety is Safety.SAFE
    assert plan_mesh("mesh0", {**grown, "self": "a"}, PAIR).safety is Safety.DISRUPTIVE
    assert plan_mesh("mesh0", seen, None).safety is Safety.DISRUPTIVE
    without_secret = {name: value for name, value in seen.items() if name != "private_key"}
    assert plan_mesh("mesh0", without_secret, None).safety is Safety.DESTRUCTIVE


def test_the_default_route_is_not_taken_into_a_tunnel_unless_it_is_named():
    peer = {"public_key": key(2), "allowed_ips": ["0.0.0.0/0", "::/0", "198.51.100.0/24", "10.9.0.2/32"]}
    document = {"addresses": ["10.9.0.1/24"], "peers": {"b": peer}}
    assert settle_tunnel(document)["routes"] == ["198.51.100.0/24"]
    assert settle_tunnel({**document, "routes": ["0.0.0.0/0"]})["routes"] == ["0.0.0.0/0"]
    assert settle_tunnel({**document, "routes": []})["routes"] == []
    assert settle_tunnel({**document, "state": "down"})["routes"] == []


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"networks": ["10.8.0.0/24"]}, "/nodes/a/addresses/0"),
        ({"nodes": {"a": A, "b": {**B, "addresses": ["10.9.0.1"]}}}, "/nodes/b/addresses/0"),
        ({"nodes": {"a": A, "b": {**B, "allowed_ips": ["10.9.0.1/32"]}}}, "/nodes/b/allowed_ips/0"),
        ({"nodes": {"a": A, "b": {**B, "public_key": key(1)}}}, "/nodes/b/public_key"),
        ({"nodes": {"a": {**A, "endpoint": "[::1%1]:5"}}}, "/nodes/a/endpoint"),
    ],
)
def test_what_cannot_be_is_refused_at_its_spot(change, pointer):
    with pytest.raises(InvalidRequest) as refused:
        check_mesh("mesh0", {**PAIR, **change})
    assert refused.value.location.pointer == pointer
