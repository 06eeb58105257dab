"""The lxc plugin on real containers: the contract of plugins, live limits, networks, starts and stops.

Containers live in an LXC directory of the test's own, under names that no other run has, since control
groups have one name space for the whole host.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
import trio
from lxcworld import become, inside, lxc, observed

from opfs.core.action import Safety
from opfs.errors import ApplyFailed
from opfs.plugins.lxc.plugin import LxcPlugin
from opfs.testing.contracts.plugin import CHECKS, PluginCase

pytestmark = pytest.mark.needs("root", "lxc")


@pytest.fixture
def name(lxc_name):
    return lxc_name


@pytest.fixture
def plugin(lxcpath):
    return LxcPlugin(lxcpath)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check, plugin, lxcpath, name):
    protected = {"hostname": "db", "tags": "a;b", "description": "two\nlines", "protection": True, "state": "stopped"}

    async def disturb():
        lxc(lxcpath, "lxc-stop", name, "--kill")

    case = PluginCase(
        plugin,
        name,
        [
            {"hostname": "web", "memory": 512, "state": "running"},
            {"hostname": "web", "memory": 256, "swap": 128, "cores": 1, "onboot": True, "state": "running"},
            protected,
        ],
        refused=[
            {"memmory": 512},
            {"memory": "512"},
            {"memory": 1},
            {"memory": 512.5},
            {"swap": 128},
            {"hostname": "web\nlxc.hook.start = /bin/sh"},
            {"hostname": "-web"},
            {"ostemplate": "../../bin/sh"},
            {"ostemplate": "download"},
            {"ostemplate": "busybox", "rootfs": "/srv/root"},
            {"rootfs": "/"},
            {"rootfs": "/etc"},
            {"rootfs": "/srv/../etc"},
            {"rootfs": "/srv/a\nlxc.hook.start = /bin/sh"},
            {"rootfs": "overlay:/srv/a"},
            {"rootfs": f"{lxcpath}/other/rootfs"},
            {"cores": 100_000},
            {"cores": 8000},
            {"cpulimit": 0.001},
            {"net0": {}},
            {"net0": {"bridge": "br0\nlxc.hook.start = /bin/sh"}},
            {"net0": {"bridge": "../br0"}},
            {"net0": {"bridge": "br0", "ip": "dhcp", "gw": "192.0.2.1"}},
            {"net0": {"bridge": "br0", "firewall": True}},
            {"net0": {"bridge": "br0", "rate": 1}},
            {"net0": {"bridge": "br0", "tag": 4095}},
            {"net0": {"bridge": "br0", "trunks": "0"}},
            {"net0": {"bridge": "br0", "ip": "192.0.2.1"}},
            {"net0": {"bridge": "br0", "ip": "192.0.2.300/24"}},
            {"net0": {"bridge": "br0", "gw": "192.0.2.1"}},
            {"net0": {"bridge": "br0", "ip": "192.0.2.10/24", "gw": "198.51.100.1"}},
            {"net0": {"bridge": "br0", "hwaddr": "01:00:00:00:00:01"}},
            {"net10": {"bridge": "br0"}},
            {"mp0": {"mp": "/data"}},
            {"mp0": {"volume": "/srv/data", "mp": "/data", "size": "8G"}},
            {"mp0": {"volume": "local:8", "mp": "/data"}},
            {"mp0": {"volume": "/srv/../etc", "mp": "/data"}},
            {"mp0": {"volume": "/proc/1", "mp": "/data"}},
            {"mp0": {"volume": "/srv/data\nlxc.hook.start = /bin/sh", "mp": "/data"}},
            {"mp0": {"volume": str(lxcpath), "mp": "/data"}},
            {"mp0": {"volume": str(lxcpath.parent), "mp": "/data"}},
            {"mp0": {"volume": "/srv/data", "mp": "/"}},
            {"mp0": {"volume": "/srv/data", "mp": "/proc/sys"}},
            {"mp0": {"volume": "/srv/data", "mp": "/data/../etc"}},
            {"mp0": {"volume": "/srv/a", "mp": "/data"}, "mp1": {"volume": "/srv/b", "mp": "/data"}},
            {"features": {"mknod": True}},
            {"features": {"mount": "nfs"}},
            {"features": {"fly": True}},
            {"nameserver": "dns.example.net"},
            {"nameserver": "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4"},
            {"searchdomain": "example.net\nnameserver 192.0.2.1"},
            {"ostemplate": "/srv/images/debian.iso"},
            {"ostemplate": "/srv/../debian.tar.gz"},
            {"ostemplate": "local:vztmpl/debian.tar.zst"},
            {"tags": "a b"},
            {"state": "paused"},
            {"pending": {"memory": 1}},
        ],
        failing={"hostname": "web", "memory": 512, "state": "running", "net0": {"bridge": "opfs-no-such"}},
        disturb=disturb,
        protected={
            "hostname": "db",
            "tags": "a;b",
            "description": "two\nlines",
            "protection": True,
            "state": "stopped",
        },
    )
    await check(case)
    assert os.listdir(lxcpath) == [], "nothing is left behind"


async def test_the_shortest_document_is_a_container(plugin, lxcpath, name):
    await become(plugin, name, {"state": "running"})
    assert inside(lxcpath, name, "hostname") == name
    assert inside(lxcpath, name, "ls", "/sys/class/net") == "lo", "no interface unless one is asked for"
    assert plugin.why_unavailable() is None


async def test_limits_are_enforced_live_and_survive_a_restart(plugin, lxcpath, name):
    await become(plugin, name, {"memory": 512, "state": "running"})
    init = lxc(lxcpath, "lxc-info", name, "-pH").strip()
    limits = {"memory": 64, "swap": 32, "cores": 1, "cpulimit": 0.5}
    await become(plugin, name, {**limits, "state": "running"})
    assert lxc(lxcpath, "lxc-info", name, "-pH").strip() == init, "no restart"
    assert f"{64 << 20}" in kernel_limits(plugin, init)
    assert "1" in inside(lxcpath, name, "nproc")
    lxc(lxcpath, "lxc-stop", name, "--kill")
    lxc(lxcpath, "lxc-start", name)
    after = await observed(plugin, name)
    assert {key: after[key] for key in limits} == limits
    await become(plugin, name, {"state": "running"})
    after = await observed(plugin, name)
    assert not limits.keys() & after.keys(), "limits that are left out are lifted"


def kernel_limits(plugin, init):
    """The memory limit as the kernel has it, found without the plugin's help."""
    version = plugin.backend.host.versions["memory"]
    path = next(
        line.split(":", 2)[2]
        for line in Path(f"/proc/{init}/cgroup").read_text().splitlines()
        if (":memory:" in line if version == 1 else line.startswith("0::"))
    )
    root, file = ("memory", "memory.limit_in_bytes") if version == 1 else ("", "memory.max")
    return (Path("/sys/fs/cgroup") / root / path.lstrip("/") / file).read_text()


