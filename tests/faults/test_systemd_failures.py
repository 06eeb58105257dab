"""What becomes of a write when systemd, or the bus to it, refuses, hangs, dies half-way or lies."""

from __future__ import annotations

import json
import os
import secrets
import signal
from contextlib import asynccontextmanager

import pytest
import trio

from opfs.clients.dbus import open_bus
from opfs.commit.change import Change, Request
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed, ApplyTimeout
from opfs.plugins.systemd.plugin import SystemdPlugin
from opfs.testing.commitpath import CommitPath
from opfs.testing.contracts.failures import MATRIX, ROOT, check_failures
from opfs.testing.contracts.plugin import PluginCase

pytestmark = pytest.mark.needs("guest")

ONCE = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
INSTALLED = ONCE + "[Install]\nWantedBy=multi-user.target\n"
DOCUMENTS = (
    {"unit": INSTALLED, "enabled": True, "active": True},
    {"unit": INSTALLED + "# two\n", "enabled": False, "active": True, "properties": {"TasksMax": 9}},
)


@pytest.fixture
def name():
    return f"opfstest-{secrets.token_hex(4)}.service"


@pytest.fixture
def plugin(guest, tmp_path):
    return SystemdPlugin(tmp_path / "systemd", bus=guest.bus, root=guest.root, job_timeout_s=100)


@pytest.mark.parametrize(("transition", "failing"), MATRIX)
async def test_failures_are_told_undone_and_recorded(guest, plugin, name, transition, failing):
    assert await check_failures(PluginCase(plugin, name, DOCUMENTS), transition, failing, hang_limit_s=2)
    assert name not in guest.run("find", "/etc/systemd").stdout


@asynccontextmanager
async def cut_off(address, path, *, after):
    """A bus that loses its clients as soon as one of them has said `after`; yields its own address."""

    async def serve(client):
        server = await trio.open_unix_socket(address.removeprefix("unix:path="))
        async with server, client, trio.open_nursery() as nursery:
            nursery.start_soon(pass_on, client, server, nursery.cancel_scope)
            nursery.start_soon(pass_on, server, client, nursery.cancel_scope)

    async def pass_on(source, target, both):
        try:
            async for data in source:
                await target.send_all(data)
                if after in data:
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        both.cancel()

    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listener:
        await listener.bind(str(path))
        listener.listen(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listener)])
            yield f"unix:path={path}"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("method", [b"StartUnit", b"EnableUnitFiles", b"Reload", b"LoadUnit"])
async def test_a_connection_that_is_lost_half_way_is_told_and_the_rest_can_be_done_again(
    guest, plugin, tmp_path, name, method
):
    document = DOCUMENTS[0]
    async with cut_off(guest.bus, tmp_path / "bus", after=method) as address:
        cut = SystemdPlugin(tmp_path / "systemd", bus=address, root=guest.root, job_timeout_s=100)
        failed = None
        for action in cut.plan(name, None, document).actions:
            try:
                await cut.apply(action)
            except ApplyFailed as error:
                failed = str(error)
                break
        assert "message bus closed the connection" in failed or "connection to systemd ended" in failed
    for desired in (document, None):
        observed = (await plugin.observe([name])).get(name)
        for action in plugin.plan(name, observed, desired).actions:
            await plugin.apply(action)
        assert not plugin.compare(name, desired, (await plugin.observe([name])).get(name))


async def test_a_system_manager_that_hangs_is_told_and_nothing_is_reported_as_done(new_guest, tmp_path, name):
    guest = new_guest("stuck", target="basic.target")
    plugin = SystemdPlugin(tmp_path / "systemd", bus=guest.bus, root=guest.root)
    patience_s, plugin.apply_timeout_s = plugin.apply_timeout_s, 1.0
    path = CommitPath(tmp_path, [plugin])
    request = Request((Change(ElementId("systemd", name), json.dumps(DOCUMENTS[0]).encode()),), ROOT)
    async with path.started() as sequencer:
        os.kill(guest.leader, signal.SIGSTOP)
        with pytest.raises(ApplyTimeout):
            await sequencer.submit(request)
        os.kill(guest.leader, signal.SIGCONT)
        plugin.apply_timeout_s = patience_s
        assert sequencer.catalog.get(ElementId("systemd", name)) is None
        await sequencer.submit(request)
    assert guest.run("systemctl", "is-active", name).stdout == "active\n"
    assert not path.findings()


async def test_a_bus_that_is_silent_is_given_up(tmp_path):
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listener:
        await listener.bind(str(tmp_path / "bus"))
        listener.listen(1)
        with trio.fail_after(120), pytest.raises(ApplyTimeout, match="did not answer"):
            async with open_bus(f"unix:path={tmp_path}/bus", connect_timeout_s=0.1):
                raise AssertionError("connected to nobody")


@pytest.mark.parametrize(
    "greeting", [b"\0\0\0\r\n", b"REJECTED EXTERNAL\r\n", b"OK " + b"0" * 32 + b"\r\n" + b"\xff" * 64]
)
async def test_what_is_no_bus_is_told(tmp_path, greeting):
    async def greet(client):
        async with client:
            await client.receive_some()
            await client.send_all(greeting)
            await trio.sleep_forever()

    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listener:
        await listener.bind(str(tmp_path / "bus"))
        listener.listen(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, greet, [trio.SocketListener(listener)])
            with pytest.raises(ApplyFailed, match="message bus"):
                async with open_bus(f"unix:path={tmp_path}/bus", connect_timeout_s=0.5):
                    raise AssertionError("connected to nobody")
            nursery.cancel_scope.cancel()
