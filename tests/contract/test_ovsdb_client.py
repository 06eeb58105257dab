"""The OVSDB client against a real server and against servers that break the protocol in every way they can."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
import trio.testing

from opfs.clients import ovsdb
from opfs.clients.openvswitch import OpenVSwitch
from opfs.clients.ovsdb import OvsdbClient, OvsdbRefused, RowChange
from opfs.clients.ovsdb_values import OvsdbProtocolError, Uuid
from opfs.errors import ApplyFailed, ApplyTimeout

ROW = "3b241101-e2bb-4255-8caf-4136c566a962"
SELECT = {"op": "select", "table": "Bridge", "where": [], "columns": ["name"]}


@asynccontextmanager
async def server(path, answer, patience_s=60.0):
    """A server at a socket that hands every message it gets, parsed, to `answer` with a function to send bytes."""

    async def serve(stream):
        async with stream:
            buffer = ""
            async for chunk in stream:
                buffer += chunk.decode()
                while buffer:
                    try:
                        message, end = json.JSONDecoder().raw_decode(buffer)
                    except ValueError:
                        break
                    buffer = buffer[end:]
                    if await answer(message, stream) is False:
                        return

    socket = trio.socket.socket(trio.socket.AF_UNIX)
    await socket.bind(str(path))
    socket.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(socket)])
        yield OvsdbClient(path, timeout_s=patience_s)
        nursery.cancel_scope.cancel()


def always(raw):
    """An answer of these bytes, with the request's id in place of ID."""

    async def answer(message, stream):
        await stream.send_all(raw.replace(b"ID", str(message["id"]).encode()))

    return answer


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"hello", "where a message begins"),
        (b"[]", "where a message begins"),
        (b'{"id": ID, "result": NaN, "error": null}', "not JSON"),
        (b'{"id": ID, "id": ID, "result": [], "error": null}', "not JSON"),
        (b'{"id": ID, "result": [}, "error": null}', "not JSON|where a message begins"),
        (b'{"id": 77, "result": [], "error": null}', "a request that was not made"),
        (b'{"id": true, "result": [], "error": null}', "a request that was not made"),
        (b'{"result": [], "error": null}', "a request that was not made"),
        (b'{"id": ID, "error": null}', "neither a result nor an error"),
        (b'{"id": ID, "result": {}, "error": null}', "something else than results"),
        (b'{"id": ID, "result": [7], "error": null}', "something else than results"),
        (b'{"id": ID, "result": [], "error": null}', "0 results for 1 operations"),
        (b'{"id": ID, "result": [null], "error": null}', "1 results for 1 operations"),
        (b'{"id": ID, "result": [{}, {}], "error": null}', "2 results for 1 operations"),
        (b'{"id": ID, "result": [{}], "error": null}', "without rows"),
        (b'{"id": ID, "result": [{"rows": {}}], "error": null}', "without rows"),
        (b'{"id": ID, "result": [{"rows": [7]}], "error": null}', "without rows"),
        (b'{"method": "update", "params": {}, "id": null}', "without parameters"),
        (b'{"method": "update", "params": [null, {"T": []}], "id": null}', "another shape"),
        (b'{"method": "update2", "params": [null, {"T": {"x": {"delete": null}}}], "id": null}', "no value of RFC"),
        (b'{"a":' * 40, "nested deeper"),
    ],
)
async def test_answers_that_break_the_protocol_are_refused(tmp_path, raw, words):
    async with server(tmp_path / "db", always(raw)) as client, client.session() as session:
        with pytest.raises(OvsdbProtocolError, match=words):
            await session.rows([SELECT])


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"id": ID, "result": null, "error": "unknown database"}', "refused 'transact': unknown database"),
        (b'{"id": ID, "result": null, "error": {"error": "e", "details": "d"}}', '"details": "d"'),
        (b'{"id": ID, "result": [{"error": "timed out"}], "error": null}', "refused select Bridge: timed out"),
        (
            b'{"id": ID, "result": [{}, {"error": "constraint violation", "details": "two\\nlines"}], "error": null}',
            "refused the transaction: constraint violation: two lines",
        ),
    ],
)
async def test_refusals_have_the_server_s_words(tmp_path, raw, words):
    async with server(tmp_path / "db", always(raw)) as client:
        with pytest.raises(OvsdbRefused) as caught:
            await client.transact([SELECT])
    assert words in str(caught.value)


async def test_silence_is_a_timeout_and_an_end_is_a_failure(tmp_path):
    async def silence(message, stream):
        return message["method"] != "echo"

    async with server(tmp_path / "db", silence, patience_s=0.5) as client:
        with pytest.raises(ApplyTimeout, match=r"'transact' within 0.5 s; whether it was done is not known"):
            await client.transact([SELECT])
        client.timeout_s = 60.0
        async with client.session() as session:
            with pytest.raises(ApplyFailed, match="closed the connection"):
                await session.call("echo")


async def test_a_message_without_an_end_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(ovsdb, "MAX_MESSAGE_BYTES", 1 << 20)

    async def flood(message, stream):
        for piece in (b'{"id": 1, "result": ["', *([b"x" * (1 << 17)] * 20)):
            await stream.send_all(piece)

    async with server(tmp_path / "db", flood) as client:
        with pytest.raises(OvsdbProtocolError, match="a message of over 1 MiB"):
            await client.transact([SELECT])


