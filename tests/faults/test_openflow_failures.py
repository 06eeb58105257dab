"""What a failing Open vSwitch does to flows: every failure is told and undone, and a failed bundle leaves what was.

The published matrix puts the fault between opfs and the plugin; the others are in the backend: ovs-vswitchd hangs or
dies, or ovs-ofctl itself, found first in PATH, lies about one bundle, fails, dies half-way or hangs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import asynccontextmanager

import pytest

from opfs.clients.switch import SwitchPlace
from opfs.commit.change import Change, Request
from opfs.core.actor import Actor
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed, ApplyTimeout
from opfs.plugins.openflow.plugin import OpenFlowPlugin
from opfs.testing.commitpath import CommitPath
from opfs.testing.contracts.failures import MATRIX, check_failures
from opfs.testing.contracts.plugin import PluginCase

pytestmark = pytest.mark.needs("root", "ovs")

BEFORE = {"flows": ["priority=10,arp,actions=NORMAL"], "groups": ["group_id=1,type=all,bucket=output:1"]}
AFTER = {"flows": ["priority=10,arp,actions=drop", "priority=5,ip,actions=NORMAL", "priority=0,actions=drop"]}
FLOWS = ElementId("openflow", "br0")
ROOT = Actor(uid=0, user="root", pid=1, command="test")


@pytest.fixture
def bridge(switch):
    switch.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
    return "br0"


@pytest.mark.parametrize(("transition", "failing"), MATRIX)
async def test_the_matrix(transition, failing, switch, bridge):
    case = PluginCase(OpenFlowPlugin(switch.place), bridge, (BEFORE, AFTER))
    assert await check_failures(case, transition, failing, hang_limit_s=2.0)
    assert on_the_switch(switch) == [" priority=0 actions=NORMAL"]


PATIENCE_S = 5.0
"""Where something hangs; what does not hang has to be done in that time, also on a busy machine."""


@asynccontextmanager
async def committing(directory, run_dir, patience_s=60.0):
    """A commit path on a plugin, and a function that writes a document."""
    path = CommitPath(directory, [OpenFlowPlugin(SwitchPlace.of({"run_dir": run_dir, "timeout": patience_s}))])
    async with path.started() as sequencer:

        async def write(document):
            content = None if document is None else json.dumps(document).encode()
            await sequencer.submit(Request((Change(FLOWS, content),), ROOT))

        yield path, write


def on_the_switch(switch):
    """The flows and groups that the real ovs-ofctl shows."""
    target = switch.management("br0")
    listed = switch.ofctl("--no-stats", "dump-flows", target) + switch.ofctl("dump-groups", target).partition("\n")[2]
    return sorted(listed.splitlines())


REAL = shutil.which("ovs-ofctl")
TOOLS = {
    "lies": 'case "$*" in *bundle*) cat >/dev/null; exit 0 ;; esac',
    "refuses": 'case "$*" in *bundle*) echo "ovs-ofctl: not to my taste" >&2; exit 1 ;; esac',
    "dies-half-way": 'case "$*" in *bundle*) head -n 1 | "$REAL" "$@"; kill -9 $$ ;; esac',
    "dies-afterwards": 'case "$*" in *bundle*) "$REAL" "$@"; kill -9 $$ ;; esac',
    "hangs": 'case "$*" in *bundle*) exec sleep 1000 ;; esac',
}
"""What a tool does at one bundle; half-way is a part of its lines, which no real one would do alone."""


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A function that puts an ovs-ofctl with a fault into PATH, which it acts out once."""
    place = tmp_path / "bin"
    place.mkdir()

    def install(fault):
        once = tmp_path / "once"
        once.touch()
        act = TOOLS[fault].replace("*bundle*)", f"*bundle*) rm {once};")
        script = f"#!/bin/sh\nREAL={REAL}\nif [ -e {once} ]; then\n{act}\nfi\n"
        (place / "ovs-ofctl").write_text(f'{script}exec "$REAL" "$@"\n')
        (place / "ovs-ofctl").chmod(0o755)

    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return install


