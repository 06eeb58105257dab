"""A WireGuard mesh of two hosts: two guests with a daemon each, the same document copied into both."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from guest import connect

from opfs.btrfs.pool import Pool

pytestmark = pytest.mark.needs("guest", "wireguard", "btrfs")

PLACE = ("--pool", "/pool", "--mount", "/mnt/op")
ADDRESSES = {"a": "10.9.0.1", "b": "10.9.0.2"}


def key_pair():
    private = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout
    public = subprocess.run(["wg", "pubkey"], capture_output=True, text=True, check=True, input=private).stdout
    return private, public.strip()


@pytest.fixture
def hosts(new_guest, btrfs_place):
    """Two hosts with a cable between them, link0, and opfs on each; their secrets and public keys."""
    hosts, nodes = {}, {}
    for number, (name, address) in enumerate(ADDRESSES.items(), 1):
        pool = btrfs_place / name
        pool.mkdir(mode=0o700)
        Pool.create(pool, origin=f"{name}.example/opfs", created_ns=1).close()
        hosts[name] = new_guest(name, binds={pool: "/pool"}, target="basic.target")
        private, public = key_pair()
        hosts[name].write("/etc/opfs/secrets/mesh", private, mode="0600")
        nodes[name] = {"public_key": public, "addresses": [address], "endpoint": f"192.0.2.{number}:51820"}
    connect(hosts["a"], hosts["b"])
    for guest in hosts.values():
        guest.run("mkdir", "-p", "/mnt/op")
        guest.opfs(*PLACE, "mount")
    return hosts, nodes


def put(guest, element, document):
    guest.sh(f"cat > /mnt/op/state/{element}.json <<'DOCUMENT'\n{json.dumps(document)}\nDOCUMENT")


def received_bytes(guest, public_key):
    transfers = dict(line.split("\t", 1) for line in guest.run("wg", "show", "mesh0", "transfer").stdout.splitlines())
    return int(transfers[public_key].split()[0])


def test_two_hosts_join_by_one_document_and_survive_their_daemons(hosts):
    hosts, nodes = hosts
    document = {"private_key": {"$secret": "mesh"}, "networks": ["10.9.0.0/24"], "nodes": nodes}
    for number, guest in enumerate(hosts.values(), 1):
        # The other end has a name in the other guest, so it is not compared.
        put(guest, "net/link0", {"type": "veth", "peer": "elsewhere", "addresses": [f"192.0.2.{number}/24"]})
        put(guest, "mesh/mesh0", document)
    a, b = hosts["a"], hosts["b"]
    a.wait_until("ping", "-c1", "-W2", "10.9.0.2")
    assert received_bytes(b, nodes["a"]["public_key"]) >= 148 + 96, "a handshake and a ping went through the tunnel"
    assert a.run("ip", "route", "get", "10.9.0.2").stdout.split()[2] == "mesh0"

    # What is in the chain, and in the journal, names the secret and holds none of it.
    private = a.read("/etc/opfs/secrets/mesh").strip()
    assert a.run("grep", "-r", "-F", "--", private, "/pool", "/mnt/op/chain", check=False).returncode == 1

    # The daemon goes, the tunnel stays, and a new daemon finds it as it is.
    [process] = a.run("pgrep", "-x", "wireguard-go").stdout.split()
    a.opfs(*PLACE, "umount")
    a.wait_until("ping", "-c1", "-W2", "10.9.0.2")
    a.opfs(*PLACE, "mount")
    before = a.sh("ls /mnt/op/chain").stdout
    put(a, "mesh/mesh0", document)
    assert a.sh("ls /mnt/op/chain").stdout == before, "nothing was to do"
    assert a.run("pgrep", "-x", "wireguard-go").stdout.split() == [process]

    # A third node is told to both, and the mesh is left by one delete.
    grown = {**document, "nodes": {**nodes, "c": {"public_key": key_pair()[1], "addresses": ["10.9.0.3"]}}}
    for guest in hosts.values():
        put(guest, "mesh/mesh0", grown)
        assert len(guest.run("wg", "show", "mesh0", "peers").stdout.split()) == 2
    a.wait_until("ping", "-c1", "-W2", "10.9.0.2")
    a.run("rm", "/mnt/op/state/mesh/mesh0.json")
    assert a.run("ip", "link", "show", "mesh0", check=False).returncode != 0
    assert a.run("pgrep", "-x", "wireguard-go", check=False).returncode != 0
    for guest in hosts.values():
        guest.opfs(*PLACE, "umount")
    assert not list(Path("/var/run/wireguard").glob("mesh0*")), "the machine's own files are untouched"
