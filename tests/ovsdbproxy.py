"""A server between a client and ovsdb-server that passes everything on, but treats one commit as it is told to.

A commit is a transaction with a `comment`, as opfs makes them. Faults: `lies` answers success and does nothing,
`refuses` answers an error, `garbage` answers what is no JSON, `dies` closes the connection instead of passing it
on, `dies-afterwards` passes it on and closes before the answer, `hangs` never answers.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from opfs.clients.ovsdb_framing import MessageSplitter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

FAULTS = ("lies", "refuses", "garbage", "dies", "dies-afterwards", "hangs")


class Proxy:
    """Armed with a fault, it acts it out at the next commit and is honest again; `at_commit` is called then."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self.fault: str | None = None
        self.at_commit: Callable[[], None] = lambda: None

    async def serve(self, client: trio.SocketStream) -> None:
        try:
            server = await trio.open_unix_socket(str(self._server))
        except OSError:
            await client.aclose()
            return
        splitter = MessageSplitter(1 << 26)
        async with client, server, trio.open_nursery() as nursery:
            answering = trio.CancelScope()
            nursery.start_soon(self._pass_answers, server, client, answering)
            try:
                async for chunk in client:
                    for raw in splitter.feed(bytes(chunk)):
                        message = json.loads(raw)
                        if self.fault is not None and _is_commit(message):
                            fault, self.fault = self.fault, None
                            self.at_commit()
                            if not await self._act(fault, message, raw, client, server, answering):
                                return
                        else:
                            await server.send_all(raw)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                nursery.cancel_scope.cancel()

    async def _act(self, fault: str, message: Any, raw: bytes, client: Any, server: Any, answering: Any) -> bool:
        """False where the connection ends."""
        operations = message["params"][1:]
        if fault == "lies":
            results = [{"rows": [{"next_cfg": 0}]} if op["op"] == "select" else {"count": 1} for op in operations]
            await client.send_all(json.dumps({"id": message["id"], "result": results, "error": None}).encode())
        elif fault == "refuses":
            words = {"error": "constraint violation", "details": "the row is not to somebody's taste"}
            results = [*([None] * len(operations)), words]
            await client.send_all(json.dumps({"id": message["id"], "result": results, "error": None}).encode())
        elif fault == "garbage":
            await client.send_all(b'{"id": NaN}')
        elif fault == "dies-afterwards":
            answering.cancel()
            await server.send_all(raw)
            # The server's own answer is the sign that it is done.
            await server.receive_some(1)
            return False
        return fault != "dies"

    async def _pass_answers(self, server: Any, client: Any, scope: trio.CancelScope) -> None:
        with scope:
            try:
                async for chunk in server:
                    await client.send_all(chunk)
                await client.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass


@asynccontextmanager
async def proxy(server: Path, path: Path) -> AsyncIterator[Proxy]:
    """A proxy at the socket `path`, until the end of the block."""
    proxy = Proxy(server)
    socket = trio.socket.socket(trio.socket.AF_UNIX)
    await socket.bind(str(path))
    socket.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, proxy.serve, [trio.SocketListener(socket)])
        yield proxy
        nursery.cancel_scope.cancel()


def _is_commit(message: Any) -> bool:
    return message.get("method") == "transact" and any(op.get("op") == "comment" for op in message["params"][1:])
