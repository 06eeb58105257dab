"""What a failing Open vSwitch does to bridges: every failure is told and undone, whoever of the two programs fails.

The published matrix puts the fault between opfs and the plugin; the others are in the backend itself: ovs-vswitchd
or ovsdb-server is stopped (it hangs) or killed, refuses, or a server in between says yes and does nothing.
"""

from __future__ import annotations

import json
import signal
from contextlib import asynccontextmanager

import pytest
from ovsdbproxy import FAULTS, proxy

from opfs.clients.switch import SwitchPlace
from opfs.commit.change import Change, Request
from opfs.core.actor import Actor
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed, ApplyTimeout
from opfs.plugins.ovs.plugin import OvsPlugin
from opfs.testing.commitpath import CommitPath
from opfs.testing.contracts.failures import MATRIX, check_failures
from opfs.testing.contracts.plugin import PluginCase

pytestmark = pytest.mark.needs("root", "ovs")

NETDEV = {"datapath_type": "netdev"}
BEFORE = {**NETDEV, "ports": {"lan0": {"type": "internal", "tag": 10}}}
AFTER = {**NETDEV, "mcast_snooping": True, "ports": {"lan0": {"type": "internal"}, "lan1": {"type": "internal"}}}
BRIDGE = ElementId("ovs", "br0")
ROOT = Actor(uid=0, user="root", pid=1, command="test")


@pytest.mark.parametrize(("transition", "failing"), MATRIX)
async def test_the_matrix(transition, failing, switch):
    case = PluginCase(OvsPlugin(switch.place), "br0", (BEFORE, AFTER))
    assert await check_failures(case, transition, failing, hang_limit_s=1.0)
    assert switch.bridges() == []


PATIENCE_S = 5.0
"""Where something hangs; what does not hang has to be done in that time, also on a busy machine."""


@asynccontextmanager
async def committing(directory, database, patience_s=60.0):
    """A commit path on a plugin, and a function that writes a document."""
    path = CommitPath(directory, [OvsPlugin(SwitchPlace(database=database, timeout_s=patience_s))])
    async with path.started() as sequencer:

        async def write(document):
            content = None if document is None else json.dumps(document).encode()
            await sequencer.submit(Request((Change(BRIDGE, content),), ROOT))

        yield path, write


def database(switch):
    """What is in the database of bridges and ports."""
    ports = switch.vsctl("--columns=name,tag,trunks,external_ids", "list", "port", wait=False)
    bridges = switch.vsctl("--columns=name,mcast_snooping_enable,external_ids", "list", "bridge", wait=False)
    return sorted(ports.split("\n\n")) + sorted(bridges.split("\n\n"))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("transition", ["create", "modify", "delete"])
async def test_a_database_that_fails_at_a_commit(fault, transition, switch, tmp_path):
    first, then = {"create": (None, BEFORE), "modify": (BEFORE, AFTER), "delete": (AFTER, None)}[transition]
    async with (
        proxy(switch.database, tmp_path / "db") as between,
        committing(tmp_path, tmp_path / "db", PATIENCE_S if fault == "hangs" else 60.0) as (path, write),
    ):
        if first is not None:
            await write(first)
        before = database(switch)
        between.fault = fault
        with pytest.raises(ApplyFailed) as caught:
            await write(then)
        assert "everything was undone" in str(caught.value)
        assert isinstance(caught.value, ApplyTimeout) is (fault == "hangs")
        if fault == "refuses":
            assert "not to somebody's taste" in str(caught.value)
        assert database(switch) == before
        assert path.events()[-1].op == "apply-failed"
        await write(then)
        assert path.events()[-1].op == transition.replace("modify", "update")
    assert path.findings() == []


@pytest.mark.parametrize("sign", ["SIGSTOP", "SIGKILL"])
async def test_a_switch_that_hangs_or_dies_is_told_and_the_database_is_as_before(sign, switch, tmp_path):
    async with committing(tmp_path, switch.database, PATIENCE_S) as (path, write):
        await write(BEFORE)
        before = database(switch)
        switch.vswitchd.send_signal(getattr(signal, sign))
        with pytest.raises(ApplyTimeout) as caught:
            await write(AFTER)
        assert f"ovs-vswitchd has not carried it out within {PATIENCE_S:g} s" in str(caught.value)
        # What no switch has confirmed is not called undone.
        assert "NOT undone: ovs/br0: the database has the change, and ovs-vswitchd has not" in str(caught.value)
        assert database(switch) == before
        assert path.events()[-1].op == "apply-failed"
        if sign == "SIGSTOP":
            switch.vswitchd.send_signal(signal.SIGCONT)
        else:
            switch.restart_vswitchd()
        await write(AFTER)
        assert switch.vsctl("list-ports", "br0").split() == ["lan0", "lan1"]


async def test_a_database_that_hangs_refuses_at_once_and_nothing_is_recorded(switch, tmp_path):
    async with committing(tmp_path, switch.database, PATIENCE_S) as (path, write):
        await write(BEFORE)
        count = len(path.events())
        switch.server.send_signal(signal.SIGSTOP)
        with pytest.raises(ApplyTimeout, match=f"has not answered 'transact' within {PATIENCE_S:g} s"):
            await write(AFTER)
        switch.server.send_signal(signal.SIGCONT)
        assert len(path.events()) == count, "it failed before anything was tried"
        await write(AFTER)


async def test_a_database_that_is_killed_at_a_commit_and_stays_away(switch, tmp_path):
    async with (
        proxy(switch.database, tmp_path / "db") as between,
        committing(tmp_path, switch.database) as (path, write),
    ):
        await write(BEFORE)
        before = database(switch)
        path.plugins["ovs"].switch.client.socket = tmp_path / "db"
        between.fault, between.at_commit = "dies", lambda: (switch.server.kill(), switch.server.wait())
        with pytest.raises(ApplyFailed) as caught:
            await write(AFTER)
        assert "NOT undone" in str(caught.value)
        path.plugins["ovs"].switch.client.socket = switch.database
        switch.restart_server()
        assert database(switch) == before
        await write(AFTER)
        assert switch.vsctl("list-ports", "br0").split() == ["lan0", "lan1"]
