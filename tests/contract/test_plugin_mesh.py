"""The mesh plugin on wireguard-go, in network namespaces of each test's own: the contract, and a mesh of two hosts."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys

import pytest
from namespaces import in_namespaces, ip, other_host

from opfs.clients.wireguard.keys import parse_key, public_key_of, show_key
from opfs.core.action import Safety
from opfs.errors import ApplyFailed, Rejected
from opfs.plugins.contract import PluginContext
from opfs.plugins.mesh.plugin import MeshPlugin
from opfs.plugins.wireguard.plugin import WireguardPlugin
from opfs.testing.contracts.plugin import CHECKS, PluginCase

pytestmark = pytest.mark.needs("root", "wireguard")

SECRETS = {name: base64.b64encode(os.urandom(32)) + b"\n" for name in ("a", "b", "c", "psk", "stranger")}


def public(name):
    return show_key(public_key_of(parse_key(SECRETS[name].decode().strip())))


def secret(name):
    try:
        return SECRETS[name]
    except KeyError:
        raise ApplyFailed(f"there is no secret {name!r}") from None


A = {"public_key": public("a"), "addresses": ["10.9.0.1", "2001:db8:9::1"], "endpoint": "192.0.2.1:51821"}
B = {"public_key": public("b"), "addresses": ["10.9.0.2"], "endpoint": "192.0.2.2:51820"}
C = {"public_key": public("c"), "addresses": ["10.9.0.3"], "allowed_ips": ["198.51.100.0/24"]}
NETWORKS = ["10.9.0.0/24", "2001:db8:9::/64"]
KEY = {"$secret": "a"}
DOCUMENTS = [
    {"private_key": KEY, "networks": NETWORKS, "nodes": {"a": A, "b": B}},
    {
        "private_key": KEY,
        "preshared_key": {"$secret": "psk"},
        "mtu": 1300,
        "networks": NETWORKS,
        "nodes": {"a": {**A, "addresses": ["10.9.0.9"]}, "b": {**B, "keepalive": 5}, "c": C},
    },
    {"private_key": {"$secret": "b"}, "networks": NETWORKS, "nodes": {"a": A, "b": B, "c": C}, "protected": True},
    {"private_key": {"$secret": "c"}, "networks": NETWORKS, "nodes": {"a": A, "b": B, "c": C}},
]
REFUSED = [
    {},
    {"private_key": KEY, "nodes": {"a": A}},
    {"private_key": public("a"), "networks": NETWORKS, "nodes": {"a": A}},
    {"networks": ["10.9.0.1/24"], "nodes": {}},
    {"networks": ["10.8.0.0/24"], "nodes": {"a": A}},
    {"networks": NETWORKS, "nodes": {"a": A, "b": {**B, "public_key": A["public_key"]}}},
    {"networks": NETWORKS, "nodes": {"a": A, "b": {**B, "addresses": ["10.9.0.1"]}}},
    {"networks": NETWORKS, "nodes": {"a": A, "b": {**B, "endpoint": "b.example.net:51820"}}},
    {"networks": NETWORKS, "nodes": {"c": C, "b": {**B, "allowed_ips": C["allowed_ips"]}}},
    {"networks": NETWORKS, "nodes": {"a": {**A, "public_key": "x"}}},
    {"networks": NETWORKS, "nodes": {"a": {"public_key": A["public_key"]}}},
    {"networks": NETWORKS, "nodes": {"../a": A}},
]


@pytest.fixture
def plugin(tmp_path):
    return MeshPlugin(PluginContext(tmp_path / "state", secret=secret))


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def files_of(directory):
    return [path for path in directory.rglob("*") if path.is_file()]


async def observed(plugin, element="mesh0"):
    return (await plugin.observe([element])).get(element)


async def become(plugin, desired, element="mesh0"):
    """What the daemon does, without policy; returns the plan."""
    if desired is not None:
        plugin.check(element, desired)
    diff = plugin.plan(element, await observed(plugin, element), desired)
    for action in diff.actions:
        await plugin.apply(action)
    return diff


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@in_namespaces
async def test_contract(check, plugin, tmp_path):
    async def disturb():
        run("wg", "set", "mesh0", "peer", public("b"), "allowed-ips", "10.9.0.77/32")

    failing = {**DOCUMENTS[0], "preshared_key": {"$secret": "none"}}
    case = PluginCase(
        plugin, "mesh0", DOCUMENTS, refused=REFUSED, failing=failing, disturb=disturb, protected=DOCUMENTS[2]
    )
    await check(case)
    assert len(ip("-br", "link").splitlines()) == 1, "an interface is left behind"
    assert not files_of(tmp_path / "state/interfaces"), "records are left behind"


HOST = """
import json, sys, trio
from pathlib import Path
from opfs.plugins.contract import PluginContext
from opfs.plugins.mesh.plugin import MeshPlugin
state, element, key, document = sys.argv[1:]
plugin = MeshPlugin(PluginContext(Path(state), secret=lambda name: key.encode()))
async def main():
    desired = json.loads(document)
    for action in plugin.plan(element, (await plugin.observe([element])).get(element), desired).actions:
        print((await plugin.apply(action)).done)
    assert not plugin.compare(element, desired, (await plugin.observe([element])).get(element))
