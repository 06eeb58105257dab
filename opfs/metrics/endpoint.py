"""`GET /metrics` over HTTP and nothing else, for Prometheus. Off unless configured.

There is no login and no TLS: it listens where the configuration says, by default on the loopback. Bounded in
connections, size of a request and time. Trio.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import h11
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 16
MAX_HEADER_BYTES = 16 << 10
TIMEOUT_S = 10.0
_READ_BYTES = 16 << 10


class Endpoint:
    """Answers connections with what `render` makes, of that content type."""

    def __init__(self, render: Callable[[], bytes], content_type: str) -> None:
        self._render = render
        self._content_type = content_type
        self._connection_count = 0

    async def serve(self, host: str, port: int) -> None:
        """Listen until cancelled; where that is not possible, log it and return: it must stop no file system."""
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            log.error("metrics are not served at %s port %d: %s", host, port, error.strerror or error)
            return
        log.info("metrics are served at %s", ", ".join(str(one.socket.getsockname()[:2]) for one in listeners))
        await trio.serve_listeners(self.answer, listeners)

    async def answer(self, stream: trio.abc.Stream) -> None:
        """Serve one connection, which is for one request; never raises."""
        if self._connection_count >= MAX_CONNECTIONS:
            await trio.aclose_forcefully(stream)
            return
        self._connection_count += 1
        try:
            async with stream:
                with trio.move_on_after(TIMEOUT_S):
                    await self._answer_one(stream)
        except (OSError, trio.BrokenResourceError, h11.ProtocolError) as error:
            log.debug("a connection ended early: %s", error)
        except Exception:
            log.exception("serving metrics")
        finally:
            self._connection_count -= 1

    async def _answer_one(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        request: h11.Request | None = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                break
            elif not isinstance(event, h11.Data):
                return
        status, content_type, body = self._response(request)
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Connection", "close")]
        if status == 405:
            headers.append(("Allow", "GET, HEAD"))
        sent = [h11.Response(status_code=status, headers=headers)]
        parts = [connection.send(event) for event in sent]
        parts += [] if request.method == b"HEAD" else [connection.send(h11.Data(data=body))]
        await stream.send_all(b"".join(part or b"" for part in [*parts, connection.send(h11.EndOfMessage())]))

    def _response(self, request: h11.Request) -> tuple[int, str, bytes]:
        if request.target.partition(b"?")[0] != b"/metrics":
            return 404, "text/plain; charset=utf-8", b"there is /metrics\n"
        if request.method not in (b"GET", b"HEAD"):
            return 405, "text/plain; charset=utf-8", b"metrics are only read\n"
        return 200, self._content_type, self._render()
