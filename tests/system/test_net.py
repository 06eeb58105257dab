"""Network interfaces through the mount, on a guest with a daemon of its own: order, drift, refusals, undoing."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from guest import booted

from opfs.btrfs.pool import Pool
from opfs.testing.pools import delete_tree

pytestmark = pytest.mark.needs("guest", "btrfs")

PLACE = ("--pool", "/pool", "--mount", "/mnt/op")


@pytest.fixture(scope="module")
def host(work_dir, btrfs_dir):
    """One host for all of these tests; each has interfaces of its own."""
    pool = Path(tempfile.mkdtemp(prefix="pool-", dir=btrfs_dir))
    Pool.create(pool, origin="net.example/opfs", created_ns=1).close()
    place = Path(tempfile.mkdtemp(prefix="guest-", dir=work_dir))
    with booted("net", place, binds={pool: "/pool"}, target="basic.target") as guest:
        guest.run("mkdir", "-p", "/mnt/op")
        guest.opfs(*PLACE, "mount")
        yield guest
        guest.opfs(*PLACE, "umount")
    delete_tree(pool)


def put(host, name, document, *, check=True):
    script = f"cd /mnt/op/state/net && cat > {name}.json <<'DOCUMENT'\n{json.dumps(document)}\nDOCUMENT"
    return host.sh(script, check=check)


def links(host):
    return {link["ifname"]: link for link in json.loads(host.run("ip", "-j", "-d", "addr").stdout)}


def test_interfaces_wait_for_what_they_lie_on(host):
    port = {"type": "vxlan", "vxlan": {"id": 5, "remote": "239.1.1.1"}, "parent": "up", "master": "lan"}
    put(host, "tunnel", port)
    assert (
        "waiting"
        in host.run("getfattr", "--only-values", "-n", "user.opfs.status", "/mnt/op/state/net/tunnel.json").stdout
    )
    put(host, "up", {"type": "bridge", "addresses": ["192.0.2.1/24"]})
    assert "tunnel" not in links(host)
    put(host, "lan", {"type": "bridge"})
    host.wait_until("ip", "link", "show", "tunnel", "master", "lan")
    host.wait_until("sh", "-c", "cmp /mnt/op/state/net/tunnel.json /mnt/op/live/net/tunnel.json")


def test_what_others_do_is_an_event_and_writing_again_repairs_it(host):
    put(host, "office", {"type": "bridge", "addresses": ["192.0.2.1/24"]})
    host.run("ip", "address", "add", "198.51.100.1/24", "dev", "office")
    host.wait_until("sh", "-c", 'grep -q \'"op":"drift"\' /mnt/op/chain/HEAD/events.jsonl')
    assert "198.51.100.1/24" in host.run("cat", "/mnt/op/live/net/office.json").stdout
    put(host, "office", {"type": "bridge", "addresses": ["192.0.2.1/24"]})
    shown = [one["local"] for one in links(host)["office"]["addr_info"] if one["family"] == "inet"]
    assert shown == ["192.0.2.1"]
    host.wait_until("sh", "-c", "cmp /mnt/op/state/net/office.json /mnt/op/live/net/office.json")


def test_what_fails_half_way_is_undone_and_said(host):
    put(host, "home", {"type": "bridge", "addresses": ["192.0.2.1/24"]})
    before = host.run("cat", "/mnt/op/live/net/home.json").stdout
    bad = {"type": "bridge", "mtu": 1300, "addresses": [], "routes": [{"to": "10.0.0.0/8", "via": "192.0.2.9"}]}
    assert put(host, "home", bad, check=False).returncode != 0
    said = " ".join(host.run("tail", "-6", "/mnt/op/errors").stdout.split())
    assert "the route to 10.0.0.0/8" in said
    assert "everything was undone" in said
    assert host.run("cat", "/mnt/op/live/net/home.json").stdout == before
    assert "192.0.2.1" in host.run("ip", "address", "show", "dev", "home").stdout
    assert links(host)["home"]["mtu"] == 1500


def test_the_way_to_the_host_is_not_taken_without_a_word(host):
    put(
        host,
        "uplink",
        {"type": "bridge", "addresses": ["192.0.2.1/24"], "routes": [{"to": "default", "via": "192.0.2.9"}]},
    )
    refused = host.run("rm", "/mnt/op/state/net/uplink.json", check=False)
    assert "Operation not permitted" in refused.stderr
    assert "uplink" in links(host)
    host.sh("echo 'confirm delete net/uplink' > /mnt/op/ctl && rm /mnt/op/state/net/uplink.json")
    assert "uplink" not in links(host)