trio.run(main)
"""


@in_namespaces
async def test_two_hosts_with_one_document_reach_each_other(plugin, tmp_path):
    document = {"private_key": {"$secret": "mesh"}, "networks": NETWORKS, "nodes": {"a": A, "b": B, "c": C}}
    # wireguard-go finds sockets by the interface's name, so the two hosts of one /run have an interface each.
    names = {"a": "mesh-a", "b": "mesh-b"}
    with other_host("b"):
        ip("addr", "add", "192.0.2.1/24", "dev", "to-b")
        ip("-n", "b", "addr", "add", "192.0.2.2/24", "dev", "up0")
        for node, inside in (("a", []), ("b", ["ip", "netns", "exec", "b"])):
            key = SECRETS[node].decode().strip()
            arguments = [str(tmp_path / node), names[node], key, json.dumps(document)]
            said = run(*inside, sys.executable, "-c", HOST, *arguments)
            assert f"joined the mesh {names[node]} as {node}" in said
        run("ping", "-c1", "-w60", "10.9.0.2")
        key, received, sent = run("wg", "show", "mesh-b", "transfer").splitlines()[0].split()
        assert key == public("a")
        assert int(received) >= 148 + 96
        assert int(sent) >= 92 + 96
        route = ip("-n", "b", "route", "show", "dev", "mesh-b")
        assert "198.51.100.0/24" in route, "what is behind c is reached through the mesh"


@in_namespaces
async def test_a_change_of_others_is_planned_step_by_step(plugin):
    await become(plugin, DOCUMENTS[0])
    grown = {**DOCUMENTS[0], "nodes": {"a": A, "b": B, "c": C}}
    diff = await become(plugin, grown)
    assert [action.step for action in diff.actions] == ["set-peers", "set-routes", "note"]
    assert diff.safety is Safety.SAFE
    assert "add the peer c" in diff.actions[0].summary
    seen = await observed(plugin)
    assert seen == {**grown, "self": "a"}
    renamed = {**grown, "nodes": {"a": A, "b": B, "carol": C}}
    await become(plugin, renamed)
    assert await observed(plugin) == {**renamed, "self": "a"}
    assert plugin.plan("mesh0", await observed(plugin), DOCUMENTS[0]).safety is Safety.DISRUPTIVE


@in_namespaces
async def test_what_is_seen_is_shown_in_the_mesh_s_words(plugin):
    await become(plugin, DOCUMENTS[1])
    run("wg", "set", "mesh0", "peer", public("b"), "allowed-ips", "10.9.0.2/32,203.0.113.0/24")
    run("wg", "set", "mesh0", "peer", public("c"), "remove")
    ip("addr", "add", "10.9.0.8/25", "dev", "mesh0")
    seen = await observed(plugin)
    assert seen["nodes"]["b"]["allowed_ips"] == ["203.0.113.0/24"]
    assert seen["nodes"]["a"]["addresses"] == ["10.9.0.8/25", "10.9.0.9"]
    assert "c" not in seen["nodes"]
    plugin.check("mesh0", seen)
    pointers = {difference.pointer for difference in plugin.compare("mesh0", DOCUMENTS[1], seen)}
    assert pointers == {"/nodes/a/addresses", "/nodes/b/allowed_ips", "/nodes/c"}
    await become(plugin, DOCUMENTS[1])
    assert await observed(plugin) == {**DOCUMENTS[1], "self": "a"}


@in_namespaces
async def test_a_mesh_owns_its_interface(plugin, tmp_path):
    await become(plugin, DOCUMENTS[0])
    wireguard = WireguardPlugin(PluginContext(tmp_path / "wireguard"))
    assert await wireguard.observe(None) == {}
    assert "mesh0" in await wireguard.observe(["mesh0"]), "asked for by name it is shown"
    run("wireguard-go", "theirs")
    key = tmp_path / "key"
    key.write_bytes(SECRETS["c"])
    run("wg", "set", "theirs", "private-key", str(key))
    assert set(await plugin.observe(None)) == {"mesh0"}
    with pytest.raises(ApplyFailed, match="somebody else's"):
        await become(plugin, DOCUMENTS[0], "theirs")
    assert public("c") in run("wg", "show", "theirs")


@in_namespaces
async def test_a_lost_record_costs_the_names(plugin, tmp_path):
    await become(plugin, DOCUMENTS[0])
    for record in files_of(tmp_path / "state/interfaces"):
        record.unlink()
    seen = await observed(plugin)
    assert set(seen["nodes"]) == {public("a"), public("b")}
    heads = {difference.pointer.split("/")[1] for difference in plugin.compare("mesh0", DOCUMENTS[0], seen)}
    assert heads == {"listen_port", "networks", "nodes", "private_key"}, "what no interface shows"
    await become(plugin, DOCUMENTS[0])
    assert await observed(plugin) == {**DOCUMENTS[0], "self": "a"}


@in_namespaces
async def test_what_cannot_be_fails_with_the_reason(plugin):
    with pytest.raises(Rejected, match="names no private key"):
        await become(plugin, {"networks": NETWORKS, "nodes": {"a": A}})
    for key, reason in [
        ("none", "no secret 'none'"),
        ("stranger", f"this host's public key is {public('stranger')}, and no node of the mesh mesh0 has it"),
    ]:
        with pytest.raises(ApplyFailed, match=re.escape(reason)):
            await become(plugin, {**DOCUMENTS[0], "private_key": {"$secret": key}})
        half_made = await observed(plugin)
        assert half_made is not None
        assert plugin.compare("mesh0", DOCUMENTS[0], half_made)
        await become(plugin, None)
        assert await observed(plugin) is None
    await become(plugin, DOCUMENTS[0])
    without = {**DOCUMENTS[0], "nodes": {"b": B}}
    with pytest.raises(ApplyFailed, match="no node of the mesh"):
        await become(plugin, without)
    assert not plugin.compare("mesh0", DOCUMENTS[0], await observed(plugin)), "nothing was changed"
