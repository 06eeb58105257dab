"""What becomes of a write when PackageKit refuses, hangs, dies half-way or lies."""

from __future__ import annotations

import json
from functools import partial

import pytest
import trio
from aptrepo import Deb, installed, publish

from opfs.commit.change import Change, Request
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed, ApplyTimeout
from opfs.plugins.packagekit.plugin import PackagekitPlugin
from opfs.testing.commitpath import CommitPath
from opfs.testing.contracts.failures import MATRIX, ROOT, check_failures
from opfs.testing.contracts.plugin import PluginCase

pytestmark = pytest.mark.needs("guest", "packagekit")

WAITS = "touch /run/opfs-waits; while [ -e /run/opfs-waits ]; do sleep 0.05; done"


@pytest.fixture(scope="module")
def host(guest):
    publish(guest, Deb("opfs-demo", "1.0"), Deb("opfs-demo", "2.0"), Deb("opfs-slow", postinst=WAITS))
    return guest


@pytest.fixture
def plugin(host, tmp_path):
    return PackagekitPlugin(tmp_path / "packagekit", bus=host.bus, root=host.root, timeout_s=300)


@pytest.mark.parametrize(("transition", "failing"), MATRIX)
async def test_failures_are_told_undone_and_recorded(host, plugin, transition, failing):
    case = PluginCase(plugin, "opfs-demo", ({"version": "1.0"}, {"ensure": "latest"}))
    assert await check_failures(case, transition, failing, hang_limit_s=3)
    assert installed(host, "opfs-demo") is None


async def wait_for(host, path):
    await trio.to_thread.run_sync(partial(host.wait_until, "test", "-e", path))


async def test_a_packagekit_that_dies_half_way_is_told_and_what_it_left_is_seen_and_removed(host, plugin, tmp_path):
    id = ElementId("packagekit", "opfs-slow")
    path = CommitPath(tmp_path, [plugin])
    failure = None

    async def install(sequencer):
        nonlocal failure
        try:
            await sequencer.submit(Request((Change(id, b"{}"),), ROOT))
        except ApplyFailed as error:
            failure = str(error)

    async with path.started() as sequencer:
        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(install, sequencer)
                await wait_for(host, "/run/opfs-waits")
                host.run("pkill", "--signal", "KILL", "packagekitd")
                host.run("rm", "/run/opfs-waits")
        assert "PackageKit left the bus before it was done" in failure
        assert "NOT undone" in failure, "dpkg wants to be told to go on, and opfs does not do that by itself"
        assert sequencer.catalog.get(id) is None
        assert (await plugin.observe(["opfs-slow"]))["opfs-slow"]["broken"] in ("half-configured", "unpacked")
        host.run("rm", "-f", "/run/opfs-waits")
        host.write("/var/lib/dpkg/info/opfs-slow.postinst", "#!/bin/sh\nexit 0\n", mode="0755")
        host.run("dpkg", "--configure", "-a")
        await sequencer.submit(Request((Change(id, b"{}"),), ROOT))
        await sequencer.submit(Request((Change(id, None),), ROOT))
    assert installed(host, "opfs-slow") is None
    assert not path.findings()


async def test_a_packagekit_that_hangs_is_told_in_time(host, tmp_path):
    hasty = PackagekitPlugin(tmp_path / "packagekit", bus=host.bus, root=host.root, timeout_s=0.5)
    host.run(
        "busctl",
        "call",
        "org.freedesktop.PackageKit",
        "/org/freedesktop/PackageKit",
        "org.freedesktop.DBus.Peer",
        "Ping",
    )
    path = CommitPath(tmp_path, [hasty])
    host.run("pkill", "--signal", "STOP", "packagekitd")
    try:
        async with path.started() as sequencer:
            with pytest.raises(ApplyTimeout, match="PackageKit"):
                await sequencer.submit(
                    Request((Change(ElementId("packagekit", "opfs-demo"), json.dumps({}).encode()),), ROOT)
                )
    finally:
        host.run("pkill", "--signal", "KILL", "packagekitd")
    assert installed(host, "opfs-demo") is None
