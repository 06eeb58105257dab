"""The wireguard plugin on wireguard-go, in network namespaces of each test's own: the contract, and real traffic."""

from __future__ import annotations

import base64
import itertools
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
from namespaces import in_namespaces, ip, other_host

from opfs.clients.wireguard.keys import parse_key, public_key_of, show_key
from opfs.core.action import Safety
from opfs.errors import ApplyFailed, InvalidRequest, Rejected
from opfs.plugins.contract import PluginContext
from opfs.plugins.wireguard.plugin import WireguardPlugin
from opfs.testing.contracts.plugin import CHECKS, PluginCase

pytestmark = pytest.mark.needs("root", "wireguard")

SECRETS = {name: base64.b64encode(os.urandom(32)) + b"\n" for name in ("own", "other", "psk", "psk2")}
SECRETS["bad"] = b"not a key"


def public(name):
    return show_key(public_key_of(parse_key(SECRETS[name].decode().strip())))


def key():
    return base64.b64encode(os.urandom(32)).decode()


OFFICE, HOME = key(), key()


def secret(name):
    try:
        return SECRETS[name]
    except KeyError:
        raise ApplyFailed(f"there is no secret {name!r}") from None


@pytest.fixture
def plugin(tmp_path):
    return WireguardPlugin(PluginContext(tmp_path / "state", secret=secret))


DOCUMENTS = [
    {
        "private_key": {"$secret": "own"},
        "listen_port": 51820,
        "addresses": ["10.9.0.1/24", "2001:db8:9::1/64"],
        "peers": {
            "office": {
                "public_key": OFFICE,
                "endpoint": "192.0.2.1:51820",
                "allowed_ips": ["10.9.0.2/32", "198.51.100.0/24"],
                "keepalive": 25,
                "preshared_key": {"$secret": "psk"},
            },
            HOME: {"allowed_ips": ["2001:db8:9::2/128", "0.0.0.0/0"], "endpoint": "[2001:db8::2]:7"},
        },
    },
    {
        "private_key": {"$secret": "other"},
        "public_key": public("other"),
        "fwmark": 7,
        "mtu": 1400,
        "addresses": ["10.9.0.1/24"],
        "routes": ["203.0.113.0/24"],
        "peers": {"office": {"public_key": OFFICE, "allowed_ips": ["10.9.0.0/24", "2001:db8:9::2/128"]}},
    },
    {"private_key": {"$secret": "own"}, "state": "down", "addresses": ["10.9.0.1/24"], "protected": True},
]
REFUSED = [
    {"private_key": key()},
    {"private_key": {"$secret": "../x"}},
    {"private_key": {"$secret": "own", "value": "x"}},
    {"public_key": "short"},
    {"listen_port": 0},
    {"addresses": ["10.9.0.1"]},
    {"peers": {"office": {}}},
    {"peers": {"office": {"public_key": OFFICE}, OFFICE: {}}},
    {"peers": {"office": {"public_key": OFFICE, "endpoint": "vpn.example.net:51820"}}},
    {"peers": {"office": {"public_key": OFFICE, "endpoint": "192.0.2.1:0"}}},
    {"peers": {"office": {"public_key": OFFICE, "allowed_ips": ["10.0.0.1/24"]}}},
    {"peers": {"office": {"public_key": OFFICE, "allowed_ips": ["10.0.0.0/24\nprivate_key=00"]}}},
    {"peers": {OFFICE: {"allowed_ips": ["10.0.0.0/24"]}, HOME: {"allowed_ips": ["10.0.0.0/24"]}}},
    {"peers": {"office": {"public_key": OFFICE}}, "public_key": OFFICE},
    {"routes": ["10.0.0.1/24"]},
    {"state": "down", "routes": ["10.0.0.0/24"]},
]


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def files_of(directory):
    return [path for path in directory.rglob("*") if path.is_file()]


def files_held_by(pid):
    return {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}


def has_socket(name):
    return Path(f"/var/run/wireguard/{name}.sock").exists()


