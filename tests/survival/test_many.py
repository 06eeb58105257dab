"""Many open files and many writers: all are served, and nothing of them stays behind."""

from __future__ import annotations

import json
import os
import resource
import stat
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from opfs.commit.failsafe import FailSafe
from opfs.fuse.inodes import ROOT
from opfs.fuse.operations import Operations
from opfs.testing.tree import MemoryDirectory, MemoryFile
from opfs.vfs.draft_store import DraftStore
from opfs.vfs.drafts import Drafts

MANY_FILES = 10_000
MANY_WRITERS = 1_000
ME = SimpleNamespace(uid=0, gid=0, pid=0, umask=0o022)

needs_mount = pytest.mark.needs("root", "btrfs", "loop", "fuse")


@contextmanager
def room_for_open_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, MANY_FILES + 1000), max(hard, MANY_FILES + 1000)))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@needs_mount
def test_ten_thousand_open_files(fresh):
    """Half documents, half drafts; each reads what it ought to."""
    for number in range(10):
        fresh.put(f"noop/many{number}", n=number)
    drafts = [fresh.mount / "state" / "noop" / f"many{number}.draft" for number in range(10)]
    for number, draft in enumerate(drafts):
        draft.write_text(f"draft {number}")
    with room_for_open_files():
        files = []
        try:
            for index in range(MANY_FILES // 2):
                number = index % 10
                files.append((os.open(fresh.path(f"noop/many{number}"), os.O_RDONLY), f'{{"n": {number}}}'))
                files.append((os.open(drafts[number], os.O_RDWR), f"draft {number}"))
            assert len(files) == MANY_FILES
            for file, content in files[::97]:
                assert os.pread(file, 100, 0).decode() == content
            fresh.put("noop/many0", n="written meanwhile")
        finally:
            for file, _ in files:
                os.close(file)
    # the daemon's own descriptors of the drafts are closed when their releases have come
    descriptors = f"/proc/{fresh.daemon()}/fd"
    give_up_at = time.monotonic() + 240
    while len(os.listdir(descriptors)) > 200:
        assert time.monotonic() < give_up_at, f"{len(os.listdir(descriptors))} files are still open"
        assert fresh.get("noop/many1") == {"n": 1}
    assert fresh.get("noop/many0") == {"n": "written meanwhile"}


@needs_mount
def test_a_thousand_writers_at_once(fresh):
    before = len(fresh.blocks())
    barrier = threading.Barrier(MANY_WRITERS)
    failures = []

    def write(number):
        barrier.wait()
        try:
            fresh.put(f"noop/w{number}", n=number)
        except OSError as error:
            failures.append(error)

    # a writer needs little stack; the default would take 8 GiB of addresses
    old = threading.stack_size(256 << 10)
    try:
        writers = [threading.Thread(target=write, args=(number,)) for number in range(MANY_WRITERS)]
        for writer in writers:
            writer.start()
    finally:
        threading.stack_size(old)
    for writer in writers:
        writer.join()
    assert failures == []
    assert len(fresh.blocks()) - before < MANY_WRITERS / 2
    documents = sorted((fresh.mount / "state" / "noop").glob("w*.json"))
    assert [json.loads(document.read_bytes())["n"] for document in documents] == [
        int(document.stem[1:]) for document in documents
    ]
    assert len(documents) == MANY_WRITERS


async def test_nothing_is_remembered_of_what_the_kernel_forgot(tmp_path):
    """10,000 drafts and files looked up, opened, renamed, removed, released and forgotten, in several orders."""

    async def have_room(size):
        pass

    drafts = Drafts(DraftStore(tmp_path / "drafts"), lambda: None, have_room)
    files = {f"f{number}": MemoryFile((f"f{number}",), bytearray(b"x")) for number in range(100)}

    class Directory(MemoryDirectory):
        async def lookup(self, name, caller):
            if name.startswith("d") and drafts.store.exists("p", name):
                return drafts.file("p", name)
            return await super().lookup(name, caller)

        async def create(self, name, mode, flags, caller):
            return await drafts.create("p", name, mode, flags, caller)

        async def unlink(self, name, caller):
            await drafts.unlink("p", name)

    operations = Operations(
        Directory(("state", "p"), files), failsafe=FailSafe(), space=lambda: os.statvfs("/"), refused=lambda *_: None
    )
    known = []
    for number in range(1000):
        info, entry = await operations.create(ROOT, b"d%d" % number, 0o644, os.O_RDWR, ME)
        await operations.write(info.fh, 0, b"draft")
        looked_up = await operations.lookup(ROOT, b"d%d" % number, ME)
        assert looked_up.st_ino == entry.st_ino
        if number % 2:
            await operations.unlink(ROOT, b"d%d" % number, ME)
            again, replaced = await operations.create(ROOT, b"d%d" % number, 0o600, os.O_RDWR, ME)
            assert replaced.st_ino != entry.st_ino
            assert stat.S_IMODE((await operations.getattr(entry.st_ino, ME)).st_mode) == 0o644
            await operations.release(again.fh)
            known.append((replaced.st_ino, 1))
        if number % 3:
            await operations.forget([(entry.st_ino, 2)])
            await operations.release(info.fh)
        else:
            await operations.release(info.fh)
            known.append((entry.st_ino, 2))
        for name in (b"f%d" % (number % 100),):
            known.append(((await operations.lookup(ROOT, name, ME)).st_ino, 1))
    await operations.forget(known)
    assert len(operations.inodes) == 1
    assert len(operations._files) == len(operations._directories) == 0
    assert len(drafts._named) == 0
    drafts.store.close()
    assert [name for name in os.listdir("/proc/self/fd") if _leads_to(name, tmp_path)] == []


def _leads_to(descriptor, path):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(path))
    except OSError:
        return False
