"""A witness as a process: its directory, the logs it knows, the address it listens at. Ends at SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

import trio

from opfs.errors import InvalidRequest, PoolError
from opfs.witness.cosigner import Cosigner
from opfs.witness.files import load_policy
from opfs.witness.listener import Listener
from opfs.witness.state import open_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)


def serve_witness(
    directory: Path, policy: Path, host: str, port: int, *, on_ready: Callable[[list[str]], None]
) -> None:
    """Serve the witness in `directory` to the logs of the policy file; `on_ready` is given the URLs.

    Raises InvalidRequest, PoolError or IntegrityError for what stops it from starting.
    """
    logs = load_policy(policy).logs
    if not logs:
        raise InvalidRequest(f"{policy} names no log", hint="add a line: log VKEY (see log.vkey of the log)")
    with open_state(directory) as state:
        listener = Listener(Cosigner(state, logs).add_checkpoint)
        trio.run(_run, listener, host, port, on_ready)


async def _run(listener: Listener, host: str, port: int, on_ready: Callable[[list[str]], None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            raise PoolError(f"cannot listen at {host}:{port}: {error.strerror or error}") from error
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, listener.answer, listeners)
            on_ready([_url(*listening.socket.getsockname()[:2]) for listening in listeners])
            async for number in signals:
                log.info("%s: ending", signal.Signals(number).name)
                nursery.cancel_scope.cancel()


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
