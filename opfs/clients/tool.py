"""A vendor's command-line tool, run once: bounded in time and in what it prints, without a shell.

Knows no tool. What runs is an argument list with a minimal environment, in a session of its own, so that Ctrl-C at a
daemon in the foreground reaches nobody else. Whoever calls may be cancelled, and then the tool is ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from opfs.errors import ApplyFailed, ApplyTimeout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT: Mapping[str, str] = {"PATH": PATH, "LC_ALL": "C", "HOME": "/root"}
OUTPUT_BYTES_MAX = 64 << 20
"""Of either stream. A thousand containers are listed in 60 KB, 20,000 flows in 4 MB."""
_END_S = 5
"""For how long a tool that is to end may tidy up."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a tool answered: its exit status, negative for a signal, and what it printed."""

    status: int
    output: str
    errors: str

    def words(self) -> str:
        """What it said of a failure, in one line."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return "; ".join(lines)[:500] or "it gave no reason"


async def run_tool(
    command: Sequence[str],
    *,
    timeout_s: float,
    environment: Mapping[str, str] = ENVIRONMENT,
    input: bytes = b"",
    whole_group: bool = False,
    doing: str = "",
    install: str = "",
) -> Done:
    """Run a tool to its end, whatever its exit status.

    With `whole_group` all processes of a tool that has to be ended are, at once. `doing` is what errors call it, its
    name unless given, and `install` says how to get it. Raises ApplyTimeout, and ApplyFailed where there is no such
    tool or where it prints more than anybody could want.
    """
    doing = doing or command[0]
    output, errors = bytearray(), bytearray()
    failure: ApplyFailed | None = None
    status = 0

    async def read(stream: trio.abc.ReceiveStream, gathered: bytearray) -> None:
        nonlocal failure
        async for chunk in stream:
            gathered += chunk
            if len(gathered) > OUTPUT_BYTES_MAX:
                failure = ApplyFailed(f"{doing} printed over {OUTPUT_BYTES_MAX >> 20} MiB and was ended")
                nursery.cancel_scope.cancel()
                return

    with trio.move_on_after(timeout_s) as limit:
        async with trio.open_nursery() as nursery:
            run = partial(
                trio.run_process,
                list(command),
                stdin=input,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                check=False,
                cwd="/",
                env=environment,
                start_new_session=True,
                deliver_cancel=partial(_end, whole_group=whole_group),
            )
            try:
                process: trio.Process = await nursery.start(run)
            except OSError as error:
                hint = f"apt-get install {install}" if install else ""
                failure = ApplyFailed(f"{command[0]} cannot be run: {error.strerror}", hint=hint)
            else:
                assert process.stdout is not None
                assert process.stderr is not None
                nursery.start_soon(read, process.stdout, output)
                nursery.start_soon(read, process.stderr, errors)
                status = await process.wait()
    if failure is not None:
        raise failure
    if limit.cancelled_caught:
        raise ApplyTimeout(f"{doing} was still at work after {timeout_s:g} s and was ended")
    return Done(status, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace"))


async def _end(process: trio.Process, *, whole_group: bool) -> None:
    """End a tool that was cancelled; its session leader's pid is also its group's number."""
    if whole_group:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return
    process.terminate()
    with trio.move_on_after(_END_S):
        await process.wait()
    process.kill()
