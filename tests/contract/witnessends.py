"""Endpoints on the loopback, for tests of the witness protocol."""

from __future__ import annotations

from functools import partial

import trio

from opfs.core.witness import AddCheckpoint, Answer
from opfs.testing.growinglog import GrowingLog
from opfs.witness.post import Endpoint

LOG = GrowingLog(size=20)


async def serving(nursery, handler, scheme="http") -> Endpoint:
    listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
    return Endpoint.parse(f"{scheme}://127.0.0.1:{listeners[0].socket.getsockname()[1]}/")


def request(old, new, log=LOG):
    return AddCheckpoint(old, tuple(log.proof(old, new)), log.note(new).encode())


async def echo(body: bytes) -> Answer:
    return Answer(200, "text/plain", body)
