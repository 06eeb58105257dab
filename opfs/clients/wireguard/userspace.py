"""wireguard-go's processes: one for each device, started, found again and ended.

A process belongs to nobody: it has a session of its own and goes on when the daemon stops. It is found again by
the device's name: by its socket, which it answers, and by the TUN link, which ends with it; and, to see it end, by its
command line and network namespace. Blocking, for worker threads.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opfs.clients.netlink.changes import delete_link
from opfs.clients.netlink.reading import read_link
from opfs.clients.wireguard.uapi import SOCKETS, is_listening, socket_path
from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROGRAM = "wireguard-go"
PACKAGE = "wireguard-go"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_START_S = 10.0
_POLL_S = 0.01


def find_program() -> str | None:
    return shutil.which(PROGRAM, path=_PATH)


def start(name: str) -> None:
    """Start a process for a new device; returns when it answers. Raises ApplyFailed with the process's own words."""
    if is_listening(name):
        return
    program = find_program()
    if program is None:
        raise ApplyFailed(f"{PROGRAM} is not installed", hint=f"apt-get install {PACKAGE}")
    clear(name)
    SOCKETS.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket_path(name).unlink(missing_ok=True)  # of a process that was killed: nobody answers there
    environment = {"PATH": _PATH, "LOG_LEVEL": "error", "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1"}
    with tempfile.TemporaryFile() as errors:  # a pipe would be held open by the process in the background
        try:
            done = subprocess.run(
                # It goes to the background by itself; what is started here ends as soon as the device is there.
                [program, name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd="/",
                env=environment,
                start_new_session=True,
                timeout=_START_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ApplyFailed(f"{PROGRAM} {name} was not ready after {_START_S:.0f} s and was ended") from None
        except OSError as error:
            raise ApplyFailed(f"{PROGRAM} cannot be run: {error.strerror}") from error
        errors.seek(0)
        said = errors.read(1 << 16)
    if done.returncode != 0:
        raise ApplyFailed(f"{PROGRAM} {name} failed ({done.returncode}): {_words(said)}")
    if not _wait_for(lambda: is_listening(name)):
        raise ApplyFailed(f"{PROGRAM} {name} started, but does not answer at {socket_path(name)}")


def stop(name: str) -> None:
    """End the process of a device: it goes with its link. Returns when it has ended, or raises ApplyFailed."""
    processes = _processes_of(name)
    try:
        link = read_link(name)
        if link is not None and link.kind == "tun":
            delete_link(name)
        # Waited for, because on its way out it removes the socket, which may be another's by then.
        _wait_for_end(name, processes)
    finally:
        for process in processes:
            os.close(process)
    socket_path(name).unlink(missing_ok=True)
    if not _wait_for(lambda: read_link(name) is None):
        raise ApplyFailed(f"the link {name} of {PROGRAM} does not go away")


def clear(name: str) -> None:
    """Take away what is left of a process that answers no more, so that another can have the name."""
    processes = _processes_of(name)
    try:
        for process in processes:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
        _wait_for_end(name, processes)
    finally:
        for process in processes:
            os.close(process)


def _processes_of(name: str) -> list[int]:
    """Handles of the wireguard-go processes that this network namespace has for a device; the caller closes them."""
    here, found = os.stat("/proc/thread-self/ns/net"), []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            handle = os.pidfd_open(int(entry))
        except OSError:
            continue
        try:
            # Read after the handle is open: what is read is of the process that the handle stands for, or fails.
            program, *arguments = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            is_ours = os.path.basename(program) == PROGRAM.encode() and name.encode() in arguments
            if is_ours and os.path.samestat(os.stat(f"/proc/{entry}/ns/net"), here):
                found.append(handle)
                continue
        except OSError:
            pass
        os.close(handle)
    return found


def _wait_for_end(name: str, processes: Sequence[int]) -> None:
    deadline = time.monotonic() + _START_S
    for process in processes:
        ready, _, _ = select.select([process], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise ApplyFailed(f"{PROGRAM} of {name} does not end")


def _wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _START_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _words(said: bytes) -> str:
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines()]
    plain = ["".join(c if c.isprintable() else "?" for c in line) for line in lines if line and "│" not in line]
    return "; ".join(line for line in plain if not line.startswith(("┌", "└")))[:300] or "it gave no reason"
