"""The daemon as a process: start it in the background, find it, end it.

The daemon is this same program run as `opfs up --foreground`; it reports over sd_notify and writes to the
log file of its pool. Which process it is follows from who holds the pool's lock, never from a pid in a file,
and signals go through a pidfd, so no other process can be hit. Synchronous; for one-shot commands.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from opfs.btrfs.mounts import parse_mountinfo
from opfs.config import RUNTIME_ROOT
from opfs.errors import OpfsError, PoolError
from opfs.fuse.mountpoint import MOUNT_TYPE, is_answering, is_mounted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.config import Config

LOG_LIMIT_BYTES = 16 << 20
STOP_TIMEOUT_S = 90.0
SETTLE_TIMEOUT_S = 10.0


class DaemonFailed(OpfsError):
    """The daemon ended before it was ready; carries its own words and exit code."""

    def __init__(self, reason: str, *, exit_code: int, hint: str) -> None:
        super().__init__(reason, hint=hint)
        self.exit_code = exit_code


def start_in_background(config: Config, command: str, arguments: Sequence[str]) -> None:
    """Start `opfs COMMAND --foreground` with `arguments`, and return when its mount answers.

    Raises DaemonFailed if it ends before, PoolError if it is not ready in time (then it goes on).
    """
    config.runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
    _rotate(config.log_file)
    place = ["--pool", str(config.pool), "--mount", str(config.mount)]
    # in a directory only root enters, so that nobody else can claim that the daemon is ready
    with (
        tempfile.TemporaryDirectory(prefix="starting-", dir=RUNTIME_ROOT) as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as reports,
        _open_log(config.log_file) as log,
    ):
        reports.bind(f"{directory}/notify")
        start_of_log = log.seek(0, os.SEEK_END)
        daemon = subprocess.Popen(
            [sys.executable, "-P", "-m", "opfs", *place, command, "--foreground", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, "NOTIFY_SOCKET": f"{directory}/notify"},
            start_new_session=True,
        )
        exit_code = _wait_ready(daemon, reports, config)
        if exit_code is not None:
            reason, hint = _last_words(config.log_file, start_of_log)
            raise DaemonFailed(reason, exit_code=exit_code if exit_code > 0 else 1, hint=hint)


def _open_log(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    return os.fdopen(descriptor, "ab", buffering=0)


def _rotate(path: Path) -> None:
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))


def _wait_ready(daemon: subprocess.Popen[bytes], reports: socket.socket, config: Config) -> int | None:
    """Wait for READY=1 and then for the mount; the daemon's exit code if it ends first, else None."""
    give_up_at = time.monotonic() + config.ready_timeout_s
    shown = ""
    ended = os.pidfd_open(daemon.pid)
    try:
        while (remaining_s := give_up_at - time.monotonic()) > 0:
            ready, _, _ = select.select([reports.fileno(), ended], [], [], remaining_s)
            if reports.fileno() in ready:
                fields = dict(line.partition("=")[::2] for line in reports.recv(4096).decode().splitlines())
                status = fields.get("STATUS", "")
                if status and status != shown:
                    click.echo(status, err=True)
                    shown = status
                if fields.get("READY") == "1" and is_serving(config.pool, config.mount):
                    return None
            elif ended in ready:
                return daemon.wait()
    finally:
        os.close(ended)
    raise PoolError(
        f"the daemon (pid {daemon.pid}) is not ready after {config.ready_timeout_s:.0f} s and goes on trying",
        hint=f"see {config.log_file}; `opfs down` ends it",
    )


def _last_words(log_file: Path, start: int) -> tuple[str, str]:
    """The error the daemon printed last, as reason and hint."""
    with log_file.open("rb") as log:
        log.seek(start)
        lines = log.read().decode(errors="replace").splitlines()
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith("opfs: ") and not lines[number].startswith("opfs: warning: "):
            hint = lines[number + 1].strip() if len(lines) > number + 1 else f"see {log_file}"
            return lines[number].removeprefix("opfs: "), hint
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return f"the daemon ended at once: {last}", f"see {log_file}"


# --- finding and ending --------------------------------------------------------------------------------


def find_daemon(pool: Path) -> int | None:
    """The pid of the process that holds the lock of the pool, if any.

    An open file that holds a flock(2) says so in its fdinfo (proc(5)).
    """
    try:
        lock = os.stat(pool / "lock")
    except OSError:
        return None
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            for descriptor in os.listdir(process / "fd"):
                path = process / "fd" / descriptor
                if not os.readlink(path).endswith("/lock") or not os.path.samestat(os.stat(path), lock):
                    continue
                if "FLOCK" in (process / "fdinfo" / descriptor).read_text():
                    return int(process.name)
        except OSError:
            continue  # it ended while we looked, or is not ours to look at
    return None


def is_serving(pool: Path, mount: Path) -> bool:
    """Whether the mount answers and shows this pool and not another: its HEAD is a block of the pool."""
    if not (is_mounted(mount) and is_answering(mount)):
        return False
    try:
        head = os.readlink(mount / "chain" / "HEAD")
    except OSError:
        return False  # a dead mount was taken away just now, or the daemon died since it answered
    return (pool / "@chain" / head).is_dir()


def settled_daemon(pool: Path) -> int | None:
    """Like `find_daemon`, but one that is just starting or ending is given time to serve or to be gone.

    After an unmount by others the daemon ends by itself, and until then holds the lock.
    """
    give_up_at = time.monotonic() + SETTLE_TIMEOUT_S
    while (pid := find_daemon(pool)) is not None and time.monotonic() < give_up_at:
        table = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
        if any(mount.fs_type == MOUNT_TYPE and is_serving(pool, mount.mount_point) for mount in table):
            break
        _wait_ended(pid, 0.1)
    return pid


def _wait_ended(pid: int, timeout_s: float) -> bool:
    """Wait for the end of a process that is not ours; whether it came in time."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], timeout_s)[0])
    finally:
        os.close(process)


def stop_daemon(pool: Path) -> int | None:
    """End the daemon of the pool and wait until it is gone; its pid, or None where there was none.

    Raises PoolError if it does not end in time.
    """
    pid = find_daemon(pool)
    if pid is None:
        return None
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return pid
    try:
        # The pid may have been reused before the pidfd was made, not after: so look again.
        if find_daemon(pool) == pid:
            signal.pidfd_send_signal(process, signal.SIGTERM)
        if not select.select([process], [], [], STOP_TIMEOUT_S)[0]:
            raise PoolError(
                f"the daemon (pid {pid}) has not ended after {STOP_TIMEOUT_S:.0f} s",
                hint="it may be finishing a change: try again, or kill -9 it, and the next start recovers",
            )
    except ProcessLookupError:
        return pid
    finally:
        os.close(process)
    return pid