async def test_memory_and_swap_grow_and_shrink_together(plugin, name):
    """Version 1 wants memory below memory plus swap after every single write."""
    for memory, swap in [(64, 0), (512, 256), (512, 0), (128, 512), (32, 16), (1024, None), (64, 64)]:
        document = {"memory": memory, "state": "running"} | ({} if swap is None else {"swap": swap})
        await become(plugin, name, document)
        assert not plugin.compare(name, document, await observed(plugin, name))


async def test_a_limit_that_the_kernel_refuses_changes_nothing(plugin, lxcpath, name):
    await become(plugin, name, {"memory": 512, "state": "running"})
    if plugin.backend.host.versions["memory"] != 1:
        pytest.skip("control groups of version 2 take any limit and reclaim afterwards")
    # 64 MiB that cannot be reclaimed: pages of a tmpfs, with no swap to go to.
    inside(lxcpath, name, "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=64")
    config = (lxcpath / name / "config").read_text()
    with pytest.raises(ApplyFailed, match=r"the kernel refuses .*busy"):
        await become(plugin, name, {"memory": 32, "state": "running"})
    assert (lxcpath / name / "config").read_text() == config
    assert (await observed(plugin, name))["memory"] == 512


async def test_a_limit_that_is_only_in_the_configuration_is_pending(plugin, lxcpath, name):
    document = {"memory": 64, "state": "running"}
    await become(plugin, name, document)
    config = lxcpath / name / "config"
    config.write_text(config.read_text().replace(str(64 << 20), str(128 << 20)))
    found = await observed(plugin, name)
    assert (found["memory"], found["pending"]) == (64, {"memory": 128})
    assert plugin.compare(name, document, found)
    assert plugin.compare(name, {**document, "memory": 128}, found)
    await become(plugin, name, document)
    assert (await observed(plugin, name)).get("pending") is None


