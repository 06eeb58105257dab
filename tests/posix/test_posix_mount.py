"""What the mount does where it is not a plain directory: what it refuses, big directories, listings that change."""

from __future__ import annotations

import errno
import json
import mmap
import os
import resource
import socket
import stat
import subprocess
import threading

import pytest

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse")

MANY = 2_000


@pytest.fixture
def state(opfs):
    return opfs.mount / "state" / "noop"


def refuses(number, do, *arguments):
    with pytest.raises(OSError, match=r"\[Errno") as refused:
        do(*arguments)
    assert refused.value.errno == number, errno.errorcode[refused.value.errno]


def test_only_regular_files(state):
    (state / "draft").write_bytes(b"x")
    refuses(errno.EPERM, os.mkdir, state / "directory")
    refuses(errno.EPERM, os.symlink, "/etc/passwd", state / "link")
    refuses(errno.EPERM, os.symlink, "/etc/passwd", state / "link.json")
    refuses(errno.EPERM, os.link, state / "draft", state / "second-name")
    refuses(errno.EPERM, os.mkfifo, state / "fifo")
    refuses(errno.EPERM, os.mknod, state / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as listener:
        refuses(errno.EPERM, listener.bind, str(state / "socket"))
    assert not {"directory", "link", "link.json", "second-name", "fifo", "device", "socket"} & set(os.listdir(state))


def test_names_that_are_no_text(state):
    refuses(errno.EINVAL, os.open, bytes(state) + b"/\xff", os.O_CREAT | os.O_WRONLY)
    refuses(errno.ENOENT, os.stat, bytes(state) + b"/\xff")


def test_space_set_aside_is_not_supported_and_said_so(state):
    """The protocol library passes no fallocate(2) on; posix_fallocate(3) then writes zeros itself."""
    with (state / "preallocated").open("w+b") as file:
        os.posix_fallocate(file.fileno(), 0, 10_000)
        assert os.fstat(file.fileno()).st_size == 10_000
        assert file.read() == bytes(10_000)


def test_limits_of_a_process_hold(state):
    """RLIMIT_FSIZE is the kernel's, which has to learn the size of the file from us."""
    path = state / "limited"
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
            with path.open("wb", buffering=0) as file:
                assert file.write(b"x" * 9000) == 5000
                try:
                    file.write(b"y")
                except OSError as error:
                    outcome = 0 if error.errno == errno.EFBIG else 2
        finally:
            os._exit(outcome)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert path.stat().st_size == 5000


def test_drafts_move_between_plugins_with_what_is_open_of_them(opfs, state):
    here, there = state / "moving", opfs.mount / "state" / "file" / "moved"
    here.write_bytes(b"before")
    with here.open("r+b", buffering=0) as file:
        inode = os.fstat(file.fileno()).st_ino
        here.rename(there)
        file.write(b"AFTER!")
        assert there.read_bytes() == b"AFTER!"
        assert there.stat().st_ino == inode
    assert not here.exists()
    refuses(errno.EROFS, os.rename, there, opfs.mount / "chain" / "moved")
    there.unlink()


def test_a_document_is_appended_to_as_a_whole(opfs):
    """`>>` adds to the document; only what is one object again is committed."""
    path = opfs.path("noop/appended")
    opfs.sh("""echo '{"a": 1}' > state/noop/appended.json""")
    with path.open("ab", buffering=0) as file, pytest.raises(OSError, match="Invalid"):
        file.write(b'{"b": 2}')
    assert opfs.get("noop/appended") == {"a": 1}
    with path.open("ab", buffering=0) as file:
        file.write(b"\n\n")
    assert path.read_bytes() == b'{"a": 1}\n\n\n'


def test_documents_are_mapped_for_reading(opfs):
    """Privately: pages of a document in /state that processes share would be cut where a writer truncates its own."""
    for number in (1, 2):
        opfs.put("noop/mapped", n=number, filler="x" * 9000)
        with opfs.path("noop/mapped").open("rb") as file, mapped_privately(file) as mapped:
            assert mapped[:] == opfs.path("noop/mapped").read_bytes()
            assert json.loads(mapped[:])["n"] == number
    block = opfs.mount / "chain" / "HEAD" / "state" / "noop" / "mapped.json"
    with block.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert json.loads(mapped[:])["n"] == 2


def mapped_privately(file):
    return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)


def test_a_writer_cuts_nobody_elses_reading(opfs):
    """While one truncates and writes over and over, every reading is one whole version, large ones too."""
    path = opfs.path("noop/cut")
    opfs.put("noop/cut", n=0, filler="0" * 300_000)
    stop = threading.Event()

    def write():
        number = 1
        while not stop.is_set():
            opfs.put("noop/cut", n=number, filler=f"{number % 10}" * 300_000)
            number += 1

    writing = threading.Thread(target=write)
    writing.start()
    try:
        for _ in range(20):
            seen = subprocess.run(["cat", path], capture_output=True, check=True).stdout
            document = json.loads(seen)
            assert set(document["filler"]) == {f"{document['n'] % 10}"}
            assert len(document["filler"]) == 300_000
    finally:
        stop.set()
        writing.join()


def test_listing_while_names_come_and_go(state):
    """What is there all the time is listed exactly once; each other name at most once."""
    kept = {f"kept{number:03d}" for number in range(300)}
    for name in kept:
        (state / name).write_bytes(b"")
    stop = threading.Event()

    def change():
        number = 0
        while not stop.is_set():
            (state / f"coming{number % 50}").write_bytes(b"x")
            (state / f"coming{number % 50}").rename(state / f"going{number % 40}")
            (state / f"going{(number * 7) % 40}").unlink(missing_ok=True)
            number += 1

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(15):
            listed = os.listdir(state)
            assert kept <= set(listed)
            assert len(listed) == len(set(listed))
            with os.scandir(state) as entries:
                assert kept <= {entry.name for entry in entries if entry.is_file()}
    finally:
        stop.set()
        changing.join()


def test_what_is_removed_while_listed_is_not_listed_twice(state):
    """`rm *` of many: reading and removing in turns sees every name."""
    names = {f"gone{number:04d}" for number in range(500)}
    for name in names:
        (state / name).write_bytes(b"")
    seen = []
    with os.scandir(state) as entries:
        for entry in entries:
            if entry.name in names:
                seen.append(entry.name)
                os.unlink(entry.path)
    assert sorted(seen) == sorted(names)
    assert not names & set(os.listdir(state))


def test_a_big_directory(opfs):
    state = opfs.mount / "state" / "lxc"
    for number in range(MANY):
        os.close(os.open(state / f"big{number:05d}", os.O_CREAT | os.O_WRONLY, 0o644))
    assert len(os.listdir(state)) == MANY
    assert opfs.sh("ls -f state/lxc | grep -c big").stdout.strip() == str(MANY)
    assert (state / f"big{MANY - 1:05d}").stat().st_size == 0
    opfs.sh("find state/lxc -name 'big*' -delete")
    assert os.listdir(state) == []
