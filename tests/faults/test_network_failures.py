"""The failure matrix on real interfaces: net, wireguard and mesh, each in network namespaces of the test's own.

Then faults of the backends themselves: a kernel that refuses, and a wireguard-go that is stopped, killed, or lies.
"""

from __future__ import annotations

import base64
import ctypes
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
import trio
from namespaces import in_namespaces, ip

from opfs.clients.netlink.changes import NewLink, make_link
from opfs.clients.wireguard.keys import parse_key, public_key_of, show_key
from opfs.errors import ApplyFailed, ApplyTimeout
from opfs.plugins.contract import PluginContext
from opfs.plugins.mesh.plugin import MeshPlugin
from opfs.plugins.net.plugin import NetPlugin
from opfs.plugins.wireguard.plugin import WireguardPlugin
from opfs.testing.contracts.failures import MATRIX, check_failures
from opfs.testing.contracts.plugin import PluginCase

SECRETS = {name: base64.b64encode(os.urandom(32)) for name in ("a", "b", "c")}
A, B, C = (show_key(public_key_of(parse_key(SECRETS[name].decode()))) for name in "abc")
BRIDGE = [
    {"type": "bridge", "addresses": ["192.0.2.1/24", "2001:db8::1/64"], "description": "first"},
    {
        "type": "bridge",
        "mtu": 1400,
        "bridge": {"stp": True},
        "addresses": ["192.0.2.2/24"],
        "routes": [{"to": "10.0.0.0/8", "via": "192.0.2.9"}],
    },
]
VETH = [
    {"type": "veth", "peer": "other", "master": "br0"},
    {"type": "veth", "peer": "another", "addresses": ["192.0.2.1/31"]},
]
TUNNEL = [
    {
        "private_key": {"$secret": "a"},
        "public_key": A,
        "addresses": ["10.9.0.1/24"],
        "peers": {"b": {"public_key": B, "allowed_ips": ["10.9.0.2/32", "198.51.100.0/24"]}},
    },
    {
        "private_key": {"$secret": "b"},
        "public_key": B,
        "listen_port": 51820,
        "mtu": 1300,
        "addresses": ["10.9.0.2/24"],
        "peers": {"a": {"public_key": A, "allowed_ips": ["10.9.0.1/32"], "keepalive": 9}},
    },
]
NODES = {"a": {"public_key": A, "addresses": ["10.9.0.1"]}, "b": {"public_key": B, "addresses": ["10.9.0.2"]}}
MESH = [
    {"private_key": {"$secret": "a"}, "networks": ["10.9.0.0/24"], "nodes": NODES},
    {
        "private_key": {"$secret": "a"},
        "networks": ["10.9.0.0/24"],
        "mtu": 1300,
        "nodes": {**NODES, "c": {"public_key": C, "addresses": ["10.9.0.3"], "allowed_ips": ["198.51.100.0/24"]}},
    },
]


def case_of(kind, directory):
    context = PluginContext(directory / "state", secret=SECRETS.__getitem__)
    return {
        "bridge": lambda: PluginCase(NetPlugin(), "element", BRIDGE),
        "veth": lambda: PluginCase(NetPlugin(), "element", VETH),
        "wireguard": lambda: PluginCase(WireguardPlugin(context), "wg0", TUNNEL),
        "mesh": lambda: PluginCase(MeshPlugin(context), "mesh0", MESH),
    }[kind]()


# A hang costs its limit, so those that share most of their code with another go without.
ROWS = [
    pytest.param(kind, transition, failing, id=f"{kind}-{transition}-{failing}")
    for kind in ("bridge", "veth", "wireguard", "mesh")
    for transition, failing in MATRIX
    if kind in ("bridge", "wireguard") or not failing.is_endless
]


@pytest.mark.needs("wireguard")
@pytest.mark.parametrize(("kind", "transition", "failing"), ROWS)
@in_namespaces
async def test_failures_are_told_undone_and_recorded(kind, transition, failing, tmp_path):
    ip("link", "add", "br0", "type", "bridge")
    assert await check_failures(case_of(kind, tmp_path), transition, failing, hang_limit_s=0.5)
    assert len(ip("-br", "link").splitlines()) == 2, "something is left behind"
    assert files_of(tmp_path / "state/interfaces") == [], "records are left behind"
    # The daemon may stop before the last restore point is released; the next change of the interface takes it.
    assert len(files_of(tmp_path / "state/checkpoints")) <= 1


def files_of(directory):
    return [path for path in directory.rglob("*") if path.is_file()]