async def test_another_name_restarts_the_container(plugin, lxcpath, name):
    await become(plugin, name, {"hostname": "one", "state": "running"})
    diff = await become(plugin, name, {"hostname": "two"})
    assert [action.step for action in diff.actions] == ["stop", "set-at-start", "start"]
    assert diff.safety is Safety.DISRUPTIVE
    assert inside(lxcpath, name, "hostname") == "two"


async def test_a_restart_that_a_crash_cut_short_is_finished_even_if_no_state_is_asked_for(plugin, lxcpath, name):
    await become(plugin, name, {"hostname": "one", "state": "running"})
    stop, change, _ = plugin.plan(name, await observed(plugin, name), {"hostname": "two"}).actions
    await plugin.apply(stop)
    await plugin.apply(change)
    cut = await observed(plugin, name)
    assert cut["pending"] == {"state": "running"}
    assert plugin.compare(name, {"hostname": "two"}, cut)
    await become(plugin, name, {"hostname": "two"})
    assert inside(lxcpath, name, "hostname") == "two"
    assert "pending" not in await observed(plugin, name)


async def test_an_interface_on_a_bridge(plugin, lxcpath, name, bridge):
    network = {"bridge": bridge, "ip": "192.0.2.10/24", "gw": "192.0.2.1", "hwaddr": "02:AB:00:00:00:01", "mtu": 1400}
    document = {"net0": network, "net3": {"bridge": bridge, "name": "backup"}, "state": "running"}
    await become(plugin, name, document)
    assert not plugin.compare(name, document, await observed(plugin, name))
    assert set(inside(lxcpath, name, "ls", "/sys/class/net").split()) == {"lo", "eth0", "backup"}
    seen = inside(lxcpath, name, "ip", "addr", "show", "eth0")
    assert "192.0.2.10/24" in seen
    assert "02:ab:00:00:00:01" in seen
    assert "mtu 1400" in seen
    assert "192.0.2.1" in inside(lxcpath, name, "ip", "route")
    # The guest's own start script has run by now or will not change this: it finds an address and keeps it.
    assert len(os.listdir(f"/sys/class/net/{bridge}/brif")) == 2
    assert [list(map(str, needed.any_of)) for needed in plugin.depends_on(name, document)] == [
        [f"net/{bridge}", f"ovs/{bridge}"]
    ]
    await become(plugin, name, {"net3": {"bridge": bridge}, "state": "running"})
    assert set(inside(lxcpath, name, "ls", "/sys/class/net").split()) == {"lo", "eth3"}
    await become(plugin, name, {"state": "running"})
    assert inside(lxcpath, name, "ls", "/sys/class/net") == "lo"