@pytest.mark.parametrize("fault", TOOLS)
@pytest.mark.parametrize("transition", ["create", "modify", "delete"])
async def test_a_tool_that_fails_at_a_bundle(fault, transition, switch, bridge, tool, tmp_path):
    first, then = {"create": (None, AFTER), "modify": (BEFORE, AFTER), "delete": (AFTER, None)}[transition]
    async with committing(tmp_path, switch.run_dir, PATIENCE_S if fault == "hangs" else 60.0) as (path, write):
        if first is not None:
            await write(first)
        before = on_the_switch(switch)
        tool(fault)
        with pytest.raises(ApplyFailed) as caught:
            await write(then)
        assert "everything was undone" in str(caught.value)
        assert isinstance(caught.value, ApplyTimeout) is (fault == "hangs")
        if fault == "refuses":
            assert "not to my taste" in str(caught.value)
        assert on_the_switch(switch) == before
        assert path.events()[-1].op == "apply-failed"
        await write(then)
        assert path.events()[-1].op == transition.replace("modify", "update")
    assert path.findings() == []


@pytest.mark.parametrize("sign", ["SIGSTOP", "SIGKILL"])
async def test_a_switch_that_hangs_or_dies_refuses_and_nothing_is_recorded(sign, switch, bridge, tmp_path):
    async with committing(tmp_path, switch.run_dir, PATIENCE_S if sign == "SIGSTOP" else 60.0) as (path, write):
        await write(BEFORE)
        count = len(path.events())
        switch.vswitchd.send_signal(getattr(signal, sign))
        if sign == "SIGKILL":
            # While it is dying its socket is still there: connections are then reset, not refused.
            switch.vswitchd.wait()
        with pytest.raises(ApplyFailed) as caught:
            await write(AFTER)
        if sign == "SIGSTOP":
            assert f"ovs-ofctl had no answer of ovs-vswitchd after {PATIENCE_S:g} s" in str(caught.value)
        else:
            assert "br0.mgmt" in str(caught.value), "it says who does not answer; how, the kernel decides"
        assert len(path.events()) == count, "it failed before anything was tried"
        if sign == "SIGSTOP":
            switch.vswitchd.send_signal(signal.SIGCONT)
        else:
            switch.restart_vswitchd()
        await write(AFTER)
        assert any("priority=5,ip actions=NORMAL" in line for line in on_the_switch(switch))


async def test_a_crash_between_bundle_and_note_is_finished_by_the_next_write(switch, bridge, tmp_path):
    """The note before the bundle names the groups of both sides, so none is taken for another's."""
    plugin = OpenFlowPlugin(switch.place)
    note, calls = plugin._note, []

    async def note_once(name, text):
        calls.append(text)
        if len(calls) > 1:
            raise KeyboardInterrupt
        await note(name, text)

    plugin._note = note_once
    [action] = plugin.plan("br0", None, BEFORE).actions
    with pytest.raises(BaseException, match=r"^$"):
        await plugin.apply(action)
    plugin = OpenFlowPlugin(switch.place)
    found = (await plugin.observe(["br0"]))["br0"]
    assert not plugin.compare("br0", BEFORE, found)
    for action in plugin.plan("br0", found, AFTER).actions:
        await plugin.apply(action)
    assert not any("group_id" in line for line in on_the_switch(switch))


async def test_a_lie_about_an_exclusive_delete_is_noticed(switch, bridge, tool, tmp_path):
    """Nothing tells such flows from others' once the note is gone, so the note goes last."""
    async with committing(tmp_path, switch.run_dir) as (_, write):
        await write({**AFTER, "exclusive": True})
        before = on_the_switch(switch)
        tool("lies")
        with pytest.raises(ApplyFailed, match="the bundle is said to be done, and br0 still lacks 3 lines"):
            await write(None)
        assert on_the_switch(switch) == before
        await write(None)
        assert on_the_switch(switch) == [" priority=0 actions=NORMAL"]
