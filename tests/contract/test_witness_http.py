"""The two ends of the witness protocol over real sockets, on the loopback only, and strangers at either end."""

from __future__ import annotations

import select
import subprocess
import sys
from contextlib import suppress

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from witnessends import LOG, echo, request, serving

from opfs.core.notekeys import Kind
from opfs.core.witness import (
    ADD_CHECKPOINT,
    MAX_REQUEST_BYTES,
    ClaimInstead,
    Cosigned,
    Disputed,
    NotCosigned,
    read_answer,
)
from opfs.errors import InvalidRequest, OpfsError
from opfs.testing.growinglog import GrowingLog
from opfs.witness.cosigner import Cosigner
from opfs.witness.listener import MAX_CONNECTIONS, REPLY_TIMEOUT_S, REQUEST_TIMEOUT_S, Listener
from opfs.witness.post import MAX_ANSWER_BYTES, TIMEOUT_S, Endpoint, post
from opfs.witness.state import create_state, open_state


@pytest.fixture
def keys(tmp_path):
    return create_state(tmp_path / "w", "w.example")


@pytest.fixture
async def witness(tmp_path, keys, nursery):
    """A witness of `LOG` on the loopback."""
    with open_state(tmp_path / "w") as state:
        listener = Listener(Cosigner(state, {LOG.origin: LOG.verifiers}).add_checkpoint)
        yield await serving(nursery, listener.answer)


# --- a witness and a log


@pytest.mark.parametrize("kind", [Kind.COSIGNATURE, Kind.ML_DSA_44])
async def test_a_log_grows_and_is_cosigned(witness, keys, kind):
    (key,) = [signer.verifier for signer in keys if signer.verifier.kind is kind]

    async def ask(asked):
        return read_answer(await post(witness, ADD_CHECKPOINT, asked.encode()), asked, key)

    assert isinstance(await ask(request(0, 5)), Cosigned)
    assert isinstance(await ask(request(5, 20)), Cosigned)
    assert isinstance(await ask(request(20, 20)), Cosigned)
    assert await ask(request(0, 20)) == ClaimInstead(20)
    assert isinstance(await ask(request(5, 9)), Disputed)
    fork = LOG.fork_at(3, 20)
    assert isinstance(await ask(request(20, 23, fork)), Disputed)
    assert isinstance(await ask(request(20, 20, fork)), Disputed)
    other = GrowingLog("other.example", 5)
    reading = await ask(request(0, 5, other))
    assert isinstance(reading, NotCosigned)
    assert "404: the log other.example is not known here" in reading.reason


async def test_many_at_once_leave_one_history(witness, keys):
    """All claim nothing: one of them is first, whichever; the others are told its size."""
    answers = []

    async def ask(asked):
        answers.append(read_answer(await post(witness, ADD_CHECKPOINT, asked.encode()), asked, keys[0].verifier))

    async with trio.open_nursery() as nursery:
        for size in range(1, 21):
            nursery.start_soon(ask, request(0, size))
    assert sum(isinstance(answer, Cosigned) for answer in answers) == 1
    assert len(answers) == 20


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /add-checkpoint HTTP/1.1\r\nHost: w\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 3\r\n\r\nold", 404),
        (b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 999999\r\n\r\n", 413),
        (b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 3\r\n\r\nold", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
        (
            b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"10000\r\n"
            + b"x" * 0x10000
            + b"\r\n10000\r\n"
            + b"x" * 0x10000
            + b"\r\n1\r\nx",
            413,
        ),
    ],
)
async def test_what_is_no_request_is_answered_with_why(head, status):
    assert (await exchange(head)).startswith(b"HTTP/1.1 %d " % status)


async def exchange(sent: bytes) -> bytes:
    """What a listener says to these bytes, until it closes."""
    ours, theirs = trio.testing.memory_stream_pair()
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Listener(echo).answer, theirs)
        await ours.send_all(sent)
        await ours.send_eof()
        async for data in ours:
            received += data
    return received


async def test_requests_share_a_connection_and_one_may_come_with_expect():
    one = b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 3\r\n\r\none"
    two = b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\ntwo"
    received = await exchange(one + two)
    assert received.count(b"HTTP/1.1 200 ") == 2
    assert received.endswith(b"two")


