"""Interfaces of containers beyond a bridge of the kernel, in a network of the test's own: Open vSwitch and DHCP."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from lxcworld import become, init_of, inside, lxc, lxc_directory, mount_cgroups, new_name, observed
from namespaces import in_namespaces, ip
from ovs import Here, Switch, wait_until

from opfs.errors import ApplyFailed
from opfs.plugins.lxc.networks import host_side
from opfs.plugins.lxc.plugin import LxcPlugin

pytestmark = pytest.mark.needs("root", "lxc", "ovs")


@contextmanager
def world():
    """Control groups, an LXC directory, and a name."""
    mount_cgroups()
    name = new_name()
    with lxc_directory(name) as lxcpath:
        yield lxcpath, name


@contextmanager
def a_switch(lxcpath):
    """An Open vSwitch whose interfaces are in the network where the containers are started."""
    switch = Switch(lxcpath.parent, Here())
    switch.vsctl("add-br", "ovsbr0", "--", "set", "bridge", "ovsbr0", "datapath_type=netdev")
    yield switch
    switch.close()


def ports(switch):
    return switch.vsctl("list-ports", "ovsbr0", wait=False).split()


@in_namespaces
async def test_interfaces_on_open_vswitch():
    with world() as (lxcpath, name), a_switch(lxcpath) as switch:
        plugin = LxcPlugin(lxcpath, ovs_socket=switch.database)
        peer = new_name()
        network = {"bridge": "ovsbr0", "ip": "192.0.2.10/24", "tag": 20, "hwaddr": "02:00:00:00:00:10"}
        document = {"net0": network, "state": "running"}
        await become(plugin, name, document)
        port = host_side(f"{lxcpath}/{name}", "0")
        assert ports(switch) == [port]
        assert switch.vsctl("get", "port", port, "tag") == "20"
        assert switch.vsctl("get", "port", port, "external_ids:opfs-lxc") == name
        # Real packets: only a neighbour in the same VLAN is reached.
        await become(plugin, peer, {"net0": {"bridge": "ovsbr0", "ip": "192.0.2.11/24"}, "state": "running"})
        assert "100% packet loss" in ping(lxcpath, name, "192.0.2.11")
        await become(plugin, peer, {"net0": {"bridge": "ovsbr0", "ip": "192.0.2.11/24", "tag": 20}, "state": "running"})
        wait_until(lambda: " 0% packet loss" in ping(lxcpath, name, "192.0.2.11"), "an answer")
        # Others stop and start it, with no daemon: it is plugged in again.
        end(lxcpath, name)
        wait_until(lambda: port not in ports(switch), "unplugged by LXC")
        lxc(lxcpath, "lxc-start", name)
        assert port in ports(switch)
        assert not plugin.compare(name, document, await observed(plugin, name))
        # Somebody moves the port to another VLAN: drift, repaired by the document.
        switch.vsctl("set", "port", port, "tag=30")
        assert (await observed(plugin, name))["pending"] == {"net0": None}
        assert plugin.compare(name, document, await observed(plugin, name))
        await become(plugin, name, document)
        assert switch.vsctl("get", "port", port, "tag") == "20"
        # VLANs that pass tagged.
        end(lxcpath, name)
        await become(plugin, name, {"net0": {"bridge": "ovsbr0", "trunks": "31;30"}, "state": "running"})
        assert switch.vsctl("get", "port", port, "trunks") == "[30, 31]"
        assert (await observed(plugin, name))["net0"] == {"bridge": "ovsbr0", "trunks": "30;31"}
        end(lxcpath, name)
        await become(plugin, name, {"net0": {"bridge": "ovsbr0", "link_down": True}, "state": "running"})
        assert "UP" not in inside(lxcpath, name, "ip", "link", "show", "eth0")
        # A monitor that is killed leaves its port to us.
        os.kill(parent_of(init_of(lxcpath, name)), signal.SIGKILL)
        wait_until(lambda: "STOPPED" in lxc(lxcpath, "lxc-info", name, "-sH"), "stopped")
        await become(plugin, name, None)
        await become(plugin, peer, None)
        assert ports(switch) == []


def end(lxcpath, name):
    """At once: a busybox guest takes two seconds to halt."""
    lxc(lxcpath, "lxc-stop", name, "--kill")


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def ping(lxcpath, name, address):
    return lxc(lxcpath, "lxc-attach", name, "--", "ping", "-c", "1", "-W", "1", address, check=False)


@in_namespaces
async def test_a_bridge_may_change_its_kind_between_two_starts():
    with world() as (lxcpath, name), a_switch(lxcpath) as switch:
        plugin = LxcPlugin(lxcpath, ovs_socket=switch.database)
        document = {"net0": {"bridge": "lan"}, "state": "running"}
        with pytest.raises(ApplyFailed, match="there is no bridge 'lan' on this host, nor in Open vSwitch"):
            await become(plugin, name, document)
        ip("link", "add", "lan", "type", "bridge")
        await become(plugin, name, document)
        assert len(os.listdir("/sys/class/net/lan/brif")) == 1
        await become(plugin, name, {**document, "state": "stopped"})
        ip("link", "del", "lan")
        switch.vsctl("add-br", "lan", "--", "set", "bridge", "lan", "datapath_type=netdev")
        await become(plugin, name, document)
        assert switch.vsctl("list-ports", "lan", wait=False) == host_side(f"{lxcpath}/{name}", "0")
        # Without a database nobody can say that it is plugged in; all else is observed.
        switch.server.kill()
        switch.server.wait()
        found = await observed(plugin, name)
        assert (found["state"], found["pending"]) == ("running", {"net0": None})
        switch.restart_server()
        # A switch that lost the bridge is a failed start with LXC's words, and no success.
        await become(plugin, name, {**document, "state": "stopped"})
        [start] = plugin.plan(name, await observed(plugin, name), document).actions
        switch.vsctl("del-br", "lan")
        with pytest.raises(ApplyFailed):
            await plugin.backend.tools.start(name)
        assert (await observed(plugin, name))["state"] == "stopped"
        with pytest.raises(ApplyFailed, match="no bridge 'lan'"):
            await plugin.apply(start)
        await become(plugin, name, None)


@in_namespaces
async def test_a_guest_gets_its_address_from_a_dhcp_server():
    with world() as (lxcpath, name), tempfile.TemporaryDirectory() as place:
        ip("link", "add", "lan", "type", "bridge")
        ip("addr", "add", "198.51.100.1/24", "dev", "lan")
        ip("link", "set", "lan", "up")
        with dhcp_server(Path(place)):
            plugin = LxcPlugin(lxcpath)
            document = {
                "net0": {"bridge": "lan", "ip": "dhcp"},
                "net1": {"bridge": "lan", "name": "lan1", "ip": "dhcp"},
                "state": "running",
            }
            await become(plugin, name, document)
            for interface in ("eth0", "lan1"):
                wait_until(
                    lambda which=interface: "198.51.100." in inside(lxcpath, name, "ip", "addr", "show", which),
                    "an address",
                )
            end(lxcpath, name)
            await become(plugin, name, {"net0": {"bridge": "lan", "ip": "198.51.100.9/24"}, "state": "running"})
            assert "198.51.100.9/24" in inside(lxcpath, name, "ip", "addr", "show", "eth0")
            await become(plugin, name, None)


@contextmanager
def dhcp_server(place):
    (place / "leases").touch()
    (place / "conf").write_text(
        f"interface lan\nstart 198.51.100.100\nend 198.51.100.120\nlease_file {place}/leases\n"
        f"pidfile {place}/pid\noption subnet 255.255.255.0\n"
    )
    server = subprocess.Popen(["busybox", "udhcpd", "-f", place / "conf"], stderr=subprocess.DEVNULL)
    yield
    server.kill()
    server.wait()


@in_namespaces
async def test_only_guests_that_are_known_are_told_to_ask():
    with world() as (lxcpath, name):
        ip("link", "add", "lan", "type", "bridge")
        plugin = LxcPlugin(lxcpath)
        await become(plugin, name, {})
        (lxcpath / name / "rootfs/etc/init.d/rcS").write_text("#!/bin/sh\nexec /usr/bin/theirs\n")
        with pytest.raises(ApplyFailed, match="only busybox guests"):
            await become(plugin, name, {"net0": {"bridge": "lan", "ip": "dhcp"}, "state": "running"})
        await become(plugin, name, None)
