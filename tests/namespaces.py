"""Tests in a world of their own: fresh network, mount and process namespaces for one test function.

`@in_namespaces` runs a test, plain or async, in a child of pytest's process: its network has nothing but a
loopback, /run and /sys and /proc are its own, nobody's loop device or daemon is mounted there, and when the test
ends the kernel ends every process it started. So nothing a test does can reach the machine's interfaces, whatever
the test does. Fixtures are made before, in pytest's process. A failure comes back with its traceback.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import os
import select
import signal
import subprocess
import sys
import time
import traceback
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from opfs.testing.ownmounts import unshare_mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIMIT_S = 240.0


def in_namespaces(test: Callable[..., Any]) -> Callable[..., None]:
    """Run a test in namespaces of its own; it needs root."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        def body() -> None:
            if inspect.iscoroutinefunction(test):
                trio.run(functools.partial(test, *args, **kwargs))
            else:
                test(*args, **kwargs)

        run_in_namespaces(body)

    return pytest.mark.needs("root")(run)


def run_in_namespaces(body: Callable[[], None], limit_s: float = _LIMIT_S) -> None:
    """Run `body` in a child that has namespaces of its own; fail with its traceback if it raises."""
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads: the child uses none of them
        child = os.fork()
    if child == 0:
        os.close(readable)
        _end(_keep(writable, body))
    os.close(writable)
    report = _read_all(readable, child, limit_s)
    os.close(readable)
    os.waitpid(child, 0)
    if report != b"passed":
        pytest.fail((report or b"the child ended without a word").decode(errors="replace"), pytrace=False)


def _read_all(readable: int, child: int, limit_s: float) -> bytes:
    deadline, report = time.monotonic() + limit_s, b""
    while True:
        ready, _, _ = select.select([readable], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            os.kill(child, signal.SIGKILL)
            return report + f"still at work after {limit_s:.0f} s".encode()
        part = os.read(readable, 1 << 16)
        if not part:
            return report
        report += part


def _keep(writable: int, body: Callable[[], None]) -> int:
    """Make the namespaces and wait for the process that runs in them, the first of its process namespace."""
    try:
        _LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: it ends when pytest does
        unshare_mounts(CLONE_NEWNET | CLONE_NEWPID)
        first = os.fork()
        if first == 0:
            _end(_run(writable, body))
        os.waitpid(first, 0)
    except BaseException:
        os.write(writable, traceback.format_exc().encode())
    return 0


def _run(writable: int, body: Callable[[], None]) -> int:
    try:
        _LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)
        mounts = (
            ["mount", "-t", "proc", "proc", "/proc"],
            ["mount", "-t", "sysfs", "sysfs", "/sys"],
            ["mount", "-t", "tmpfs", "tmpfs", "/run"],
            ["ip", "link", "set", "lo", "up"],
        )
        for command in mounts:
            subprocess.run(command, check=True)
        body()
    except BaseException:
        os.write(writable, traceback.format_exc().encode())
    else:
        os.write(writable, b"passed")
    return 0


def _end(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def ip(*arguments: str, check: bool = True, input: str | None = None) -> str:
    """Run `ip`; its output."""
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True, input=input)
    assert not check or done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


@contextmanager
def other_host(name: str) -> Iterator[str]:
    """A second network namespace, joined to this one by a veth: `to-NAME` here, `up0` there; use `ip -n NAME`."""
    ip("netns", "add", name)
    ip("link", "add", f"to-{name}", "type", "veth", "peer", "name", "up0", "netns", name)
    ip("link", "set", f"to-{name}", "up")
    ip("-n", name, "link", "set", "lo", "up")
    ip("-n", name, "link", "set", "up0", "up")
    yield name
    ip("netns", "del", name)
