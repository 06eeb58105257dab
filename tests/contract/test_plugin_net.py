"""The net plugin on the real kernel, in a network namespace of each test's own: the contract of plugins and more."""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import os
import re
import struct
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
from namespaces import in_namespaces, ip, other_host

from opfs.clients.netlink.changes import set_addresses
from opfs.core.action import Safety
from opfs.errors import ApplyFailed, Rejected
from opfs.plugins.net.plugin import NetPlugin
from opfs.testing.contracts.plugin import (
    CHECKS,
    PluginCase,
    check_creates_changes_and_deletes,
    check_interrupted_plans_are_finished,
    check_rolls_back,
)

BRIDGE = [
    {"type": "bridge", "addresses": ["192.0.2.1/24", "2001:db8::1/64"]},
    {
        "type": "bridge",
        "mtu": 1400,
        "mac": "02:00:00:00:00:01",
        "description": "office",
        "bridge": {"stp": True, "forward_delay": 4, "ageing_time": 60.5, "priority": 4096},
        "addresses": ["192.0.2.1/24", "192.0.2.2/24", "198.51.100.1/25"],
        "routes": [{"to": "203.0.113.0/24", "via": "192.0.2.254", "metric": 50}, {"to": "10.0.0.0/8", "table": 100}],
    },
    {"type": "bridge", "state": "down", "addresses": ["2001:db8::2/64"], "protected": True},
]
CASES = {
    "bridge": BRIDGE,
    "veth": [
        {"type": "veth", "peer": "other", "master": "br0"},
        {"type": "veth", "peer": "other", "addresses": ["192.0.2.1/31"], "mtu": 9000},
        {"type": "veth", "peer": "another", "addresses": ["192.0.2.1/31"]},
    ],
    "vxlan": [
        {"type": "vxlan", "vxlan": {"id": 42, "local": "192.0.2.9", "remote": "192.0.2.8", "port": 4789}},
        {"type": "vxlan", "vxlan": {"id": 42, "local": "192.0.2.9", "remote": "192.0.2.7", "port": 4789, "ttl": 9}},
        {"type": "vxlan", "vxlan": {"id": 43, "remote": "239.1.1.1"}, "parent": "br0", "state": "down"},
        {"type": "vxlan", "vxlan": {"id": 43, "local": "2001:db8::9", "remote": "2001:DB8::8", "learning": False}},
    ],
    "macvlan": [
        {"type": "macvlan", "parent": "br0", "macvlan": {"mode": "bridge"}},
        {"type": "macvlan", "parent": "br0", "macvlan": {"mode": "private"}, "addresses": ["192.0.2.1/24"]},
    ],
    "macvtap": [
        {"type": "macvtap", "parent": "br0"},
        {"type": "macvtap", "parent": "br0", "macvtap": {"mode": "bridge"}},
    ],
    "ifb": [{"type": "ifb"}, {"type": "ifb", "state": "down"}],
    "tap": [
        {"type": "tap", "tap": {"owner": 1000}, "master": "br0"},
        {"type": "tap", "tap": {"owner": 1001, "group": 5, "multi_queue": True}, "mac": "02:00:00:00:00:02"},
        {"type": "tap", "tap": {"owner": 4294967294, "group": 2147483648}},
    ],
    "tun": [{"type": "tun", "addresses": ["192.0.2.1/24"]}, {"type": "tap", "addresses": ["192.0.2.1/24"]}],
}
REFUSED = [
    {},
    {"type": "brigde"},
    {"type": "bridge", "mtu": 1},
    {"type": "bridge", "mtu": "1500"},
    {"type": "bridge", "vlan": {"id": 5}},
    {"type": "bridge", "peer": "x"},
    {"type": "bridge", "parent": "eth0"},
    {"type": "bridge", "kind": "bridge"},
    {"type": "bridge", "master": "../x"},
    {"type": "bridge", "master": "element"},
    {"type": "bridge", "mac": "01:00:00:00:00:01"},
    {"type": "bridge", "mac": "00:00:00:00:00:00"},
    {"type": "bridge", "addresses": ["192.0.2.1"]},
    {"type": "bridge", "addresses": ["192.0.2.300/24"]},
    {"type": "bridge", "addresses": ["fe80::1%eth0/64"]},
    {"type": "bridge", "addresses": ["224.0.0.1/24"]},
    {"type": "bridge", "addresses": ["2001:db8::1/64", "2001:DB8:0::1/64"]},
    {"type": "bridge", "routes": [{"to": "192.0.2.1/24"}]},
    {"type": "bridge", "routes": [{"to": "192.0.2.0/24", "via": "2001:db8::1"}]},
    {"type": "bridge", "routes": [{"to": "default"}, {"to": "0.0.0.0/0"}]},
    {"type": "bridge", "routes": [{"to": "default"}], "state": "down"},
    {"type": "bridge", "bridge": {"stp": True, "forward_delay": 1}},
    {"type": "bridge", "description": "ä" * 200},
    {"type": "bridge", "description": "two\nlines"},
    {"type": "veth"},
    {"type": "veth", "peer": "element"},
    {"type": "vlan", "vlan": {"id": 5}},
    {"type": "vlan", "parent": "br0"},
    {"type": "vxlan", "vxlan": {"id": 1 << 24}},
    {"type": "vxlan", "vxlan": {"id": 1, "remote": "239.1.1.1"}},
    {"type": "vxlan", "vxlan": {"id": 1, "remote": "192.0.2.1", "local": "2001:db8::1"}},
    {"type": "tun", "mac": "02:00:00:00:00:01"},
    {"type": "loopback"},
]


