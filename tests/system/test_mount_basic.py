"""A real mount of a small tree: what the kernel and ordinary programs see, and that it cannot be killed by accident."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from opfs.errors import InvalidRequest
from opfs.fuse.mountpoint import (
    MOUNT_TYPE,
    check_mountpoint,
    is_answering,
    is_mounted,
    mount_at,
    recover_stale_mount,
    unmount,
)
from opfs.testing.mounted import MANY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("root", "fuse")


@contextmanager
def daemon(mountpoint: Path, deadline_s: float = 300.0):
    """A daemon of the test's own; it and its mount are gone afterwards, whatever the test did."""
    process = subprocess.Popen(
        [sys.executable, "-m", "opfs.testing.mounted", mountpoint, str(deadline_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        if process.stdout.readline() != b"ready\n":
            pytest.fail(f"the daemon did not mount: {process.stderr.read().decode()}")
        yield process
    finally:
        process.kill()
        process.communicate()
        while mount_at(mountpoint):
            unmount(mountpoint, abort=True)


@pytest.fixture
def mountpoint(work_dir, request):
    path = work_dir / f"mount-{request.node.name}"
    path.mkdir()
    yield path
    path.rmdir()


@pytest.fixture
def mount(mountpoint):
    with daemon(mountpoint):
        yield mountpoint


def stop(process) -> str:
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages.decode()
    return messages.decode()


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def test_ls_cat_and_find(mount):
    listed = run("ls", "-la", mount).stdout.splitlines()
    assert [line.split()[8] for line in listed[1:]] == [
        ".", "..", "broken", "change", "hang", "hello", "kept", "link", "many",
    ]  # fmt: skip
    assert listed[-2].endswith("link -> hello")
    assert run("cat", mount / "link").stdout == "hello\n"
    found = run("find", mount, "-type", "f")
    assert (found.returncode, len(found.stdout.splitlines())) == (0, MANY + 5)


def test_the_mount_is_what_it_says(mount):
    assert mount_at(mount).type == MOUNT_TYPE
    assert is_mounted(mount)
    assert is_answering(mount)
    options = run("findmnt", "-no", "SOURCE,OPTIONS", mount).stdout
    for expected in ("opfs", "nosuid", "nodev", "noexec", "default_permissions", "allow_other"):
        assert expected in options


def test_a_directory_of_ten_thousand_is_listed_with_attributes_in_one_go(mount):
    listed = run("ls", "-l", "--numeric-uid-gid", mount / "many").stdout.splitlines()[1:]
    assert len(listed) == MANY
    assert {tuple(line.split()[:5]) for line in listed} == {("-rw-r--r--", "1", "0", "0", "1")}


def test_write_truncate_append_rename_and_remove(mount):
    (mount / "new").write_text("first")
    with (mount / "new").open("a") as file:
        file.write(" second")
    os.truncate(mount / "new", 5)
    os.rename(mount / "new", mount / "moved")
    os.chmod(mount / "moved", 0o600)
    assert (mount / "moved").read_text() == "first"
    assert stat.S_IMODE((mount / "moved").stat().st_mode) == 0o600
    (mount / "moved").unlink()
    assert not (mount / "moved").exists()


def test_a_mebibyte_arrives_whole(mount):
    content = os.urandom(1 << 20)
    (mount / "big").write_bytes(content)
    assert (mount / "big").read_bytes() == content


def test_permissions_are_checked_by_the_kernel(mount):
    os.chmod(mount / "hello", 0o600)
    asked = run("cat", mount / "hello", user=65534, group=65534, extra_groups=[])
    assert asked.returncode == 1
    assert "Permission denied" in asked.stderr


@pytest.mark.parametrize("act", [os.mkdir, lambda path: os.symlink("hello", path), os.mkfifo], ids=["d", "l", "p"])
def test_only_files_are_made(mount, act):
    with pytest.raises(OSError, match="not permitted") as caught:
        act(mount / "special")
    assert caught.value.errno == errno.EPERM


def test_a_bug_is_an_io_error_and_the_mount_lives(mountpoint):
    with daemon(mountpoint) as process:
        with pytest.raises(OSError, match="Input/output error"):
            (mountpoint / "broken").read_bytes()
        assert (mountpoint / "hello").read_bytes() == b"hello\n"
        messages = stop(process)
    assert "ValueError: a bug" in messages
    assert "fail-safe mode" in messages


def test_a_request_that_hangs_times_out(mountpoint):
    with daemon(mountpoint, deadline_s=5.0):
        with pytest.raises(TimeoutError):
            (mountpoint / "hang").read_bytes()
        assert (mountpoint / "hello").read_bytes() == b"hello\n"


def test_kept_pages_are_dropped_when_the_document_changes(mount):
    with (mount / "kept").open("rb", buffering=0) as reader:
        assert reader.read() == b"one\n"
        (mount / "change").read_bytes()
        reader.seek(0)
        assert reader.read() == b"two\n"


def test_sigterm_unmounts(mountpoint):
    with daemon(mountpoint) as process:
        assert stop(process) == ""
        assert mount_at(mountpoint) is None


def test_a_waiting_program_is_released_when_the_daemon_ends(mountpoint):
    with daemon(mountpoint) as process, subprocess.Popen(["cat", mountpoint / "hang"], stderr=subprocess.PIPE) as cat:
        stop(process)
        assert cat.wait(timeout=120) == 1


def test_umount_by_hand_ends_the_daemon(mountpoint):
    with daemon(mountpoint) as process:
        assert run("umount", mountpoint).returncode == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0
        assert mount_at(mountpoint) is None


def test_after_a_kill_the_mount_is_dead_until_the_next_start(mountpoint):
    with daemon(mountpoint) as process:
        process.kill()
        process.wait()
        with pytest.raises(OSError, match="not connected"):
            os.listdir(mountpoint)
        assert is_mounted(mountpoint)
        assert not is_answering(mountpoint)
        with daemon(mountpoint) as second:
            assert (mountpoint / "hello").read_bytes() == b"hello\n"
            stop(second)
        assert mount_at(mountpoint) is None


def test_recovery_leaves_the_living_and_the_strange_alone(mount, work_dir):
    assert recover_stale_mount(mount) is False
    assert is_answering(mount)
    assert recover_stale_mount(work_dir) is False


def test_a_mount_point_is_an_empty_directory_of_its_own(mount, work_dir):
    places = work_dir / "places"
    (places / "full" / "file").mkdir(parents=True)
    (places / "link").symlink_to("full")
    (places / "file").touch()
    for path, reason in {
        mount: "already mounted",
        places / "full": "not empty",
        places / "link": "symbolic link",
        places / "file": "not a directory",
        places / "missing": "No such file",
    }.items():
        with pytest.raises(InvalidRequest, match=reason):
            check_mountpoint(path)
