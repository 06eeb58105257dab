"""The lxc plugin through `pct`: the contract of plugins, on a stand-in of the tool, as strict as the real one."""

from __future__ import annotations

import shutil
import subprocess

import pctstandin
import pytest
import trio
from lxcworld import become, observed

from opfs.clients.pct import Pct
from opfs.core.action import Safety
from opfs.errors import ApplyFailed, InvalidRequest
from opfs.plugins.contract import PluginContext
from opfs.plugins.lxc.plain import PlainLxc
from opfs.plugins.lxc.plugin import LxcPlugin
from opfs.plugins.lxc.proxmox import Proxmox
from opfs.testing.contracts.plugin import CHECKS, PluginCase

pytestmark = pytest.mark.needs("root")

TEMPLATE = "local:vztmpl/debian-12.tar.zst"
NAME = "100"


@pytest.fixture
def place(tmp_path):
    pctstandin.install(tmp_path)
    return tmp_path


def plugin_on(place, **options):
    pct = Pct(f"{place}/bin", place / "lxc", timeout_s=options.pop("timeout_s", 60))
    state = place / "state"
    backend = Proxmox(pct, state_dir=state, forbidden=[str(place / "state")], ostemplate=TEMPLATE, **options)
    return LxcPlugin(backend=backend)


@pytest.fixture
def plugin(place):
    return plugin_on(place)


def pct(place, *arguments):
    return subprocess.run([place / "bin/pct", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check, plugin, place):
    async def disturb():
        pct(place, "stop", NAME)

    protected = {"hostname": "db", "protection": True, "description": "two\nlines: 100%", "state": "stopped"}
    await check(
        PluginCase(
            plugin,
            NAME,
            [
                {
                    "hostname": "web",
                    "memory": 256,
                    "net0": {"bridge": "lo", "ip": "192.0.2.10/24", "tag": 20, "firewall": True},
                    "mp0": {"volume": "local:8", "mp": "/data", "backup": True},
                    "features": {"nesting": True, "mount": "nfs;cifs"},
                    "nameserver": "192.0.2.53",
                    "state": "running",
                },
                {"ostemplate": TEMPLATE, "swap": 0, "cores": 2, "cpulimit": 1.5, "onboot": True, "tags": "a;b"},
                protected,
            ],
            refused=[
                {"rootfs": "/srv/root"},
                {"ostemplate": "busybox"},
                {"description": "ends with one\n"},
                {"mp0": {"volume": "/srv/a,b", "mp": "/data"}},
                {"description": "a\0b"},
                {"ostemplate": "/srv/a\0b.tar"},
                {"mp0": {"volume": "local:a\0b", "mp": "/data"}},
                {"mp0": {"volume": "/proc", "mp": "/data"}},
                {"net0": {"bridge": "vmbr0,firewall=0"}},
                {"net0": {"bridge": "vmbr0", "ip": "192.0.2.1"}},
                {"hostname": "a: b"},
                {"tags": "a b"},
                {"pending": {"memory": 1}},
            ],
            failing={"hostname": "web", "ostemplate": TEMPLATE, "net0": {"bridge": "opfs-no-such"}, "state": "running"},
            disturb=disturb,
            protected=protected,
        )
    )
    assert list((place / "lxc").iterdir()) == []
    assert not (place / "state/pct").exists() or list((place / "state/pct").iterdir()) == []


def test_the_backend_is_chosen_by_what_is_installed(place, tmp_path, monkeypatch):
    context = PluginContext(tmp_path / "state")
    assert isinstance(LxcPlugin.from_context(context).backend, PlainLxc)
    monkeypatch.setattr("opfs.plugins.lxc.plugin.Pct", lambda: Pct(f"{place}/bin"))
    assert isinstance(LxcPlugin.from_context(context).backend, Proxmox)
    plain = PluginContext(tmp_path / "state", settings={"backend": "lxc"})
    assert isinstance(LxcPlugin.from_context(plain).backend, PlainLxc)
    shutil.rmtree(place / "bin")
    forced = PluginContext(tmp_path / "state", settings={"backend": "pct"})
    assert "pct is not installed" in LxcPlugin.from_context(forced).why_unavailable()


@pytest.mark.parametrize("bad", ["web", "99", "0100", "1000000000"])
def test_only_numbers_are_containers(plugin, bad):
    with pytest.raises(InvalidRequest, match="numbers them"):
        plugin.check(bad, {})


async def test_limits_and_notes_change_live_and_the_rest_by_a_restart(plugin, place):
    await become(plugin, NAME, {"memory": 256, "state": "running"})
    diff = await become(plugin, NAME, {"memory": 512, "cores": 2, "tags": "a", "state": "running"})
    assert {action.step for action in diff.actions} == {"set-limits", "set-options"}
    diff = await become(plugin, NAME, {"nameserver": "192.0.2.53", "features": {"fuse": True}, "state": "running"})
    assert [action.step for action in diff.actions][:3] == ["stop", "set-at-start", "set-limits"]
    assert diff.safety is Safety.DISRUPTIVE
    assert "features: fuse=1\n" in pct(place, "config", NAME, "--current", "1")


async def test_what_others_left_pending_is_drift_and_is_taken_back(plugin, place):
    document = {"hostname": "web", "features": {"nesting": True}, "state": "running"}
    await become(plugin, NAME, document)
    pct(place, "set", NAME, "--features", "fuse=1", "--delete", "nameserver")
    assert "[pve:pending]" in (place / "lxc/100.conf").read_text()
    assert (await observed(plugin, NAME))["pending"] == {"features": {"fuse": True}}
    assert plugin.compare(NAME, document, await observed(plugin, NAME))
    await become(plugin, NAME, document)
    assert "pending" not in await observed(plugin, NAME)


async def test_what_no_document_can_say_survives_a_change(plugin, place):
    net = "name=eth0,bridge=lo,hwaddr=BC:24:11:00:00:01,ip=192.0.2.1/24,ip6=2001:db8::1/64,gw6=2001:db8::2"
    pct(place, "create", NAME, TEMPLATE, "--net0", net, "--timezone", "host", "--description", "by hand")
    pct(place, "snapshot", NAME, "before")
    found = await observed(plugin, NAME)
    ip6 = {"ip6": "2001:db8::1/64", "gw6": "2001:db8::2"}
    assert found["net0"] == {"bridge": "lo", "hwaddr": "bc:24:11:00:00:01", "ip": "192.0.2.1/24", **ip6}
    assert "ostemplate" not in found
    assert not plugin.plan(NAME, found, {**found, "ostemplate": "local:vztmpl/alpine.tar.xz"}).actions
    net0 = {"bridge": "lo", "ip": "192.0.2.9/24", "ip6": "2001:DB8:0::9/64"}
    await become(plugin, NAME, {"net0": net0, "description": "ours"})
    text = (place / "lxc/100.conf").read_text()
    now, _, before = text.partition("[before]")
    assert "ip6=2001:db8::9/64" in now
    assert "gw6" not in now
    assert "hwaddr=BC:24:11:00:00:01" in now
    assert "timezone: host" in now
    assert "by%20hand" in before or "by hand" in before
    await become(plugin, NAME, None)


async def test_another_template_needs_confirmation_and_the_words_are_proxmox_s(plugin, place):
    await become(plugin, NAME, {"state": "running"})
    diff = plugin.plan(NAME, await observed(plugin, NAME), {"ostemplate": "local:vztmpl/alpine.tar.xz"})
    assert diff.safety is Safety.DESTRUCTIVE
    await become(plugin, NAME, {"ostemplate": "local:vztmpl/alpine.tar.xz"})
    with pytest.raises(
        ApplyFailed, match=r"pct create failed \(255\): volume 'local:vztmpl/none.tar.gz' does not exist"
    ):
        await become(plugin, "101", {"ostemplate": "local:vztmpl/none.tar.gz"})
    pct(place, "set", NAME, "--protection", "1")
    with pytest.raises(ApplyFailed, match="protection mode enabled"):
        await become(plugin, NAME, None)


async def test_containers_of_others_are_never_taken_over(plugin, place):
    [create] = plugin.plan(NAME, None, {}).actions
    pct(place, "create", NAME, "local:vztmpl/alpine.tar.xz")
    with pytest.raises(ApplyFailed, match="there already"):
        await plugin.apply(create)


async def test_changes_are_seen_as_they_happen(plugin, place):
    seen = trio.Event()
    sightings = []

    def report(sighting):
        sightings.append(sighting)
        seen.set()

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plugin.watch, report)
            await trio.testing.wait_all_tasks_blocked()
            pct(place, "create", NAME, TEMPLATE)
            await seen.wait()
            nursery.cancel_scope.cancel()
    assert {sighting.element for sighting in sightings} == {NAME}


