"""The lxc plugin when its backend fails: the failure matrix on real containers and on pct, and tools that misbehave."""

from __future__ import annotations

import json
import re
import shutil

import pctstandin
import pytest
from lxcworld import inside, lxc, lxc_directory, new_name

from opfs.clients.lxc import TOOL_ENVIRONMENT
from opfs.clients.pct import Pct
from opfs.commit.change import Change, Request
from opfs.core.actor import Actor
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed
from opfs.plugins.lxc.plugin import LxcPlugin
from opfs.plugins.lxc.proxmox import Proxmox
from opfs.testing.commitpath import CommitPath
from opfs.testing.contracts.failures import MATRIX, Failing, Transition, check_failures
from opfs.testing.contracts.plugin import PluginCase

pytestmark = pytest.mark.needs("root", "lxc")

ROOT = Actor(uid=0, user="root", pid=1, command="test")
SMALL, OTHER = {"memory": 64, "state": "running"}, {"memory": 32, "tags": "a", "state": "running"}


@pytest.fixture
def name():
    return new_name()


@pytest.fixture
def lxcpath(name):
    with lxc_directory(name) as path:
        yield path


QUICK = [row for row in MATRIX if not row[1].is_endless] + [(Transition.MODIFY, Failing.HANGS_AFTERWARDS)]


@pytest.mark.parametrize(("transition", "failing"), QUICK)
async def test_the_matrix_on_containers(lxcpath, name, transition, failing):
    case = PluginCase(LxcPlugin(lxcpath), name, [SMALL, OTHER])
    assert await check_failures(case, transition, failing, hang_limit_s=2.0)
    assert list(lxcpath.iterdir()) == []


async def test_a_deleted_container_on_btrfs_comes_back_whatever_dies(btrfs_place, name):
    btrfs_place.chmod(0o755)
    with lxc_directory(name, btrfs_place) as lxcpath:
        case = PluginCase(LxcPlugin(lxcpath), name, [SMALL, OTHER])
        assert await check_failures(case, Transition.DELETE, Failing.DIES)
        assert sorted(map(str, lxcpath.rglob("*"))) == []


@pytest.mark.parametrize(
    ("transition", "failing"),
    [
        (Transition.CREATE, Failing.DIES),
        (Transition.CREATE, Failing.LIES),
        (Transition.MODIFY, Failing.REFUSES),
        (Transition.MODIFY, Failing.LIES),
        (Transition.DELETE, Failing.DIES),
        (Transition.DELETE, Failing.HANGS),
    ],
)
async def test_the_matrix_on_proxmox(tmp_path, transition, failing):
    tool = pctstandin.install(tmp_path)
    backend = Proxmox(
        Pct(str(tool.parent), tmp_path / "lxc"), state_dir=tmp_path / "state", forbidden=(), ostemplate="local:vztmpl/a"
    )
    case = PluginCase(LxcPlugin(backend=backend), "100", [SMALL, OTHER])
    assert await check_failures(case, transition, failing, hang_limit_s=3.0)
    assert list((tmp_path / "lxc").iterdir()) == []


# --- tools that misbehave -----------------------------------------------------------------------------------


class World:
    """A container on the commit path, and a place before the tools where others can be put."""

    def __init__(self, sequencer, path, plugin, name, tools):
        self.sequencer, self.path, self.plugin, self.name, self.tools = sequencer, path, plugin, name, tools
        self.id = ElementId("lxc", name)

    async def write(self, document):
        for op in ("update", "delete"):
            self.sequencer.confirmations.grant(op, self.id, 0)
        content = None if document is None else json.dumps(document).encode()
        await self.sequencer.submit(Request((Change(self.id, content),), ROOT))

    def replace(self, tool, script):
        """`$REAL` is the real tool."""
        (self.tools / tool).write_text(f"#!/bin/sh\nREAL={shutil.which(tool)}\n{script}\n")
        (self.tools / tool).chmod(0o755)

    def restore(self):
        for tool in self.tools.iterdir():
            tool.unlink()

    async def observed(self):
        return (await self.plugin.observe([self.name])).get(self.name)


