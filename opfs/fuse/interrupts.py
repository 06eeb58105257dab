"""Notices that a caller who waits for an answer wants to stop: ctrl-C, kill, a closed terminal.

The kernel sends FUSE_INTERRUPT for that, and pyfuse3 does not pass it on. What it is sent for can be seen, though:
a task with a signal pending, not blocked and not ignored, that waits in our file system. So requests that
take long are looked at twice a second. The one who opened the file may not be the one who writes to it (a shell
opens, its child writes), and a terminal's ctrl-C goes to the whole process group, so all of the opener's
group that waits in FUSE counts. Trio thread only; reads /proc, which waits for no disk. Sources: proc(5), signal(7),
Documentation/filesystems/fuse/fuse.rst of the kernel ("Interrupting filesystem operations").
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PATIENCE_S = 0.5
"""Requests younger than this are not looked at: nearly all have been answered by then."""

_FIELDS = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")
_HARMLESS = {"SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"}
"""Signals whose default is to do nothing, or to stop: nobody wants to give up because of those."""
_MAX_GROUP = 4096
_WAITING = b"request_wait_answer"
"""The kernel's function (`wchan`) in which a task waits for a FUSE server's answer."""


@dataclass(eq=False, slots=True)
class Waiting:
    """One request that a caller waits for; `interrupted_by` names the signal once it was interrupted."""

    scope: trio.CancelScope
    handler: str
    arguments: Sequence[Any]
    since: float
    interrupted_by: str = ""


class Interrupts:
    """The requests that are being answered; `run` cancels those whose callers want to stop.

    `caller_pid` tells who waits for a handler with its arguments, 0 where nobody knows.
    """

    def __init__(self, caller_pid: Callable[[str, Sequence[Any]], int], proc: Path = Path("/proc")) -> None:
        self._caller_pid = caller_pid
        self._proc = proc
        self._requests: set[Waiting] = set()

    def begin(self, scope: trio.CancelScope, handler: str, arguments: Sequence[Any]) -> Waiting:
        """From here to `end`, `scope` is cancelled if the caller wants to stop."""
        request = Waiting(scope, handler, arguments, trio.current_time())
        self._requests.add(request)
        return request

    def end(self, request: Waiting) -> None:
        self._requests.discard(request)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await trio.sleep(PATIENCE_S)
            now = trio.current_time()
            for request in [r for r in self._requests if now - r.since >= PATIENCE_S and not r.interrupted_by]:
                pid = self._caller_pid(request.handler, request.arguments)
                name = pending_signal(self._proc, pid) if pid else ""
                if name:
                    request.interrupted_by = name
                    request.scope.cancel()


def pending_signal(proc: Path, pid: int) -> str:
    """The signal that waits for the caller `pid`, or for one of its group that waits in FUSE; empty for none."""
    own = _signal_of(proc / str(pid) / "status")
    if own:
        return own
    group = _group_of(proc, pid)
    if group is None:
        return ""
    for other in _members(proc, group):
        if other != pid and _read(proc / str(other) / "wchan") == _WAITING:
            found = _signal_of(proc / str(other) / "status")
            if found:
                return found
    return ""


def _signal_of(status: Path) -> str:
    """A signal that is pending and would end or run something in the task."""
    masks = dict.fromkeys(_FIELDS, 0)
    for line in _read(status).splitlines():
        key, _, value = line.partition(b":")
        if (name := key.decode(errors="replace")) in masks:
            masks[name] = int(value, 16)
    due = (masks["SigPnd"] | masks["ShdPnd"]) & ~masks["SigBlk"] & ~masks["SigIgn"]
    for number in signal.Signals:
        bit = 1 << (number - 1)
        if due & bit and (masks["SigCgt"] & bit or number.name not in _HARMLESS):
            return number.name
    return ""


def _group_of(proc: Path, pid: int) -> int | None:
    """The process group of a task. The command's name is in brackets and may hold any character."""
    _, _, rest = _read(proc / str(pid) / "stat").rpartition(b") ")
    fields = rest.split()
    return int(fields[2]) if len(fields) > 2 else None


def _members(proc: Path, group: int) -> Iterator[int]:
    count = 0
    for entry in os.listdir(proc):
        if entry.isdigit() and _group_of(proc, int(entry)) == group:
            yield int(entry)
            count += 1
            if count == _MAX_GROUP:
                return


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # the task ended