def case_of(plugin):
    async def disturb():
        run("wg", "set", "wg0", "peer", OFFICE, "remove")

    failing = {
        **DOCUMENTS[0],
        "peers": {"office": {**DOCUMENTS[0]["peers"]["office"], "preshared_key": {"$secret": "bad"}}},
    }
    return PluginCase(
        plugin, "wg0", DOCUMENTS, refused=REFUSED, failing=failing, disturb=disturb, protected=DOCUMENTS[2]
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@in_namespaces
async def test_contract(check, plugin, tmp_path):
    await check(case_of(plugin))
    assert ip("-br", "link").split()[0] == "lo", "an interface is left behind"
    assert len(ip("-br", "link").splitlines()) == 1
    assert not files_of(tmp_path / "state/interfaces"), "records are left behind"


async def observed(plugin, element="wg0"):
    return (await plugin.observe([element])).get(element)


async def become(plugin, desired, element="wg0"):
    """What the daemon does, without policy; returns the plan."""
    if desired is not None:
        plugin.check(element, desired)
    diff = plugin.plan(element, await observed(plugin, element), desired)
    for action in diff.actions:
        await plugin.apply(action)
    return diff


@in_namespaces
async def test_two_hosts_reach_each_other_through_the_tunnel(plugin, tmp_path):
    with other_host("b"):
        ip("addr", "add", "192.0.2.1/24", "dev", "to-b")
        ip("-n", "b", "addr", "add", "192.0.2.2/24", "dev", "up0")
        other = tmp_path / "other"
        other.write_bytes(SECRETS["other"])
        # The other host is set up by WireGuard's own tools.
        run("ip", "netns", "exec", "b", "wireguard-go", "wg-b")
        run("wg", "set", "wg-b", "private-key", str(other), "listen-port", "51820")
        run("wg", "set", "wg-b", "peer", public("own"), "allowed-ips", "10.9.0.1/32")
        ip("-n", "b", "addr", "add", "10.9.0.2/24", "dev", "wg-b")
        ip("-n", "b", "link", "set", "wg-b", "up")
        peer = {"public_key": public("other"), "endpoint": "192.0.2.2:51820", "allowed_ips": ["10.9.0.2/32"]}
        document = {"private_key": {"$secret": "own"}, "addresses": ["10.9.0.1/24"], "peers": {"b": peer}}
        await become(plugin, document)
        run("ping", "-c1", "-w60", "10.9.0.2")
        [transfer] = run("wg", "show", "wg-b", "transfer").splitlines()
        key, received, sent = transfer.split()
        assert key == public("own")
        assert int(received) >= 148 + 96, "a handshake and a ping"
        assert int(sent) >= 92 + 96
        assert not plugin.compare("wg0", document, await observed(plugin))
        # The peer moves: it is reached there, and that is no drift.
        run("wg", "set", "wg0", "peer", public("other"), "endpoint", "192.0.2.2:51821")
        assert not plugin.compare("wg0", document, await observed(plugin))
        assert [action.step for action in (await become(plugin, document)).actions] == ["set-peers"]
        run("ping", "-c1", "-w60", "10.9.0.2")
        run("wg", "set", "wg-b", "peer", public("own"), "remove")
        await become(plugin, None)


@in_namespaces
async def test_no_secret_is_seen_but_by_the_device(plugin, tmp_path):
    diff = await become(plugin, DOCUMENTS[0])
    held = [SECRETS[name].decode().strip() for name in ("own", "psk")]
    texts = [str(diff), str(await observed(plugin)), str(await plugin.checkpoint("wg0"))]
    texts += [path.read_text() for path in files_of(tmp_path / "state/interfaces")]
    for value in held:
        assert all(value not in text and parse_key(value).hex() not in text for text in texts)
    assert run("wg", "show", "wg0", "private-key").strip() == show_key(clamped(parse_key(held[0])))
    assert held[1] in run("wg", "show", "wg0", "preshared-keys")
    assert {path.stat().st_mode & 0o777 for path in files_of(tmp_path / "state")} == {0o600}


def clamped(key):
    """A private key as Curve25519 takes it (RFC 7748, section 5)."""
    return bytes([key[0] & 248, *key[1:31], key[31] & 127 | 64])


@in_namespaces
async def test_the_process_goes_on_without_the_daemon_and_is_found_again(plugin, tmp_path):
    program = f"""
import base64, os, sys, trio
from pathlib import Path
from opfs.plugins.contract import PluginContext
from opfs.plugins.wireguard.plugin import WireguardPlugin
held = os.open("/etc/passwd", os.O_RDONLY)
os.set_inheritable(held, True)
plugin = WireguardPlugin(PluginContext(Path({str(tmp_path / "state")!r}), secret=lambda name: {SECRETS["own"]!r}))
async def main():
    for action in plugin.plan("wg0", None, {{"private_key": {{"$secret": "own"}}}}).actions:
        await plugin.apply(action)
trio.run(main)
"""
    run(sys.executable, "-c", program)
    [pid] = run("pgrep", "-x", "wireguard-go").split()
    assert os.getsid(int(pid)) not in (os.getsid(0), os.getpid())
    assert "/etc/passwd" not in files_held_by(pid)
    assert (await observed(plugin))["public_key"] == public("own")
    diff = await become(plugin, {"private_key": {"$secret": "own"}, "fwmark": 5})
    assert [action.step for action in diff.actions] == ["set-device"]
    assert run("pgrep", "-x", "wireguard-go").split() == [pid]


@in_namespaces
async def test_a_killed_process_is_drift_and_its_socket_is_in_nobodys_way(plugin):
    await become(plugin, DOCUMENTS[0])
    run("pkill", "-9", "-x", "wireguard-go")
    deadline = time.monotonic() + 60
    while await observed(plugin) is not None:
        assert time.monotonic() < deadline
    assert has_socket("wg0")
    assert plugin.compare("wg0", DOCUMENTS[0], await observed(plugin))
    await become(plugin, DOCUMENTS[0])
    assert not plugin.compare("wg0", DOCUMENTS[0], await observed(plugin))


@in_namespaces
async def test_a_lost_record_costs_names_and_one_application(plugin, tmp_path):
    await become(plugin, DOCUMENTS[0])
    for record in files_of(tmp_path / "state/interfaces"):
        record.write_bytes(b"{")
    seen = await observed(plugin)
    assert set(seen["peers"]) == {OFFICE, HOME}
    assert "private_key" not in seen
    pointers = [difference.pointer for difference in plugin.compare("wg0", DOCUMENTS[0], seen)]
    assert pointers == ["/peers/office/preshared_key"]
    await become(plugin, DOCUMENTS[0])
    assert not (await become(plugin, DOCUMENTS[0])).actions


@in_namespaces
async def test_an_interface_made_by_hand_is_adopted_and_its_key_is_guarded(plugin, tmp_path):
    run("wireguard-go", "theirs")
    file = tmp_path / "key"
    file.write_bytes(SECRETS["own"])
    run("wg", "set", "theirs", "private-key", str(file), "peer", OFFICE, "preshared-key", str(file))
    imported = (await plugin.observe(None))["theirs"]
    plugin.check("theirs", imported)
    assert imported["public_key"] == public("own")
    assert not plugin.plan("theirs", imported, imported).actions
    delete = plugin.plan("theirs", imported, None)
    assert delete.safety is Safety.DESTRUCTIVE
    assert "nowhere else" in delete.actions[0].summary
    assert plugin.plan("theirs", imported, {"private_key": {"$secret": "other"}}).safety is Safety.DESTRUCTIVE
    # A key that opfs did not set stays when the peer changes.
    changed = {**imported, "peers": {"office": {"public_key": OFFICE, "allowed_ips": ["10.0.0.0/8"]}}}
    await become(plugin, changed, "theirs")
    assert SECRETS["own"].decode().strip() in run("wg", "show", "theirs", "preshared-keys")


@in_namespaces
async def test_what_cannot_be_fails_with_the_reason(plugin):
    for document, reason in [
        ({"private_key": {"$secret": "none"}}, "no secret 'none'"),
        ({"private_key": {"$secret": "bad"}}, "'bad' holds no WireGuard key"),
        ({"private_key": {"$secret": "own"}, "public_key": public("other")}, "holds the private key of"),
    ]:
        with pytest.raises(ApplyFailed, match=re.escape(reason)):
            await become(plugin, document)
        await become(plugin, None)
    with pytest.raises(Rejected, match="names no private key"):
        await become(plugin, {"listen_port": 5})
    ip("link", "add", "wg0", "type", "bridge")
    assert await observed(plugin) is None
    with pytest.raises(ApplyFailed, match="it is no WireGuard interface"):
        await become(plugin, DOCUMENTS[0])
    assert "wg0" in ip("link"), "what is not ours stays"
    with pytest.raises(InvalidRequest, match="cannot name an interface"):
        plugin.check("sixteen-letters-", {})


@in_namespaces
async def test_a_name_that_is_taken_is_said_in_wireguard_go_s_words(plugin, monkeypatch, tmp_path):
    stub = tmp_path / "wireguard-go"
    monkeypatch.setattr("opfs.clients.wireguard.userspace._PATH", str(tmp_path))
    assert "apt-get install wireguard-go" in plugin.why_unavailable()
    for script, reason in [
        ("echo 'no TUN for you' >&2; exit 3", r"failed \(3\): no TUN for you"),
        ("exit 0", "does not answer"),
        ("exec sleep 1000", "was not ready"),
    ]:
        stub.write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\n{script}\n")
        stub.chmod(0o755)
        monkeypatch.setattr("opfs.clients.wireguard.userspace._START_S", 0.5)
        with pytest.raises(ApplyFailed, match=reason):
            await become(plugin, DOCUMENTS[0])
        assert await observed(plugin) is None


@in_namespaces
async def test_what_others_do_to_peers_is_seen_though_the_kernel_says_nothing(plugin, monkeypatch):
    monkeypatch.setattr("opfs.clients.wireguard.watching.LOOK_INTERVAL_S", 0.05)
    await become(plugin, DOCUMENTS[0])
    send, receive = trio.open_memory_channel(math.inf)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plugin.watch, send.send_nowait)
            for number in itertools.cycle(range(2, 9)):  # the first look has nothing to compare with
                run("wg", "set", "wg0", "peer", OFFICE, "persistent-keepalive", str(number))
                with trio.move_on_after(0.2):
                    assert (await receive.receive()).element == "wg0"
                    break
            ip("link", "set", "wg0", "mtu", "1300")
            assert (await receive.receive()).element == "wg0"
            nursery.cancel_scope.cancel()
