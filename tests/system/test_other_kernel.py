"""Links that this machine's kernel may lack, on Debian's kernel, emulated: the contract of net and wireguard there.

vlan, dummy, bond, vrf and geneve, and WireGuard devices of the kernel.
"""

from __future__ import annotations

import base64
import os

import pytest
from emulated import run_emulated

pytestmark = pytest.mark.needs("emulator")

MODULES = ("8021q", "dummy", "bonding", "vrf", "geneve", "bridge", "wireguard")
IMPORTS = (
    "trio",
    "opfs.plugins.net.plugin",
    "opfs.plugins.wireguard.plugin",
    "opfs.testing.contracts.plugin",
    "cryptography.hazmat.backends.openssl.backend",  # which it imports at first use
)
PROGRAM = """
import base64, time, trio
from pathlib import Path
from opfs.plugins.contract import PluginContext
from opfs.plugins.net.plugin import NetPlugin
from opfs.plugins.wireguard.plugin import WireguardPlugin
from opfs.testing.contracts import plugin as contract

KEYS = {keys!r}
CASES = {{
    "vlan": [
        {{"type": "vlan", "parent": "dummy0", "vlan": {{"id": 5}}, "addresses": ["192.0.2.1/24"]}},
        {{"type": "vlan", "parent": "dummy0", "vlan": {{"id": 6, "protocol": "802.1ad"}}, "mtu": 1400}},
    ],
    "dummy": [{{"type": "dummy"}}, {{"type": "dummy", "addresses": ["192.0.2.1/32"], "mac": "02:00:00:00:00:05"}}],
    "bond": [
        {{"type": "bond"}},
        {{"type": "bond", "bond": {{"mode": "802.3ad", "lacp_rate": "fast", "xmit_hash_policy": "layer3+4"}}}},
        {{"type": "bond", "bond": {{"mode": "active-backup", "miimon": 50, "updelay": 100}}}},
    ],
    "vrf": [{{"type": "vrf", "vrf": {{"table": 10}}}}, {{"type": "vrf", "vrf": {{"table": 11}}}}],
    "geneve": [
        {{"type": "geneve", "geneve": {{"id": 1, "remote": "192.0.2.2"}}}},
        {{"type": "geneve", "geneve": {{"id": 1, "remote": "2001:db8::2", "ttl": 9, "port": 6082}}}},
    ],
    "port of a bond": [
        {{"type": "dummy", "addresses": ["2001:db8::1/64"]}},
        {{"type": "dummy", "master": "bond0", "description": "a port"}},
    ],
    "port of a vrf": [
        {{"type": "dummy", "master": "vrf0", "addresses": ["2001:db8::1/64"]}},
        {{"type": "dummy", "routes": [{{"to": "192.0.2.0/24"}}]}},
    ],
    "bridge with vlan_filtering": [{{"type": "bridge"}}, {{"type": "bridge", "bridge": {{"vlan_filtering": True}}}}],
}}
PEERS = {{
    "b": {{"public_key": {public!r}, "endpoint": "[2001:db8::2]:7", "allowed_ips": ["10.9.0.2/32", "2001:db8::/32"]}},
    "c": {{"public_key": {other!r}, "keepalive": 9, "preshared_key": {{"$secret": "psk"}}}},
}}
TUNNELS = [
    {{"private_key": {{"$secret": "own"}}, "listen_port": 51820, "addresses": ["10.9.0.1/24"], "peers": PEERS}},
    {{
        "private_key": {{"$secret": "next"}},
        "fwmark": 7,
        "mtu": 1300,
        "peers": {{"b": {{**PEERS["b"], "allowed_ips": []}}}},
    }},
]
MANY = {{"b": {{**PEERS["b"], "allowed_ips": [f"10.{{n >> 8}}.{{n & 255}}.0/24" for n in range(2000)]}}}}


async def main():
    net = NetPlugin()
    for action in net.plan("vrf0", None, {{"type": "vrf", "vrf": {{"table": 20}}}}).actions:
        await net.apply(action)
    for action in net.plan("dummy0", (await net.observe(["dummy0"]))["dummy0"], {{"type": "dummy"}}).actions:
        await net.apply(action)
    for kind, documents in CASES.items():
        case = contract.PluginCase(net, "element", documents)
        await contract.check_creates_changes_and_deletes(case)
        if kind in ("vlan", "port of a bond"):
            await contract.check_rolls_back(case)
        print("contract holds:", kind, flush=True)
    context = PluginContext(Path("/tmp/state"), settings={{"backend": "kernel"}}, secret=KEYS.__getitem__)
    wireguard = WireguardPlugin(context)
    case = contract.PluginCase(wireguard, "wg0", TUNNELS)
    for check in (
        contract.check_creates_changes_and_deletes,
        contract.check_rolls_back,
        contract.check_actions_are_idempotent,
    ):
        await check(case)
    await case.become({{"private_key": {{"$secret": "own"}}, "routes": [], "peers": MANY}})
    assert (await net.observe(["wg0"]))["wg0"]["kind"] == "wireguard"
    assert "wg0" not in await net.observe(None)
    await case.become(None)
    print("contract holds: wireguard", flush=True)


trio.run(main)
"""


def test_what_this_kernel_may_lack_works_on_another():
    key = lambda: base64.b64encode(os.urandom(32))  # noqa: E731
    keys = {"own": key(), "next": key(), "psk": key()}
    said = run_emulated(PROGRAM.format(keys=keys, public=key().decode(), other=key().decode()), MODULES, IMPORTS)
    held = [line.partition(": ")[2] for line in said.splitlines() if line.startswith("contract holds")]
    assert held == [
        "vlan",
        "dummy",
        "bond",
        "vrf",
        "geneve",
        "port of a bond",
        "port of a vrf",
        "bridge with vlan_filtering",
        "wireguard",
    ]
