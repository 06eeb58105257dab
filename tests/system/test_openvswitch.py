"""Bridges and flows through the mount, as a user has them: in any order, with drift, large, and taken apart again."""

from __future__ import annotations

import json
import os
import time

import pytest
from serving import serve

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse", "ovs")

NETDEV = {"datapath_type": "netdev"}


@pytest.fixture(scope="module")
def daemon(btrfs_dir, work_dir, private_switch):
    """A daemon whose Open vSwitch is the private one."""
    tables = f'ovs.run_dir = "{private_switch.run_dir}"\nopenflow.run_dir = "{private_switch.run_dir}"'
    with serve(btrfs_dir, work_dir, settings={"OPFS_PLUGIN": tables}) as serving:
        yield serving


@pytest.fixture
def host(daemon, switch):
    """The daemon and the switch, without documents and bridges at the beginning and the end."""
    yield daemon
    for plugin in ("openflow", "ovs"):
        for document in (daemon.mount / "state" / plugin).iterdir():
            daemon.sh(f"echo 'confirm delete {plugin}/{document.stem}' > ctl")
            document.unlink()
    assert switch.bridges() == []


def status(host, element):
    return os.getxattr(host.path(element), "user.opfs.status").decode()


def eventually(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.01)


def flows(switch):
    return switch.ofctl("--no-stats", "dump-flows", switch.management("br0"))


def test_flows_wait_for_their_bridge_and_the_bridge_for_the_device(host, switch):
    host.put("openflow/br0", flows=["priority=10,arp,actions=NORMAL", "priority=0,actions=drop"])
    assert status(host, "openflow/br0") == "waiting for ovs/br0"
    host.put("ovs/br0", **NETDEV, ports={"opfs-no-such": {}})
    assert status(host, "ovs/br0") == "waiting for net/opfs-no-such"
    assert switch.bridges() == []
    host.put("ovs/br0", **NETDEV, ports={"lan0": {"type": "internal"}})
    assert switch.vsctl("list-ports", "br0") == "lan0"
    eventually(lambda: "waiting" not in status(host, "openflow/br0"))
    assert "priority=10,arp actions=NORMAL" in flows(switch)
    assert [event["actor"]["source"] for event in host.events() if event["element"] == "br0"][-1] == "dependency"


def test_drift_of_bridge_and_flows_is_an_event(host, switch):
    host.put("ovs/br0", **NETDEV, ports={"lan0": {"type": "internal", "tag": 10}})
    host.put("openflow/br0", flows=["priority=10,arp,actions=NORMAL"])
    switch.vsctl("set", "port", "lan0", "tag=20")
    eventually(lambda: status(host, "ovs/br0").startswith("drifted"))
    switch.ofctl("del-flows", switch.management("br0"), "arp")
    eventually(lambda: status(host, "openflow/br0").startswith("drifted"))
    assert "/ports/lan0/tag  wanted 10  found 20" in host.opfs("drift", check=False).stdout
    assert json.loads((host.mount / "live/ovs/br0.json").read_text())["ports"]["lan0"]["tag"] == 20
    host.put("ovs/br0", **NETDEV, ports={"lan0": {"type": "internal", "tag": 10}})
    host.put("openflow/br0", flows=["priority=10,arp,actions=NORMAL"])
    eventually(lambda: "drifted" not in status(host, "ovs/br0") + status(host, "openflow/br0"))
    assert switch.vsctl("get", "port", "lan0", "tag") == "10"


def test_five_thousand_flows_are_one_document_and_one_refused_flow_is_pointed_at(host, switch):
    host.put("ovs/br0", **NETDEV)
    many = [
        f"table={n % 4},priority={n},ip,nw_dst=10.0.{n >> 8}.{n & 255},actions=output:{n % 40 + 1}" for n in range(5000)
    ]
    host.put("openflow/br0", flows=many)
    assert flows(switch).count("cookie=0x6f70667300000000") == 5000
    many[4321] = "ip,nw_dts=10.0.0.1,actions=drop"
    text = json.dumps({"flows": many}, indent=1)
    with pytest.raises(OSError, match="Invalid argument"):
        host.path("openflow/br0").write_text(text)
    errors = (host.mount / "errors").read_text()
    assert "flow 4322, 'ip,nw_dts=10.0.0.1,actions=drop'" in errors
    assert f"{text[: text.index('nw_dts')].count(chr(10)) + 1} |" in errors, "the line of the document"
    assert flows(switch).count("cookie=0x6f70667300000000") == 5000


def test_an_import_takes_over_and_a_delete_takes_apart(host, switch):
    switch.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
    switch.ofctl("add-flow", switch.management("br0"), "priority=5,icmp,actions=drop")
    host.opfs("import", "ovs", "br0")
    host.opfs("import", "openflow", "br0")
    before = flows(switch)
    assert host.opfs("drift").stdout == "everything is as declared\n"
    assert flows(switch) == before
    assert host.get("openflow/br0")["exclusive"] is True
    host.sh("echo 'confirm update openflow/br0' > ctl")
    host.put("openflow/br0", flows=["priority=7,icmp,actions=NORMAL"], exclusive=True)
    assert flows(switch) == " priority=7,icmp actions=NORMAL\n"
    host.path("openflow/br0").unlink()
    assert "icmp" not in flows(switch)
    host.path("ovs/br0").unlink()
    assert switch.bridges() == []
