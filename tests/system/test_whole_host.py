"""One host from nothing but a directory of documents, copied in any order; then changed; then changed back.

A guest gets three bridges, a bridge of Open vSwitch with flows, ten containers on them, five units, a package, a file
and a WireGuard mesh with a second guest. What is looked at is the host itself: packets, processes, tables of flows.
"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aptrepo import Deb, installed, publish
from guest import connect

from opfs.btrfs.pool import Pool
from opfs.testing.pools import delete_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest import Guest

pytestmark = pytest.mark.needs("guest", "btrfs", "fuse", "ovs", "lxc", "packagekit")

PLACE = ("--pool", "/pool", "--mount", "/mnt/op")
REACH_TIMEOUT_S = 180.0
"""A neighbour that got another hardware address is asked anew only after several seconds (arp(7))."""
BRIDGES = {"office": "10.1.0", "lab": "10.2.0", "dmz": "10.3.0"}


def documents(keys: dict[str, str]) -> dict[str, dict[str, object]]:
    """The whole host, by element; `keys` are the public keys of the two nodes of the mesh."""
    host: dict[str, dict[str, object]] = {
        "net/link0": {"type": "veth", "peer": "far0", "addresses": ["192.0.2.1/24"], "state": "up"},
        "ovs/sw0": {
            "datapath_type": "netdev",
            "fail_mode": "secure",
            "ports": {"sw0h": {"type": "internal", "ofport_request": 10}},
        },
        "net/sw0h": {"type": "other", "addresses": ["10.4.0.1/24"], "state": "up", "$after": ["ovs/sw0"]},
        "openflow/sw0": {"flows": ["priority=10,arp,actions=NORMAL", "priority=10,icmp,actions=NORMAL"]},
        "packagekit/opfs-demo": {"version": "1.0"},
        "file/motd": {"path": "/etc/motd", "content": "This host is made of documents.\n"},
        "mesh/mesh0": {
            "private_key": {"$secret": "mesh"},
            "networks": ["10.9.0.0/24"],
            "nodes": {
                "a": {"public_key": keys["a"], "addresses": ["10.9.0.1"], "endpoint": "192.0.2.1:51820"},
                "b": {"public_key": keys["b"], "addresses": ["10.9.0.2"], "endpoint": "192.0.2.2:51820"},
            },
        },
    }
    for name, network in BRIDGES.items():
        host[f"net/{name}"] = {"type": "bridge", "addresses": [f"{network}.1/24"]}
    for number in range(10):
        bridge = [*BRIDGES, "sw0"][number % 4]
        network = BRIDGES.get(bridge, "10.4.0")
        host[f"lxc/c{number}"] = {
            "hostname": f"c{number}",
            "net0": {"name": "eth0", "bridge": bridge, "ip": f"{network}.{10 + number}/24"},
            "state": "running",
        }
    for number in range(5):
        unit = f"[Unit]\nDescription=Unit {number}\n\n[Service]\nExecStart=/usr/bin/sleep infinity\n"
        unit += "\n[Install]\nWantedBy=multi-user.target\n"
        host[f"systemd/app{number}.service"] = {"unit": unit, "enabled": True, "active": True}
    return host


def changed(host: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Another address, another bridge for a container, another package, flows, a unit that is off."""
    other = json.loads(json.dumps(host))
    other["net/lab"]["addresses"] = ["10.2.0.254/24"]
    other["lxc/c0"]["net0"] = {"name": "eth0", "bridge": "lab", "ip": "10.2.0.10/24"}
    other["lxc/c1"]["hostname"] = "renamed"
    other["lxc/c2"]["state"] = "stopped"
    other["openflow/sw0"]["flows"] = ["priority=10,arp,actions=NORMAL", "priority=10,icmp,actions=drop"]
    other["packagekit/opfs-demo"] = {"ensure": "latest"}
    other["systemd/app3.service"]["active"] = False
    other["systemd/app4.service"]["unit"] = other["systemd/app4.service"]["unit"].replace("infinity", "1d")
    other["mesh/mesh0"]["keepalive"] = 5
    other["file/motd"]["content"] = "Changed.\n"
    return other


def write_tree(directory: Path, host: dict[str, dict[str, object]]) -> None:
    for name, document in host.items():
        path = directory / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n")


@pytest.fixture
def pools(btrfs_dir) -> Iterator[dict[str, Path]]:
    """A pool for each guest; set up before the guests, so that it is taken apart after them."""
    made = {name: Path(tempfile.mkdtemp(prefix=f"whole-{name}-", dir=btrfs_dir)) for name in ("a", "b")}
    for name, pool in made.items():
        Pool.create(pool, origin=f"{name}.example/opfs", created_ns=1).close()
    yield made
    for pool in made.values():
        delete_tree(pool)


@pytest.fixture
def hosts(pools, new_guest, tmp_path) -> tuple[Guest, Guest]:
    """Two guests, each with a pool and a directory of documents to copy from."""
    made = []
    for name, pool in pools.items():
        tree = tmp_path / f"tree-{name}"
        tree.mkdir()
        made.append(new_guest(name, binds={pool: "/pool", tree: "/tree"}))
        made[-1].run("mkdir", "-p", "/mnt/op")
    return made[0], made[1]


def start_switch(guest: Guest) -> None:
    """Open vSwitch's two daemons; its own service wants the kernel's module."""
    guest.sh(
        """mkdir -p /run/openvswitch /var/log/openvswitch && cd /run/openvswitch &&
        ovsdb-tool create conf.db /usr/share/openvswitch/vswitch.ovsschema &&
        ovsdb-server conf.db --remote=punix:/run/openvswitch/db.sock --pidfile --detach --no-chdir --log-file=db.log &&
        ovs-vsctl --no-wait init && ovs-vswitchd --pidfile --detach --no-chdir --log-file=vs.log"""
    )