def without_power_over_the_network():
    """Take CAP_NET_ADMIN away from this thread's effective set (capset(2), version 3)."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, data) == 0
    data[0] &= ~(1 << 12)
    assert libc.capset(header, data) == 0, os.strerror(ctypes.get_errno())


@in_namespaces
async def test_a_kernel_that_refuses_is_quoted():
    plugin = NetPlugin()
    with pytest.raises(ApplyFailed, match=r"no link br9, of which element is to be a port"):
        await become(plugin, "element", {"type": "ifb", "master": "br9"})
    with pytest.raises(ApplyFailed, match=r"No such device|invalid gateway|unreachable"):
        await become(plugin, "element", {"type": "ifb", "routes": [{"to": "10.0.0.0/8", "via": "192.0.2.1"}]})
    with pytest.raises(ApplyFailed, match=r"cannot make a link of the type vlan: .*not supported.*8021q"):
        await become(plugin, "v5", {"type": "vlan", "parent": "element", "vlan": {"id": 5}})
    ip("link", "add", "taken", "type", "bridge")
    with pytest.raises(ApplyFailed, match="File exists"):
        await plugin.apply(plugin.plan("taken", None, {"type": "ifb"}).actions[0])
    failure = []

    def powerless():
        without_power_over_the_network()
        try:
            make_link(NewLink("br1", "bridge"))
        except ApplyFailed as error:
            failure.append(str(error))

    thread = threading.Thread(target=powerless)
    thread.start()
    thread.join()
    assert "Operation not permitted" in failure[0]


async def become(plugin, element, desired):
    found = (await plugin.observe([element])).get(element)
    for action in plugin.plan(element, found, desired).actions:
        await plugin.apply(action)


@pytest.mark.needs("wireguard")
@in_namespaces
async def test_a_stopped_wireguard_go_is_waited_for_so_long_and_no_longer(tmp_path, monkeypatch):
    case = case_of("wireguard", tmp_path)
    await case.become(TUNNEL[0])
    pid = int(subprocess.run(["pgrep", "-x", "wireguard-go"], capture_output=True, check=True).stdout)  # noqa: ASYNC221
    monkeypatch.setattr("opfs.clients.wireguard.uapi._TIMEOUT_S", 0.3)
    checkpoint = await case.plugin.checkpoint("wg0")
    diff = await case.planned(TUNNEL[1])
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ApplyTimeout, match=r"wireguard-go of wg0 gave no answer"):
        await case.plugin.apply(diff.actions[0])
    with pytest.raises(ApplyTimeout):
        await case.plugin.observe(["wg0"])
    os.kill(pid, signal.SIGCONT)
    monkeypatch.undo()
    await case.plugin.rollback(checkpoint)
    await case.verify(TUNNEL[0])


@pytest.mark.needs("wireguard")
@in_namespaces
async def test_a_wireguard_go_killed_half_way_is_made_again_from_the_restore_point(tmp_path):
    """Also a change that has no secret to go by: the restore point has the keys."""
    case = case_of("wireguard", tmp_path)
    await case.become(TUNNEL[0])
    earlier, checkpoint = await case.observed(), await case.plugin.checkpoint("wg0")
    first, *_ = (await case.planned(TUNNEL[1])).actions
    await case.plugin.apply(first)
    pid = int(subprocess.run(["pgrep", "-x", "wireguard-go"], capture_output=True, check=True).stdout)  # noqa: ASYNC221
    os.kill(pid, signal.SIGKILL)
    await case.plugin.rollback(checkpoint)
    assert await case.observed() == earlier
    await case.plugin.release(checkpoint)


@pytest.mark.needs("wireguard")
@in_namespaces
async def test_a_wireguard_go_that_lies_is_found_out(tmp_path):
    """A stand-in at the socket says yes to everything and hands only the questions on."""
    case = case_of("wireguard", tmp_path)
    await case.become(TUNNEL[0])
    path = Path("/var/run/wireguard/wg0.sock")
    await trio.to_thread.run_sync(path.rename, path.with_name("real.sock"))
    liar = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    liar.bind(str(path))
    liar.listen()

    def answer():
        while True:
            client, _ = liar.accept()
            with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as real:
                asked = client.recv(1 << 16)
                if asked.startswith(b"get"):
                    real.connect(str(path.with_name("real.sock")))
                    real.sendall(asked)
                    client.sendall(real.recv(1 << 20))
                elif asked:
                    client.sendall(b"errno=0\n\n")

    threading.Thread(target=answer, daemon=True).start()
    for action in (await case.planned(TUNNEL[1])).actions:
        await case.plugin.apply(action)
    pointers = [d.pointer for d in case.plugin.compare("wg0", TUNNEL[1], await case.observed())]
    assert {"/public_key", "/listen_port", "/peers/a"} <= set(pointers)