# --- a tool that misbehaves ---------------------------------------------------------------------------------


def wrap(place, script):
    """Put a program before the tool; `exec "$0.real" "$@"` goes on to it."""
    (place / "bin/pct").rename(place / "bin/pct.real")
    (place / "bin/pct").write_text(f"#!/bin/sh\n{script}\n")
    (place / "bin/pct").chmod(0o755)


async def test_a_tool_that_lies_is_found_out(plugin, place):
    await become(plugin, NAME, {"memory": 256, "state": "running"})
    wrap(place, 'case $1 in set|start|stop|shutdown|create|destroy) exit 0;; esac; exec "$0.real" "$@"')
    for desired in ({"memory": 64, "state": "running"}, {"state": "stopped"}, None, {"hostname": "x"}):
        with pytest.raises((AssertionError, ApplyFailed)):
            await become(plugin, NAME, desired)
    with pytest.raises((AssertionError, ApplyFailed)):
        await become(plugin, "101", {})


async def test_a_tool_that_hangs_is_ended(place):
    plugin = plugin_on(place, timeout_s=0.5)
    wrap(place, "exec /bin/sleep 1000")
    (place / "lxc/100.conf").write_text("hostname: a\nmemory: 512\nswap: 512\n")
    with pytest.raises(ApplyFailed, match="pct list was still at work"):
        await plugin.observe(None)


async def test_a_tool_that_is_refused_or_gone_says_so(plugin, place):
    wrap(place, 'echo "trying to acquire lock..." >&2; echo "can\'t lock file" >&2; exit 255')
    with pytest.raises(ApplyFailed, match="can't lock file"):
        await plugin.backend.steps["create"](NAME, {"settings": {}})
    (place / "bin/pct").unlink()
    with pytest.raises(ApplyFailed, match="pct is not installed"):
        await plugin.backend.steps["create"](NAME, {"settings": {}})