@pytest.fixture
def plugin():
    return NetPlugin()


async def become(plugin, element, desired):
    """What the daemon does, without policy; returns the plan."""
    if desired is not None:
        plugin.check(element, desired)
    diff = plugin.plan(element, await observed(plugin, element), desired)
    for action in diff.actions:
        await plugin.apply(action)
    return diff


async def observed(plugin, element):
    return (await plugin.observe([element])).get(element)


def case_of(plugin, documents):
    async def disturb():
        ip("link", "set", "element", "mtu", "1300")
        ip("link", "set", "element", "down" if documents[0].get("state", "up") == "up" else "up")

    failing = {**documents[0], "routes": [{"to": "203.0.113.0/24", "via": "233.252.0.1"}]}
    protected = next((document for document in documents if document.get("protected")), None)
    return PluginCase(
        plugin, "element", documents, refused=REFUSED, failing=failing, disturb=disturb, protected=protected
    )


MOST_TELLING = (check_creates_changes_and_deletes, check_interrupted_plans_are_finished, check_rolls_back)
ROWS = [
    pytest.param(check, kind, id=f"{kind}-{check.__name__}")
    for kind in CASES
    for check in (CHECKS if kind in ("bridge", "veth", "vxlan") else MOST_TELLING)
]


@pytest.mark.parametrize(("check", "kind"), ROWS)
@in_namespaces
async def test_contract(check, kind, plugin):
    ip("link", "add", "br0", "type", "bridge")
    before = ip("link")
    await check(case_of(plugin, CASES[kind]))
    assert len(ip("link").splitlines()) == len(before.splitlines()), "something is left behind"


@in_namespaces
async def test_what_a_bridge_gets_is_what_ip_shows(plugin):
    await become(plugin, "br1", BRIDGE[1])
    [link] = json.loads(ip("-j", "-d", "link", "show", "br1"))
    data = link["linkinfo"]["info_data"]
    assert (link["mtu"], link["address"], link["ifalias"]) == (1400, "02:00:00:00:00:01", "office")
    assert (data["stp_state"], data["forward_delay"], data["ageing_time"], data["priority"]) == (1, 400, 6050, 4096)
    shown = {
        f"{one['local']}/{one['prefixlen']}"
        for one in json.loads(ip("-j", "-4", "addr", "show", "br1"))[0]["addr_info"]
    }
    assert shown == {"192.0.2.1/24", "192.0.2.2/24", "198.51.100.1/25"}
    routes = json.loads(ip("-j", "route", "show", "dev", "br1", "proto", "static"))
    assert [(one["dst"], one["gateway"], one["metric"]) for one in routes] == [("203.0.113.0/24", "192.0.2.254", 50)]
    assert "10.0.0.0/8 dev br1 proto static" in ip("route", "show", "table", "100")


@in_namespaces
async def test_the_first_address_of_a_network_goes_and_the_second_stays(plugin):
    """The kernel takes all addresses of a network with the first one."""
    await become(plugin, "br1", {"type": "bridge", "addresses": ["192.0.2.1/24", "192.0.2.2/24", "192.0.2.3/24"]})
    await become(plugin, "br1", {"type": "bridge", "addresses": ["192.0.2.3/24", "192.0.2.2/24"]})
    assert (await observed(plugin, "br1"))["addresses"] == ["192.0.2.2/24", "192.0.2.3/24"]


