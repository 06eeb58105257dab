"""Who is behind a request, as /proc tells it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from opfs.fuse import caller as module
from opfs.fuse.caller import COMMAND_LENGTH, groups_of, identify, user_name
from opfs.vfs.node import Caller


@pytest.fixture
def waiting():
    """Start a process that waits until the test is over; returns the caller it would be."""
    processes = []

    def start(*arguments, **options):
        process = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **options,
        )
        processes.append(process)
        process.stdout.readline()
        return Caller(uid=os.getuid(), gid=os.getgid(), pid=process.pid)

    yield start
    for process in processes:
        process.communicate(b"\n")


def test_a_process_is_described(waiting):
    actor = identify(waiting("--flag", "two words"))
    assert actor.uid == os.getuid()
    assert actor.user == user_name(os.getuid())
    assert actor.command.endswith("--flag two words")
    assert actor.executable == os.path.realpath(sys.executable)
    assert actor.cgroup.startswith("/")
    assert actor.source == "mount"


def test_a_process_that_is_gone_leaves_its_numbers():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    actor = identify(Caller(uid=4_000_000, gid=7, pid=process.pid))
    assert (actor.uid, actor.user, actor.pid) == (4_000_000, "4000000", process.pid)
    assert (actor.command, actor.executable, actor.cgroup, actor.login_uid) == ("", "", "", None)
    assert groups_of(Caller(uid=1, gid=7, pid=process.pid)) == {7}


def test_a_hostile_command_line_is_short_and_one_line(waiting):
    actor = identify(waiting("\x1b[2J\n" + "x" * 10_000))
    assert len(actor.command) <= COMMAND_LENGTH
    assert actor.command.isprintable()
    assert "\ufffd[2J\ufffdxxx" in actor.command


@pytest.mark.needs("root")
def test_supplementary_groups(waiting):
    assert groups_of(waiting(user=65534, group=65534, extra_groups=[5, 6])) >= {5, 6}


@pytest.mark.parametrize(
    ("text", "expected"), [(b"4294967295", None), (b"1000", 1000), (b"0", 0), (b"", None), (b"junk", None)]
)
def test_the_login_uid_is_none_where_the_session_has_none(tmp_path, text, expected):
    (tmp_path / "loginuid").write_bytes(text)
    assert module._login_uid(str(tmp_path)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"0::/system.slice/sshd.service\n", "/system.slice/sshd.service"),
        (b"9:name=systemd:/user.slice/a:b\n4:memory:/elsewhere\n0::/\n", "/user.slice/a:b"),
        (b"1:name=systemd:/init.scope\n", "/init.scope"),
        (b"4:memory:/elsewhere\n0::/\n", "/"),
        (b"", ""),
    ],
    ids=["v2", "hybrid", "v1", "root", "gone"],
)
def test_the_cgroup_of_either_version(tmp_path, text, expected):
    (tmp_path / "cgroup").write_bytes(text)
    assert module._cgroup(str(tmp_path)) == expected