async def test_a_missing_bridge_is_found_before_the_container_is_stopped(plugin, lxcpath, name):
    await become(plugin, name, {"state": "running"})
    init = lxc(lxcpath, "lxc-info", name, "-pH")
    with pytest.raises(ApplyFailed, match="no bridge 'opfs-no-such'"):
        await become(plugin, name, {"net0": {"bridge": "opfs-no-such"}, "state": "running"})
    assert lxc(lxcpath, "lxc-info", name, "-pH") == init


async def test_a_failed_start_says_why(plugin, lxcpath, name):
    await become(plugin, name, {})
    config = lxcpath / name / "config"
    config.write_text(config.read_text() + "lxc.net.0.type = veth\nlxc.net.0.link = opfs-no-such\n")
    with pytest.raises(ApplyFailed, match=r"opfs-no-such.*doesn't exist"):
        await plugin.backend.tools.start(name)


def parent_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]


def files_held_by(pid):
    return {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}


def cgroups_of(pid):
    return Path(f"/proc/{pid}/cgroup").read_text()


async def test_a_container_outlives_and_inherits_nothing_from_whoever_starts_it(lxcpath, name):
    """Start one from a process that holds a file open and then ends."""
    program = f"""
import os, trio
from pathlib import Path
from opfs.plugins.lxc.plugin import LxcPlugin
held = os.open("/etc/passwd", os.O_RDONLY)
os.set_inheritable(held, True)
plugin = LxcPlugin(Path({str(lxcpath)!r}))
async def main():
    for action in plugin.plan({name!r}, None, {{"state": "running"}}).actions:
        await plugin.apply(action)
trio.run(main)
"""
    await trio.run_process([sys.executable, "-c", program])
    assert "RUNNING" in lxc(lxcpath, "lxc-info", name, "-sH")
    init = lxc(lxcpath, "lxc-info", name, "-pH").strip()
    monitor = parent_of(init)
    for pid in (init, monitor):
        assert "/etc/passwd" not in files_held_by(pid)
        assert "lxc." in cgroups_of(pid), "in a control group of its own"
    assert os.getsid(int(monitor)) != os.getsid(0)


async def test_foreign_containers_and_lines_are_respected(plugin, lxcpath, name):
    await become(plugin, name, {"memory": 64})
    config = lxcpath / name / "config"
    theirs = "# by hand\nlxc.environment = A=1\nlxc.net.0.script.up = /bin/true\n"
    config.write_text(config.read_text() + theirs)
    before = [line for line in config.read_text().splitlines() if "cgroup" not in line]
    await become(plugin, name, {"memory": 128})
    assert [line for line in config.read_text().splitlines() if "cgroup" not in line] == before
    (lxcpath / "not a name!").mkdir()
    (lxcpath / "empty").mkdir()
    assert set(await plugin.observe(None)) == {name}
    (lxcpath / "not a name!").rmdir()


async def test_a_hundred_containers_are_observed_at_once(plugin, lxcpath, name):
    await become(plugin, name, {"memory": 64, "state": "running"})
    text = (lxcpath / name / "config").read_text()
    for number in range(100):
        copy = lxcpath / f"{name}-{number}"
        copy.mkdir()
        (copy / "config").write_text(text.replace(name, copy.name))
    started = time.monotonic()
    found = await plugin.observe(None)
    took_s = time.monotonic() - started
    assert len(found) == 101
    assert found[name]["state"] == "running"
    assert {document["memory"] for document in found.values()} == {64}
    print(f"101 containers observed in {took_s * 1000:.0f} ms")


async def test_a_frozen_container_is_thawed(plugin, lxcpath, name):
    await become(plugin, name, {"state": "running"})
    lxc(lxcpath, "lxc-freeze", name)
    assert (await observed(plugin, name))["state"] == "frozen"
    diff = await become(plugin, name, {"state": "running"})
    assert [action.step for action in diff.actions] == ["thaw"]
    assert (await observed(plugin, name))["state"] == "running"