@given(st.lists(st.binary(max_size=200) | st.sampled_from([b"\r\n", b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\n"])))
def test_any_bytes_are_answered_or_not_and_the_listener_lives(pieces):
    received = trio.run(exchange, b"".join(pieces))
    assert received == b"" or received.startswith(b"HTTP/1.1 ")


async def test_a_request_that_never_ends_is_cut_off(autojump_clock):
    listener = Listener(echo)
    ours, theirs = trio.testing.memory_stream_pair()
    started = trio.current_time()

    async def drip():
        with suppress(trio.BrokenResourceError):
            while True:
                await ours.send_all(b"X")
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        await listener.answer(theirs)
    assert trio.current_time() - started < REQUEST_TIMEOUT_S + 2


async def test_a_peer_that_does_not_take_its_answer_is_cut_off(autojump_clock, caplog):
    ours, theirs = trio.testing.lockstep_stream_pair()

    async def ask():
        await ours.send_all(b"GET / HTTP/1.1\r\nHost: w\r\n\r\n")
        await ours.wait_send_all_might_not_block()

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Listener(echo).answer, theirs)
        with suppress(trio.BrokenResourceError):
            await ask()
    assert trio.current_time() - started < REPLY_TIMEOUT_S + 2
    assert caplog.records == []


async def test_one_connection_too_many_is_closed_at_once(autojump_clock):
    listener = Listener(echo)
    pairs = [trio.testing.memory_stream_pair() for _ in range(MAX_CONNECTIONS)]
    async with trio.open_nursery() as nursery:
        for _, theirs in pairs:
            nursery.start_soon(listener.answer, theirs)
        await trio.testing.wait_all_tasks_blocked()
        ours, theirs = trio.testing.memory_stream_pair()
        await listener.answer(theirs)
        assert await ours.receive_some() == b""
        await pairs[0][0].aclose()
        await trio.testing.wait_all_tasks_blocked()
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(listener.answer, theirs)
        await ours.send_all(b"GET / HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n")
        assert (await ours.receive_some()).startswith(b"HTTP/1.1 404 ")


async def test_the_largest_request_is_taken(nursery):
    endpoint = await serving(nursery, Listener(echo).answer)
    body = b"x" * MAX_REQUEST_BYTES
    assert len((await post(endpoint, ADD_CHECKPOINT, body)).body) == MAX_REQUEST_BYTES
    assert (await post(endpoint, ADD_CHECKPOINT, body[:-1])).body == body[:-1]


# --- a stranger in the witness's place


def answering(data: bytes, *, then_hang: bool = False):
    async def handler(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(data)
        if then_hang:
            await trio.sleep_forever()

    return handler


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "does not answer in HTTP"),
        (b"hello\r\n\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000, "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_ANSWER_BYTES + 1), "longer than"),
    ],
    ids=["nothing", "not HTTP", "too short", "a negative length", "endless headers", "too long"],
)
async def test_what_is_no_answer_is_an_error(nursery, data, said):
    endpoint = await serving(nursery, answering(data))
    with pytest.raises(OpfsError, match=said):
        await post(endpoint, ADD_CHECKPOINT, b"x")


async def test_a_redirect_is_not_followed(nursery):
    endpoint = await serving(nursery, answering(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"))
    assert (await post(endpoint, ADD_CHECKPOINT, b"x")).status == 302


async def test_a_witness_that_answers_drop_by_drop_is_given_up(autojump_clock, nursery):
    endpoint = await serving(nursery, answering(b"HTTP/1.1 200 OK\r\n\r\nx", then_hang=True))
    with pytest.raises(OpfsError, match=f"did not answer within {TIMEOUT_S:.0f} s"):
        await post(endpoint, ADD_CHECKPOINT, b"x")


async def test_where_nobody_listens_the_system_s_reason_is_given():
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(OpfsError, match=f"http://127.0.0.1:{port} cannot be reached: Connection refused"):
        await post(Endpoint.parse(f"http://127.0.0.1:{port}"), ADD_CHECKPOINT, b"x")


async def test_the_prefix_of_a_url_stands_before_the_path(nursery):
    seen = []

    async def handler(stream: trio.SocketStream) -> None:
        seen.append(await stream.receive_some())
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    endpoint = await serving(nursery, handler)
    await post(Endpoint.parse(f"{endpoint}/some/where/"), ADD_CHECKPOINT, b"x")
    head = seen[0].decode()
    assert head.startswith("POST /some/where/add-checkpoint HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{endpoint.port}\r\n" in head


@pytest.mark.parametrize(
    "url",
    [
        "",
        "w.example",
        "ftp://w.example",
        "file:///etc/passwd",
        "http://",
        "http://user@w.example",
        "http://user:secret@w.example",
        "http://w.example/?a=b",
        "http://w.example/#a",
        "http://w.example/a b",
        "http://w.example/\r\nX: y",
        "http://w.example:99999",
        "http://w.example:port",
        "http://w\N{LATIN SMALL LETTER E WITH ACUTE}.example",
        "http://[::1",
    ],
)
def test_only_plain_http_and_https_urls_are_endpoints(url):
    with pytest.raises(InvalidRequest):
        Endpoint.parse(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://w.example", "http://w.example"),
        ("https://w.example:443/", "https://w.example"),
        ("https://w.example:8443/a/", "https://w.example:8443/a"),
        ("http://[::1]:80/", "http://[::1]"),
        ("http://[::1]:81", "http://[::1]:81"),
    ],
)
def test_an_endpoint_is_shown_as_its_url(url, shown):
    assert str(Endpoint.parse(url)) == shown
    assert Endpoint.parse(shown) == Endpoint.parse(url)


# --- the process


@pytest.fixture
def start(tmp_path, keys):
    """Start `opfs witness serve` on the directory of `keys`; gives the process and where it listens."""
    policy = tmp_path / "policy"
    policy.write_text(f"log {LOG.verifiers[0].vkey}\nquorum none\n")
    started = []

    def start():
        arguments = ["witness", "serve", "--state", tmp_path / "w", "--policy", policy, "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(
            [sys.executable, "-m", "opfs", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert select.select([process.stdout], [], [], 120)[0]
        return process, Endpoint.parse(process.stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=120)


async def test_a_process_that_was_killed_remembers_what_it_signed(start, keys):
    for number in range(3):
        process, endpoint = start()
        asked = request(number, number + 1)
        answer = await post(endpoint, ADD_CHECKPOINT, asked.encode())
        assert isinstance(read_answer(answer, asked, keys[0].verifier), Cosigned)
        process.kill()
        process.wait(120)
    _, endpoint = start()
    asked = request(0, 9)
    assert read_answer(await post(endpoint, ADD_CHECKPOINT, asked.encode()), asked, keys[0].verifier) == ClaimInstead(3)


def test_a_process_ends_when_it_is_asked_to(start):
    process, _ = start()
    process.terminate()
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "Traceback" not in stderr