def copy(guest: Guest, script: str = "cp -r /tree/. /mnt/op/state/") -> None:
    """Copy documents as a person would; a refusal is shown with its reason."""
    done = guest.sh(script, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{guest.read('/mnt/op/errors')}"


def in_order(guest: Guest, names: list[str]) -> None:
    """Copy the documents one after the other in this order."""
    copy(guest, f"cd /tree && for name in {' '.join(names)}; do cp $name.json /mnt/op/state/$name.json || exit 1; done")


def settled(guest: Guest) -> None:
    """Wait until nothing waits for anything any more."""
    guest.wait_until("sh", "-c", "! grep -q '^waiting' /mnt/op/status", timeout=300)


def containers(guest: Guest) -> dict[str, str]:
    listing = guest.run("lxc-ls", "-f", "-F", "NAME,STATE").stdout.split("\n")[1:]
    return dict(line.split() for line in listing if line.strip())


def pings(guest: Guest, container: str, address: str) -> bool:
    """Whether one echo request is answered."""
    command = ("lxc-attach", "-n", container, "--", "ping", "-c1", "-W2", address)
    return guest.run(*command, check=False).returncode == 0


def check_reaches(guest: Guest, container: str, address: str) -> None:
    """An answer comes, if not at once; where none comes, what container and host know of the way is shown."""
    deadline = time.monotonic() + REACH_TIMEOUT_S
    while time.monotonic() < deadline:
        if pings(guest, container, address):
            return
    inside = "ping -c1 -W2 " + address + "; ip addr; ip route; ip neigh"
    outside = "ip -d addr; bridge link; bridge fdb; ip neigh"
    attach = ("lxc-attach", "-n", container, "--", "sh", "-c", inside)
    done = guest.run(*attach, check=False)
    pytest.fail(f"{container} does not reach {address}:\n{done.stdout}{done.stderr}\n{guest.sh(outside).stdout}")


def check_host(guest: Guest) -> None:
    """The first state of the host, seen from the host."""
    assert containers(guest) == {f"c{number}": "RUNNING" for number in range(10)}
    for number in range(10):
        check_reaches(guest, f"c{number}", ("10.1.0.1", "10.2.0.1", "10.3.0.1", "10.4.0.1")[number % 4])
    check_reaches(guest, "c0", "10.1.0.14")
    check_reaches(guest, "c3", "10.4.0.17")
    for number in range(5):
        assert guest.run("systemctl", "is-active", f"app{number}.service").stdout == "active\n"
        assert guest.run("systemctl", "is-enabled", f"app{number}.service").stdout == "enabled\n"
    flows = guest.run("ovs-ofctl", "-O", "OpenFlow13", "--no-stats", "dump-flows", "sw0").stdout
    assert "icmp actions=NORMAL" in flows
    assert "arp actions=NORMAL" in flows
    assert installed(guest, "opfs-demo") == "1.0"
    assert guest.read("/etc/motd") == "This host is made of documents.\n"
    guest.wait_until("ping", "-c1", "-W2", "10.9.0.2")


def check_changed(guest: Guest) -> None:
    assert containers(guest) == {f"c{number}": "STOPPED" if number == 2 else "RUNNING" for number in range(10)}
    check_reaches(guest, "c0", "10.2.0.254")
    assert guest.run("lxc-attach", "-n", "c1", "--", "hostname").stdout == "renamed\n"
    assert not any(pings(guest, "c3", "10.4.0.17") for _ in range(2))
    assert installed(guest, "opfs-demo") == "2.0"
    assert guest.run("systemctl", "is-active", "app3.service", check=False).stdout == "inactive\n"
    assert "sleep 1d" in guest.run("systemctl", "show", "-p", "ExecStart", "app4.service").stdout
    assert guest.read("/etc/motd") == "Changed.\n"


def check_books(guest: Guest) -> None:
    """No drift, a chain that verifies, and /live the same as /state."""
    assert guest.run("diff", "-r", "/mnt/op/state", "/mnt/op/live").stdout == ""
    assert guest.opfs(*PLACE, "drift").returncode == 0
    guest.opfs(*PLACE, "verify")


def test_a_host_from_documents_in_any_order(hosts, tmp_path):
    one, two = hosts
    publish(one, Deb("opfs-demo", "1.0"), Deb("opfs-demo", "2.0"))
    connect(one, two)
    keys = {}
    for name, guest in (("a", one), ("b", two)):
        private = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout
        guest.write("/etc/opfs/secrets/mesh", private, mode="0600")
        keys[name] = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True, check=True).stdout
        keys[name] = keys[name].strip()
        guest.opfs(*PLACE, "mount")
    start_switch(one)
    host = documents(keys)
    write_tree(tmp_path / "tree-a", host)
    write_tree(
        tmp_path / "tree-b",
        {
            "mesh/mesh0": host["mesh/mesh0"],
            "net/link0": {"type": "veth", "peer": "far0", "addresses": ["192.0.2.2/24"], "state": "up"},
        },
    )
    copy(two)
    # the worst order is that of names backwards: units and the mesh first, every container before its bridge
    in_order(one, sorted(host, reverse=True))
    settled(one)
    settled(two)
    check_host(one)
    check_books(one)
    write_tree(tmp_path / "tree-a", changed(host))
    in_order(one, random.Random(1).sample(sorted(host), len(host)))
    settled(one)
    check_changed(one)
    check_books(one)
    write_tree(tmp_path / "tree-a", host)
    copy(one)
    settled(one)
    check_host(one)
    check_books(one)
    for guest in (one, two):
        guest.opfs(*PLACE, "umount")