async def test_changes_without_an_end_do_not_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(ovsdb, "_MAX_WAITING_UPDATES", 100)
    update = b'{"method": "update", "params": [null, {}], "id": null}'
    async with server(tmp_path / "db", always(update * 200)) as client:
        with pytest.raises(OvsdbProtocolError, match="sends changes and no answer"):
            await client.transact([SELECT])


async def test_the_server_s_own_echo_is_answered_while_an_answer_is_awaited(tmp_path):
    echoed = []

    async def answer(message, stream):
        if "method" not in message:
            echoed.append(message)
            await stream.send_all(b'{"id": 1, "result": [{"rows": []}], "error": null}')
        else:
            await stream.send_all(b'{"method": "echo", "params": ["are you there"], "id": "echo"}')

    async with server(tmp_path / "db", answer) as client, client.session() as session:
        assert await session.rows([SELECT]) == [[]]
    assert echoed == [{"result": ["are you there"], "error": None, "id": "echo"}]


@pytest.mark.parametrize("newest", ["monitor_cond_since", "monitor_cond", "monitor"])
async def test_older_servers_are_monitored_in_their_own_way(tmp_path, newest):
    """The three kinds of answers and of updates come out alike."""
    ways = ["monitor_cond_since", "monitor_cond", "monitor"]
    known = ways[ways.index(newest) :]
    is_old = newest == "monitor"
    first = {"Bridge": {ROW: {"new" if is_old else "initial": {"name": "br0"}}}}
    then = {"Bridge": {ROW: {"old": {"name": "br0"}} if is_old else {"delete": None}}}

    async def answer(message, stream):
        method = message["method"]
        if method not in known:
            await stream.send_all(json.dumps({"id": message["id"], "result": None, "error": "unknown method"}).encode())
            return
        result = [False, ROW, first] if method == "monitor_cond_since" else first
        await stream.send_all(json.dumps({"id": message["id"], "result": result, "error": None}).encode())
        notification = {"monitor_cond_since": "update3", "monitor_cond": "update2", "monitor": "update"}[method]
        params = ["opfs", ROW, then] if notification == "update3" else ["opfs", then]
        await stream.send_all(json.dumps({"method": notification, "params": params, "id": None}).encode())

    async with server(tmp_path / "db", answer) as client, client.session() as session:
        assert await session.monitor({"Bridge": ["name"]}) == [RowChange("Bridge", Uuid(ROW), {"name": "br0"})]
        assert await session.next_update() == [RowChange("Bridge", Uuid(ROW), None)]


async def test_a_silent_monitor_is_probed(tmp_path, monkeypatch):
    monkeypatch.setattr(ovsdb, "PROBE_AFTER_S", 0.05)
    seen = []

    async def answer(message, stream):
        seen.append(message["method"])
        if message["method"] != "echo" or len(seen) < 4:
            result = [False, ROW, {}] if message["method"] == "monitor_cond_since" else []
            await stream.send_all(json.dumps({"id": message["id"], "result": result, "error": None}).encode())

    async with server(tmp_path / "db", answer, patience_s=5.0) as client, client.session() as session:
        await session.monitor({"Bridge": ["name"]})
        with pytest.raises(ApplyTimeout, match="has not answered 'echo'"):
            await session.next_update()
    assert seen == ["monitor_cond_since", "echo", "echo", "echo"]


async def test_a_server_that_is_just_being_started_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(ovsdb, "CONNECT_PATIENCE_S", 60.0)
    client = OvsdbClient(tmp_path / "db", timeout_s=60.0)
    found = []

    async def ask():
        async with client.session() as session:
            found.append(await session.call("list_dbs"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert not found
        async with server(tmp_path / "db", always(b'{"id": ID, "result": ["x"], "error": null}')):
            with trio.fail_after(60):
                while not found:  # noqa: ASYNC110
                    await trio.sleep(0.01)
    assert found == [["x"]]


@pytest.mark.needs("root", "ovs")
async def test_a_real_server(switch):
    client = OvsdbClient(switch.database)
    switch.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
    async with client.session() as session:
        assert await session.call("list_dbs") == ["Open_vSwitch", "_Server"]
        [rows] = await session.rows([SELECT])
        assert rows == [{"name": "br0"}]
        with pytest.raises(OvsdbRefused, match="No table named Nothing"):
            await session.transact([{**SELECT, "table": "Nothing"}])
        with pytest.raises(OvsdbRefused, match="aborted"):
            await session.transact([SELECT, {"op": "abort"}])
        [change] = await session.monitor({"Bridge": ["name", "stp_enable"]})
        assert change.columns == {"name": "br0"}, "defaults are left out"
        await client.transact([{"op": "update", "table": "Bridge", "where": [], "row": {"stp_enable": True}}])
        [change] = await session.next_update()
        assert (change.columns, change.is_difference) == ({"stp_enable": True}, True)


@pytest.mark.needs("root", "ovs")
async def test_the_number_of_the_configuration_only_grows(switch):
    """Concurrent changes each wait for their own."""
    vswitch = OpenVSwitch(OvsdbClient(switch.database))
    switch.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
    numbers = []

    async def change(number):
        def plan(tables):
            where = [["_uuid", "==", ["uuid", tables.named("Bridge", "br0").uuid.value]]]
            return [{"op": "update", "table": "Bridge", "where": where, "row": {"flood_vlans": number}}]

        tables = await vswitch.change(f"test {number}", plan)
        numbers.append(tables.root.integer("cur_cfg"))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(change, number)
    assert all(one <= other for one, other in pairwise(sorted(numbers)))
    assert max(numbers) == int(switch.vsctl("get", "Open_vSwitch", ".", "next_cfg"))