@in_namespaces
async def test_what_the_kernel_and_routers_give_is_neither_shown_nor_touched(plugin):
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "br0", "up")
    ip("addr", "add", "192.0.2.1/24", "dev", "br0", "valid_lft", "1000", "preferred_lft", "1000")
    ip("route", "add", "10.0.0.0/8", "dev", "br0", "proto", "dhcp")
    ip("route", "add", "172.16.0.0/12", "dev", "br0", "proto", "bird")
    before = ip("addr", "show", "br0"), ip("route")
    assert "fe80::" in before[0], "the kernel gave it one"
    found = await observed(plugin, "br0")
    assert "addresses" not in found
    assert "routes" not in found
    assert not plugin.compare("br0", {"type": "bridge"}, found)
    await become(plugin, "br0", {"type": "bridge", "mtu": 1400})
    assert ip("route") == before[1]
    assert "192.0.2.1/24" in ip("addr", "show", "br0")
    await become(plugin, "br0", {"type": "bridge", "addresses": ["192.0.2.1/24"]})
    assert "valid_lft forever" in ip("-4", "addr", "show", "br0"), "one from DHCP becomes the document's"


@in_namespaces
async def test_a_default_route_from_dhcp_guards_its_interface(plugin):
    ip("link", "add", "uplink", "type", "ifb")
    ip("addr", "add", "192.0.2.2/24", "dev", "uplink")
    ip("link", "set", "uplink", "up")
    ip("route", "add", "default", "via", "192.0.2.1", "proto", "dhcp")
    found = await observed(plugin, "uplink")
    assert found["default_route"] is True
    assert plugin.plan("uplink", found, None).safety is Safety.DESTRUCTIVE
    with pytest.raises(ApplyFailed, match=r"default: .*File exists.*same metric"):
        await become(plugin, "br0", {"type": "bridge", "addresses": ["198.51.100.1/24"], "routes": [{"to": "default"}]})
    assert "via 192.0.2.1" in ip("route", "show", "default"), "nobody's route is taken over"


@contextmanager
def tap_of_a_program(name):
    """A TAP link that ends with the descriptor that holds it."""
    with open("/dev/net/tun", "rb+", buffering=0) as device:
        fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))
        yield


@in_namespaces
async def test_links_of_others_are_left_out_and_found_by_name(plugin):
    ip("link", "add", "br0", "type", "bridge")
    with other_host("b"):
        ip("link", "set", "to-b", "master", "br0")
        ip("tuntap", "add", "ours", "mode", "tap")
        with tap_of_a_program("theirs"):
            ip("link", "add", "_odd", "type", "bridge")
            assert set(await plugin.observe(None)) == {"lo", "br0", "ours"}
            asked = await plugin.observe(["to-b", "theirs", "no-such", "much-too-long-for-it"])
            assert {name: document["type"] for name, document in asked.items()} == {"to-b": "veth", "theirs": "other"}
            assert asked["theirs"]["kind"] == "tun"
            assert asked["to-b"]["master"] == "br0"
            assert "to-b" in await plugin.observe(None, desired={"to-b": {"type": "veth", "peer": "up0"}})
            [mtu] = plugin.plan("theirs", asked["theirs"], {"type": "other", "mtu": 1400}).actions
            await plugin.apply(mtu)
            assert (await observed(plugin, "theirs"))["mtu"] == 1400
            with pytest.raises(Rejected, match="neither makes nor removes"):
                plugin.plan("theirs", asked["theirs"], {"type": "tap"})


@in_namespaces
async def test_a_pair_is_made_once_and_each_end_has_a_document(plugin):
    left = {"type": "veth", "peer": "right", "addresses": ["192.0.2.1/31"]}
    right = {"type": "veth", "peer": "left", "addresses": ["192.0.2.0/31"], "mtu": 1400}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(become, plugin, "left", left)
        nursery.start_soon(become, plugin, "right", right)
    assert not plugin.compare("left", left, await observed(plugin, "left"))
    assert not plugin.compare("right", right, await observed(plugin, "right"))
    await become(plugin, "left", None)
    assert await observed(plugin, "right") is None, "with one end goes the other"
    assert not plugin.plan("right", None, None).actions


@in_namespaces
async def test_the_loopback_keeps_what_is_its_own(plugin):
    found = await observed(plugin, "lo")
    assert found == {
        "type": "loopback",
        "state": "up",
        "mtu": 65536,
        "master": "",
        "description": "",
        "addresses": [],
        "routes": [],
    }
    await become(plugin, "lo", {"type": "loopback", "addresses": ["10.255.0.1/32"]})
    await become(plugin, "lo", {"type": "loopback", "addresses": []})
    assert "127.0.0.1/8" in ip("addr", "show", "lo")
    assert "::1/128" in ip("addr", "show", "lo")
    await become(plugin, "lo", None)
    assert not plugin.compare("lo", None, await observed(plugin, "lo")), "it is let go of"


