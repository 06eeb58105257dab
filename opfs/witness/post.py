"""One HTTP POST to a witness, bounded in time and size; it follows no redirect and uses no proxy.

A witness's answer is a stranger's: at most `MAX_ANSWER_BYTES` of it are read, in at most `TIMEOUT_S`, and an
https witness must show a certificate that this host trusts. Trio; each call has a connection of its own.
"""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11
import trio

from opfs.core.witness import Answer
from opfs.errors import InvalidRequest, OpfsError

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 128 << 10
_READ_BYTES = 16 << 10
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a witness listens: a submission prefix, taken apart. `path` ends without a slash."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read an http or https URL without user, query and fragment; raises InvalidRequest."""
        hint = "give http://host[:port][/path] or https://…"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InvalidRequest(f"{url!r} is no URL: {error}", hint=hint) from None
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise InvalidRequest(f"{url!r} is no http or https URL", hint=hint)
        # printable ASCII without blanks: nothing that could end a header line
        if not all("!" <= character <= "~" for character in url):
            raise InvalidRequest(f"{url!r} has characters that belong into no URL", hint="encode them")
        if "@" in parts.netloc or parts.query or parts.fragment or "?" in url or "#" in url:
            raise InvalidRequest(f"{url!r} has a user, a query or a fragment", hint=hint)
        return cls(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme], parts.path.rstrip("/"))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    @property
    def host_header(self) -> str:
        return str(self).removeprefix(f"{self.scheme}://").partition("/")[0]


async def post(
    endpoint: Endpoint,
    path: str,
    body: bytes,
    *,
    trust: ssl.SSLContext | None = None,
    content_type: str = "text/plain; charset=utf-8",
) -> Answer:
    """Send `body` to `path` below the endpoint and return the answer, whatever its status.

    `trust` says which certificates an https endpoint may show; by default those of the host. Raises OpfsError
    where there is no answer: unreachable, too slow, too long, not HTTP.
    """
    answer: Answer | None = None
    try:
        with trio.move_on_after(TIMEOUT_S):
            stream = await _connect(endpoint, trust)
            async with stream:
                answer = await _exchange(stream, _request(endpoint, path, body, content_type), body)
    except h11.RemoteProtocolError as error:
        raise OpfsError(f"{endpoint} does not answer in HTTP: {error}") from error
    except (OSError, trio.BrokenResourceError) as error:
        raise OpfsError(f"{endpoint} cannot be reached: {_cause(error)}") from error
    if answer is None:
        raise OpfsError(f"{endpoint} did not answer within {TIMEOUT_S:.0f} s")
    return answer


async def _connect(endpoint: Endpoint, trust: ssl.SSLContext | None) -> trio.abc.Stream:
    stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
    if endpoint.scheme == "http":
        return stream
    context = trust or ssl.create_default_context()
    return trio.SSLStream(stream, context, server_hostname=endpoint.host, https_compatible=True)


def _request(endpoint: Endpoint, path: str, body: bytes, content_type: str) -> h11.Request:
    headers = [
        ("Host", endpoint.host_header),
        ("User-Agent", "opfs"),
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    return h11.Request(method="POST", target=f"{endpoint.path}{path}" or "/", headers=headers)


async def _exchange(stream: trio.abc.Stream, request: h11.Request, body: bytes) -> Answer:
    connection = h11.Connection(h11.CLIENT)
    parts = (request, h11.Data(data=body), h11.EndOfMessage())
    await stream.send_all(b"".join(connection.send(part) or b"" for part in parts))
    status, content_type, received = 0, "", bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
        elif isinstance(event, h11.Response):
            status = event.status_code
            content_type = dict(event.headers).get(b"content-type", b"").decode("latin-1")
        elif isinstance(event, h11.Data):
            received += event.data
            if len(received) > MAX_ANSWER_BYTES:
                raise OpfsError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, content_type, bytes(received))
        elif not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError("the connection ended before the answer did")


def _cause(error: BaseException) -> str:
    """What the system said: trio wraps it."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup):
        return _cause(error.exceptions[0])
    # TLS and the resolver number their errors in ways of their own, and word them well
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError | socket.gaierror):
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
