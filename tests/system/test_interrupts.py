"""Whoever waits for a request that hangs can stop waiting: ctrl-C, kill, kill -9, a whole process group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_mount_basic import daemon, mountpoint  # noqa: F401  # a fixture

from opfs.fuse.errnos import Deadlines
from opfs.fuse.interrupts import pending_signal
from opfs.fuse.session import request_limit_s

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENT_S = 3000.0
"""Longer than the test: only an interrupt ends a request that hangs."""
ENDS_WITHIN_S = 120.0


@pytest.fixture
def signals_as_in_a_shell() -> Iterator[None]:
    """Children die of these signals also where the tests were started by nohup, or in the background of a script."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def mount(mountpoint, signals_as_in_a_shell):  # noqa: F811
    with daemon(mountpoint, PATIENT_S):
        yield mountpoint


def waits_in_fuse(pid: int) -> bool:
    return Path(f"/proc/{pid}/wchan").read_text() == "request_wait_answer"


def until(condition) -> None:
    deadline = time.monotonic() + ENDS_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def opener(path: Path, program: str = "open(sys.argv[1])", **options) -> subprocess.Popen[bytes]:
    """A program that waits for an answer from the mount."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"import signal, sys\n{program}", path], stderr=subprocess.PIPE, **options
    )
    until(lambda: waits_in_fuse(process.pid))
    return process


@pytest.mark.needs("root", "fuse")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_the_wait(mount, number):
    process = opener(mount / "hang")
    process.send_signal(number)
    process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode == -number
    assert (mount / "hello").read_text() == "hello\n"


@pytest.mark.needs("root", "fuse")
def test_a_handler_of_the_caller_runs_and_sees_the_reason(mount):
    """Python's own `open` tries again after EINTR unless the handler raises; it does, and the wait is over."""
    process = opener(mount / "hang", "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))\nopen(sys.argv[1])")
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode == 7


@pytest.mark.needs("root", "fuse")
def test_ctrl_c_reaches_everybody_in_the_group(mount):
    """A shell opens a file and its child waits: the terminal signals both."""
    shell = subprocess.Popen(
        ["bash", "-c", 'cat "$1"; exit 3', "bash", mount / "hang"], start_new_session=True, stderr=subprocess.PIPE
    )
    children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children")
    until(lambda: any(waits_in_fuse(int(pid)) for pid in children.read_text().split()))
    os.killpg(shell.pid, signal.SIGINT)
    shell.communicate(timeout=ENDS_WITHIN_S)
    assert shell.returncode in (-signal.SIGINT, 128 + signal.SIGINT)


@pytest.mark.needs("root", "fuse")
def test_an_ignored_signal_interrupts_nothing(mount):
    process = opener(mount / "hang", "signal.signal(signal.SIGINT, signal.SIG_IGN)\nopen(sys.argv[1])")
    try:
        process.send_signal(signal.SIGINT)
        other = opener(mount / "hang")
        other.send_signal(signal.SIGINT)
        other.communicate(timeout=ENDS_WITHIN_S)
        assert process.poll() is None
        assert waits_in_fuse(process.pid)
    finally:
        process.kill()
        process.communicate(timeout=ENDS_WITHIN_S)


@pytest.mark.needs("root", "fuse")
def test_requests_that_are_withdrawn_do_not_stop_the_mount(mount):
    """Processes that are killed while their requests are on the way: the others go on being answered."""
    for _ in range(5):
        reader = subprocess.Popen(["ls", "-l", mount / "many"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        waiting = [subprocess.Popen(["cat", mount / "hang"], stderr=subprocess.DEVNULL) for _ in range(3)]
        for process in waiting:
            process.kill()
        assert (mount / "hello").read_text() == "hello\n"
        reader.kill()
        for process in (*waiting, reader):
            process.wait(timeout=ENDS_WITHIN_S)


# --- without a mount -----------------------------------------------------------------------------------


def task(proc: Path, pid: int, *, group: int, wchan: str = "0", **masks: int) -> None:
    """A recorded task: `name` is hostile, as any process may call itself anything."""
    place = proc / str(pid)
    place.mkdir()
    (place / "stat").write_text(f"{pid} (a) S 1 (b) D 1 {group} {group} 0 -1")
    fields = {"SigPnd": 0, "ShdPnd": 0, "SigBlk": 0, "SigIgn": 0, "SigCgt": 0} | masks
    (place / "status").write_text("Name:\ta) S 1\n" + "".join(f"{key}:\t{mask:016x}\n" for key, mask in fields.items()))
    (place / "wchan").write_text(wchan)


INT = 1 << (signal.SIGINT - 1)
CHLD = 1 << (signal.SIGCHLD - 1)
WAITING = "request_wait_answer"


def test_only_a_signal_that_is_due_counts(tmp_path):
    task(tmp_path, 1, group=1, ShdPnd=INT)
    task(tmp_path, 2, group=2, SigPnd=INT, SigBlk=INT)
    task(tmp_path, 3, group=3, SigPnd=INT, SigIgn=INT)
    task(tmp_path, 4, group=4, SigPnd=CHLD)
    task(tmp_path, 5, group=5, SigPnd=CHLD, SigCgt=CHLD)
    found = {pid: pending_signal(tmp_path, pid) for pid in range(1, 7)}
    assert found == {1: "SIGINT", 2: "", 3: "", 4: "", 5: "SIGCHLD", 6: ""}


def test_of_a_group_only_those_count_that_wait_in_fuse(tmp_path):
    task(tmp_path, 10, group=10)
    task(tmp_path, 11, group=10, wchan="do_wait", ShdPnd=INT)
    assert pending_signal(tmp_path, 10) == ""
    task(tmp_path, 12, group=12, wchan=WAITING, ShdPnd=INT)
    assert pending_signal(tmp_path, 10) == ""
    task(tmp_path, 13, group=10, wchan=WAITING, ShdPnd=INT)
    assert pending_signal(tmp_path, 10) == "SIGINT"


@pytest.mark.parametrize(
    ("default", "most", "limit_s"),
    [("0\n", "0\n", None), ("30\n", "0\n", 30.0), ("0\n", "60\n", 60.0), ("90\n", "60\n", 60.0), (None, None, None)],
)
def test_the_kernels_own_limit_is_kept(tmp_path, default, most, limit_s):
    for name, text in (("default_request_timeout", default), ("max_request_timeout", most)):
        if text is not None:
            (tmp_path / name).write_text(text)
    assert request_limit_s(tmp_path) == limit_s
    deadlines = Deadlines(applying_s=600, answering_s=30).within(limit_s)
    assert max(deadlines.applying_s, deadlines.answering_s) < (limit_s or 601)
