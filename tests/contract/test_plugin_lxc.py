"""The lxc plugin on real containers: the contract of plugins, live limits, networks, roots and half-made ones.

Containers live in an LXC directory of the test's own, under names that no other run has, since control
groups have one name space for the whole host.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import trio
from lxcworld import become, inside, lxc, observed

from opfs.clients.lxc import LxcTools
from opfs.core.action import Safety
from opfs.errors import ApplyFailed, ApplyTimeout, InvalidRequest
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


async def test_a_root_directory_is_used_in_place_and_survives(plugin, lxcpath, name, tmp_path):
    await become(plugin, name, {})
    root = tmp_path / "root"
    shutil.copytree(lxcpath / name / "rootfs", root, symlinks=True)
    await become(plugin, name, None)
    document = {"rootfs": str(root), "state": "running"}
    await become(plugin, name, document)
    assert not plugin.compare(name, document, await observed(plugin, name))
    inside(lxcpath, name, "touch", "/made-inside")
    assert (root / "made-inside").exists()
    diff = await become(plugin, name, None)
    assert "left alone" in diff.actions[-1].summary
    assert (root / "made-inside").exists()
    assert os.listdir(lxcpath) == []


async def test_roots_that_cannot_be_are_refused(plugin, name, tmp_path):
    (tmp_path / "link").symlink_to("/srv")
    for root, reason in [
        (tmp_path / "link", "through a link"),
        (tmp_path / "no", "not a directory"),
        (tmp_path, "init"),
    ]:
        with pytest.raises(ApplyFailed, match=reason):
            await become(plugin, name, {"rootfs": str(root)})
        assert await observed(plugin, name) is None


async def test_an_unknown_template_names_the_known_ones(plugin, name):
    with pytest.raises(ApplyFailed, match=r"there are: .*busybox"):
        await become(plugin, name, {"ostemplate": "no-such"})


async def test_another_template_destroys_and_needs_confirmation(plugin, name):
    await become(plugin, name, {"state": "running"})
    diff = plugin.plan(name, await observed(plugin, name), {"ostemplate": "debian"})
    assert [action.step for action in diff.actions] == ["kill", "destroy", "create", "start"]
    assert diff.safety is Safety.DESTRUCTIVE


async def test_a_half_made_container_counts_as_absent_and_is_made_anew(plugin, lxcpath, name):
    half = lxcpath / name
    (half / "rootfs/etc").mkdir(parents=True)
    (half / "config").write_text(f"lxc.rootfs.path = dir:{half}/rootfs\n")
    (half / "partial").touch()
    assert await observed(plugin, name) is None
    assert await plugin.observe(None) == {}
    await become(plugin, name, {"state": "running"})
    assert not (half / "partial").exists()
    assert inside(lxcpath, name, "hostname") == name


async def test_a_cancelled_create_leaves_nothing(plugin, lxcpath, name, tmp_path):
    template = tmp_path / "lxc-slow"
    started = tmp_path / "started"
    template.write_text(f"#!/bin/sh\necho $$ > {started}.new; mv {started}.new {started}\nexec sleep 1000\n")
    template.chmod(0o755)
    config = tmp_path / "base.conf"
    config.write_text("lxc.net.0.type = empty\n")
    tools = LxcTools(lxcpath)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tools.create, name, config, str(template))
            while not started.exists():
                await trio.lowlevel.checkpoint()
            assert (lxcpath / name / "partial").exists()
            script = os.pidfd_open(int(started.read_text()))
            nursery.cancel_scope.cancel()
        # The template's processes end too, and not by themselves within the time of this test.
        await trio.lowlevel.wait_readable(script)
    os.close(script)
    assert await observed(plugin, name) is None
    await become(plugin, name, {})
    assert (await observed(plugin, name))["state"] == "stopped"


async def test_a_tool_that_hangs_is_ended(lxcpath, name, tmp_path):
    template = tmp_path / "lxc-slow"
    template.write_text("#!/bin/sh\nexec sleep 1000\n")
    template.chmod(0o755)
    config = tmp_path / "base.conf"
    config.write_text("lxc.net.0.type = empty\n")
    tools = LxcTools(lxcpath, create_timeout_s=0.5)
    with pytest.raises(ApplyTimeout, match="lxc-create was still at work"):
        await tools.create(name, config, str(template))


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


async def test_create_never_takes_over_what_is_something_else(plugin, lxcpath, name):
    [create] = plugin.plan(name, None, {}).actions
    (lxcpath / name).mkdir()
    (lxcpath / name / "config").write_text("lxc.rootfs.path = dir:/srv/theirs\n")
    with pytest.raises(ApplyFailed, match="there already"):
        await plugin.apply(create)
    (lxcpath / name / "config").unlink()


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


async def test_missing_tools_are_named(lxcpath, monkeypatch):
    monkeypatch.setattr("opfs.clients.lxc.TOOL_ENVIRONMENT", {"PATH": str(lxcpath)})
    reason = LxcPlugin(lxcpath).why_unavailable()
    assert "lxc-start" in reason
    assert "apt-get install lxc lxc-templates busybox-static" in reason


@pytest.mark.parametrize("bad", ["a:b", "a@b", "x" * 64, "a+b"])
def test_names_that_lxc_cannot_have_are_refused(plugin, bad):
    with pytest.raises(InvalidRequest, match="cannot name a container"):
        plugin.check(bad, {})
