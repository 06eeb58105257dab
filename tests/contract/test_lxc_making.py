"""Containers come and go: roots, templates, half-made and foreign ones, and what cannot be."""

from __future__ import annotations

import os
import shutil

import pytest
import trio
from lxcworld import become, inside, observed

from opfs.clients.lxc import LxcTools
from opfs.core.action import Safety
from opfs.errors import ApplyFailed, ApplyTimeout, InvalidRequest
from opfs.plugins.lxc.plugin import LxcPlugin

pytestmark = pytest.mark.needs("root", "lxc")


@pytest.fixture
def name(lxc_name):
    return lxc_name


@pytest.fixture
def plugin(lxcpath):
    return LxcPlugin(lxcpath)


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


async def test_create_never_takes_over_what_is_something_else(plugin, lxcpath, name):
    [create] = plugin.plan(name, None, {}).actions
    (lxcpath / name).mkdir()
    (lxcpath / name / "config").write_text("lxc.rootfs.path = dir:/srv/theirs\n")
    with pytest.raises(ApplyFailed, match="there already"):
        await plugin.apply(create)
    (lxcpath / name / "config").unlink()


async def test_missing_tools_are_named(lxcpath, monkeypatch):
    monkeypatch.setattr("opfs.clients.lxc.TOOL_ENVIRONMENT", {"PATH": str(lxcpath)})
    reason = LxcPlugin(lxcpath).why_unavailable()
    assert "lxc-start" in reason
    assert "apt-get install lxc lxc-templates busybox-static" in reason


@pytest.mark.parametrize("bad", ["a:b", "a@b", "x" * 64, "a+b"])
def test_names_that_lxc_cannot_have_are_refused(plugin, bad):
    with pytest.raises(InvalidRequest, match="cannot name a container"):
        plugin.check(bad, {})