LIE = "exit 0"
REFUSE = "echo 'lxc: x: ../src/lxc/x.c: y: 1 not today' >&2; exit 1"
HANG = "exec sleep 1000"
HALF_START = '"$REAL" "$@"; lxc-stop -P "$2" -n "$4" --kill; exit 1'
HALF_CREATE = 'mkdir -p "$2/$4/rootfs/etc"; touch "$2/$4/partial"; kill -KILL $$'


@pytest.mark.parametrize(
    ("tool", "script", "before", "desired", "reason"),
    [
        ("lxc-create", LIE, None, SMALL, "lxc-create reported success, and there is no container"),
        ("lxc-create", REFUSE, None, SMALL, "lxc-create failed .*not today"),
        ("lxc-create", HALF_CREATE, None, SMALL, "lxc-create failed"),
        ("lxc-start", LIE, None, SMALL, "not as it should be"),
        ("lxc-start", REFUSE, None, SMALL, "lxc-start failed .*not today"),
        ("lxc-start", HALF_START, None, SMALL, "lxc-start failed"),
        ("lxc-start", HANG, None, SMALL, "lxc-start was still at work"),
        ("lxc-stop", LIE, SMALL, {**SMALL, "hostname": "other"}, "lxc-stop reported success, and"),
        ("lxc-stop", REFUSE, SMALL, {**SMALL, "state": "stopped"}, "lxc-stop failed .*not today"),
        ("lxc-stop", LIE, SMALL, None, "lxc-stop reported success, and"),
        ("lxc-destroy", REFUSE, {}, None, "lxc-destroy failed .*not today"),
    ],
)
async def test_tools_that_misbehave(lxcpath, name, tmp_path, monkeypatch, tool, script, before, desired, reason):
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setitem(TOOL_ENVIRONMENT, "PATH", f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin")
    plugin = LxcPlugin(lxcpath)
    (tmp_path / "path").mkdir()
    path = CommitPath(tmp_path / "path", [plugin])
    broken = None
    async with path.started() as sequencer:
        world = World(sequencer, path, plugin, name, tools)
        if before is not None:
            await world.write(before)
        earlier = await world.observed()
        world.replace(tool, script)
        with monkeypatch.context() as hasty:
            if script == HANG:
                hasty.setattr(plugin.backend.tools, "_timeout_s", 5.0)
            try:
                await world.write(desired)
            except ApplyFailed as error:
                broken = str(error)
        world.restore()
        now = await world.observed()
        assert (now and {**now, "pending": None}) == (earlier and {**earlier, "pending": None})
        assert path.events()[-1].op == "apply-failed"
        # The next write works.
        await world.write(desired)
        if desired is not None and desired.get("state") == "running":
            assert inside(lxcpath, name, "hostname") == desired.get("hostname", name)
            await world.write(None)
    assert broken is not None
    assert re.search(reason, broken), broken
    assert not path.findings()


async def test_an_observation_that_fails_is_a_refusal(lxcpath, name, tmp_path, monkeypatch):
    plugin = LxcPlugin(lxcpath)
    await plugin.apply(plugin.plan(name, None, {}).actions[0])
    (tmp_path / "lxc-ls").write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    (tmp_path / "lxc-ls").chmod(0o755)
    monkeypatch.setitem(TOOL_ENVIRONMENT, "PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ApplyFailed, match=r"lxc-ls failed \(1\): broken"):
        await plugin.observe(None)


async def test_a_tool_of_nonsense_is_a_failure_with_words(lxcpath, name, tmp_path, monkeypatch):
    plugin = LxcPlugin(lxcpath)
    await plugin.apply(plugin.plan(name, None, {}).actions[0])
    (tmp_path / "lxc-ls").write_text("#!/bin/sh\necho NAME STATE PID\necho only-two RUNNING\n")
    (tmp_path / "lxc-ls").chmod(0o755)
    monkeypatch.setitem(TOOL_ENVIRONMENT, "PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ApplyFailed, match="lxc-ls wrote what cannot be read"):
        await plugin.observe(None)
    assert lxc(lxcpath, "lxc-info", name, "-sH").strip() == "STOPPED"