@asynccontextmanager
async def watching(plugin):
    """A watch that listens, and what it reports."""
    send, receive = trio.open_memory_channel(math.inf)
    mtus = itertools.cycle(["1300", "1301"])
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plugin.watch, send.send_nowait)
            while not receive.statistics().current_buffer_used:
                ip("link", "set", "br0", "mtu", next(mtus))
                await trio.lowlevel.checkpoint()
            yield receive
            nursery.cancel_scope.cancel()


async def report_of(element, receive):
    while (sighting := await receive.receive()).element != element:
        pass
    return sighting


@in_namespaces
async def test_what_others_do_is_reported_with_who_did_it(plugin):
    ip("link", "add", "br0", "type", "bridge")
    async with watching(plugin) as reports:
        for words, name in [
            (("link", "set", "br0", "mtu", "1400"), "br0"),
            (("addr", "add", "192.0.2.1/24", "dev", "br0"), "br0"),
            (("link", "set", "br0", "up"), "br0"),
            (("route", "add", "10.0.0.0/8", "dev", "br0"), "br0"),
            (("link", "set", "br0", "down"), "br0"),
            (("link", "set", "br0", "name", "br1"), "br0"),
            (("link", "add", "new", "type", "ifb"), "new"),
            (("link", "del", "br1"), "br1"),
        ]:
            while reports.statistics().current_buffer_used:
                reports.receive_nowait()
            ip(*words)
            # The kernel says who changed addresses and routes, and not who changed a link.
            by = r"netlink port \d+|uid 0, pid \d+ \(ip\)" if words[0] in ("addr", "route") else ""
            while not re.fullmatch(by, (await report_of(name, reports)).culprit):
                pass
        set_addresses("new", ["192.0.2.9/24"])
        while (await report_of("new", reports)).culprit != f"uid 0, pid {os.getpid()} (this daemon)":
            pass


@in_namespaces
async def test_a_flood_that_the_monitor_cannot_hold_is_told_as_such(plugin, monkeypatch):
    monkeypatch.setattr("opfs.clients.netlink.monitor._BUFFER_BYTES", 4096)
    ip("link", "add", "br0", "type", "bridge")
    async with watching(plugin) as reports:
        batch = "".join(f"link set br0 mtu {1400 + number}\n" for number in range(100))
        ip("-batch", "-", input=batch)  # blocks, so the watch reads nothing meanwhile
        await report_of(None, reports)
        ip("link", "set", "br0", "mtu", "1300")
        await report_of("br0", reports)


@in_namespaces
async def test_many_interfaces_are_one_reading(plugin):
    ip(
        "-batch",
        "-",
        input="".join(
            f"link add n{number} type bridge\naddr add 10.0.{number}.1/24 dev n{number}\n" for number in range(200)
        ),
    )
    found = await plugin.observe(None)
    assert len(found) == 201
    assert {found[f"n{number}"]["addresses"][0] for number in range(200)} == {
        f"10.0.{number}.1/24" for number in range(200)
    }
    some = [f"n{number}" for number in range(0, 200, 5)]
    assert await plugin.observe(some) == {name: found[name] for name in some}
    assert await plugin.observe(["n7"]) == {"n7": found["n7"]}


@in_namespaces
async def test_a_reading_that_is_interrupted_is_taken_again(plugin):
    """Links come and go while all are read: no error, and what stays is there every time."""
    ip("-batch", "-", input="".join(f"link add n{number} type bridge\n" for number in range(100)))
    is_done = False

    async def disturb():
        while not is_done:
            await trio.to_thread.run_sync(ip, "link", "add", "coming", "type", "bridge")
            await trio.to_thread.run_sync(ip, "link", "del", "coming")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(disturb)
        for _ in range(20):
            found = await plugin.observe(None)
            assert {f"n{number}" for number in range(100)} <= set(found)
        is_done = True


@in_namespaces
async def test_what_another_program_made_is_configured_and_left_alone():
    """A document of the type `other` takes an interface of any kind as it finds it, and never removes it."""
    plugin = NetPlugin()
    ip("tuntap", "add", "dev", "port0", "mode", "tap")
    document = {"type": "other", "addresses": ["192.0.2.1/24"], "state": "up"}

    async def become(desired, seen=document):
        before = (await plugin.observe(["port0"], desired={"port0": seen})).get("port0")
        diff = plugin.plan("port0", before, desired)
        for action in diff.actions:
            await plugin.apply(action)
        return diff, (await plugin.observe(["port0"], desired={"port0": seen})).get("port0")

    _, observed = await become(document)
    assert not plugin.compare("port0", document, observed)
    assert (observed["type"], observed["kind"]) == ("other", "tun")
    assert not plugin.plan("port0", observed, document).actions
    diff, observed = await become(None)
    assert not diff.actions
    assert not plugin.compare("port0", None, observed)
    assert "port0" in ip("-br", "link")
