"""HTTP for a witness: `POST /add-checkpoint` and nothing else, for strangers that may be hostile.

Bounded on every side: connections at a time, the time a request takes to arrive, header and body sizes. What
a request means is decided in opfs.witness.cosigner; TLS is the business of a proxy in front. Trio.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import h11
import trio

from opfs.core.witness import ADD_CHECKPOINT, MAX_REQUEST_BYTES, Answer, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
MAX_HEADER_BYTES = 16 << 10
REQUEST_TIMEOUT_S = 10.0
"""From the first wait for a request to its last byte: also how long a connection may idle."""
REPLY_TIMEOUT_S = 10.0
_READ_BYTES = 16 << 10

_TOO_LARGE = refusal(413, f"a request has at most {MAX_REQUEST_BYTES} bytes")


class Listener:
    """Answers connections, each handed to `answer` as it is accepted, with `add_checkpoint(body)`."""

    def __init__(self, add_checkpoint: Callable[[bytes], Awaitable[Answer]]) -> None:
        self._add_checkpoint = add_checkpoint
        self._connection_count = 0

    async def answer(self, stream: trio.abc.Stream) -> None:
        """Serve one connection to its end; never raises."""
        if self._connection_count >= MAX_CONNECTIONS:
            await trio.aclose_forcefully(stream)
            return
        self._connection_count += 1
        try:
            async with stream:
                connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
                while await self._answer_one(stream, connection):
                    connection.start_next_cycle()
        except (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.LocalProtocolError) as error:
            log.debug("a connection ended early: %s", error)
        except Exception:
            log.exception("serving a connection")
        finally:
            self._connection_count -= 1

    async def _answer_one(self, stream: trio.abc.Stream, connection: h11.Connection) -> bool:
        """Read a request and answer it; whether another may follow on this connection."""
        with trio.move_on_after(REQUEST_TIMEOUT_S) as limit:
            try:
                received = await _receive(stream, connection)
            except h11.RemoteProtocolError as error:
                await _send(stream, connection, refusal(error.error_status_hint, f"not HTTP: {error}"))
                return False
        if limit.cancelled_caught or received is None:
            return False
        answer = received if isinstance(received, Answer) else await self._add_checkpoint(received)
        await _send(stream, connection, answer)
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE


async def _receive(stream: trio.abc.Stream, connection: h11.Connection) -> bytes | Answer | None:
    """The body of the next request; the answer to one that was wrong before its body; None at the end.

    What is refused for its head is read to the end all the same: closing on unread bytes resets the connection,
    and the peer would not see why.
    """
    body = bytearray()
    refused: Answer | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                await stream.send_all(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
        elif isinstance(event, h11.Request):
            if event.target != ADD_CHECKPOINT.encode():
                refused = refusal(404, f"this is a witness; it answers POST {ADD_CHECKPOINT}")
            elif event.method != b"POST":
                refused = refusal(405, f"send a POST to {ADD_CHECKPOINT}")
            if int(dict(event.headers).get(b"content-length", b"0")) > MAX_REQUEST_BYTES:
                return _TOO_LARGE
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_REQUEST_BYTES:
                return _TOO_LARGE
        elif isinstance(event, h11.EndOfMessage):
            return refused or bytes(body)
        else:
            return None


async def _send(stream: trio.abc.Stream, connection: h11.Connection, answer: Answer) -> None:
    if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body)))]
    if answer.status == 405:
        headers.append(("Allow", "POST"))
    if connection.their_state is not h11.DONE:
        headers.append(("Connection", "close"))
    events = (h11.Response(status_code=answer.status, headers=headers), h11.Data(data=answer.body), h11.EndOfMessage())
    with trio.fail_after(REPLY_TIMEOUT_S):
        await stream.send_all(b"".join(connection.send(event) or b"" for event in events))
