"""The protocol adapter, request by request, without a mount."""

from __future__ import annotations

import errno
import os
import stat
from types import SimpleNamespace

import pyfuse3
import pytest

from opfs.commit.failsafe import FailSafe
from opfs.errors import InvalidRequest, NotFound, Rejected
from opfs.fuse.errnos import FUSEError
from opfs.fuse.inodes import ROOT
from opfs.fuse.operations import Operations
from opfs.testing.tree import Broken, MemoryDirectory, MemoryFile, MemoryHandle
from opfs.vfs.node import FOREVER, Symlink

ME = SimpleNamespace(uid=1000, gid=1000, pid=0, umask=0o022)


class Mount:
    """Operations over a small tree, with what it was told of refusals."""

    def __init__(self) -> None:
        self.file = MemoryFile(("a",), bytearray(b"hello\n"), uid=1000, gid=1000, xattrs={"user.x": b"1"})
        self.root = MemoryDirectory((), {"a": self.file, "link": Symlink(("link",), "a")})
        self.refused = []
        self.operations = Operations(
            self.root,
            failsafe=FailSafe(),
            space=lambda: os.statvfs("/"),
            refused=lambda error, key, caller: self.refused.append((error, key, caller)),
        )

    @property
    def inodes(self):
        return self.operations.inodes

    async def lookup(self, name: bytes = b"a") -> int:
        return (await self.operations.lookup(ROOT, name, ME)).st_ino

    async def open(self, flags: int = os.O_RDWR) -> int:
        return (await self.operations.open(await self.lookup(), flags, ME)).fh


class Unreadable(MemoryFile):
    async def attributes(self, caller):
        raise OSError(errno.EUCLEAN, "damaged")


@pytest.fixture
def mount():
    return Mount()


async def failing(request):
    with pytest.raises(FUSEError) as caught:
        await request
    return caught.value.errno


# --- inodes --------------------------------------------------------------------------------------------


async def test_equal_keys_are_one_inode_until_all_lookups_are_forgotten(mount):
    first, second = await mount.lookup(), await mount.lookup()
    assert first == second != ROOT
    await mount.operations.forget([(first, 1)])
    assert mount.inodes.node(first) is mount.file
    await mount.operations.forget([(first, 1)])
    assert await failing(mount.operations.getattr(first, ME)) == errno.ESTALE
    assert await mount.lookup() == first


async def test_the_root_is_never_forgotten(mount):
    await mount.operations.forget([(ROOT, 5)])
    assert (await mount.operations.getattr(ROOT, ME)).st_ino == ROOT


async def test_an_open_file_survives_a_forget(mount):
    fh = await mount.open()
    inode = mount.inodes.number_of(("a",))
    await mount.operations.forget([(inode, 1)])
    assert await mount.operations.read(fh, 0, 100) == b"hello\n"
    await mount.operations.release(fh)
    assert len(mount.inodes) == 1


async def test_a_removed_name_gets_another_inode(mount):
    inode = await mount.lookup()
    await mount.operations.unlink(ROOT, b"a", ME)
    _, entry = await mount.operations.create(ROOT, b"a", 0o644, os.O_RDWR, ME)
    assert entry.st_ino != inode
    assert mount.inodes.node(inode) is mount.file


async def test_a_name_that_becomes_a_directory_gets_another_inode(mount):
    inode = await mount.lookup()
    mount.root.children["a"] = MemoryDirectory(("a",))
    assert await mount.lookup() != inode


async def test_a_renamed_file_keeps_its_inode_and_what_it_replaced_loses_the_name(mount):
    mount.root.children["b"] = MemoryFile(("b",), bytearray(b"old"))
    inode, replaced = await mount.lookup(), await mount.lookup(b"b")
    await mount.operations.rename(ROOT, b"a", ROOT, b"b", 0, ME)
    assert await mount.lookup(b"b") == inode != replaced
    assert mount.inodes.node(replaced) is not mount.inodes.node(inode)
    assert await failing(mount.operations.lookup(ROOT, b"a", ME)) == errno.ENOENT


# --- names ---------------------------------------------------------------------------------------------


async def test_what_does_not_exist_is_enoent_and_no_refusal(mount):
    assert await failing(mount.operations.lookup(ROOT, b"nope", ME)) == errno.ENOENT
    assert await failing(mount.operations.lookup(ROOT, b"\xff", ME)) == errno.ENOENT
    assert mount.refused == []


async def test_a_name_that_is_not_utf8_is_refused_with_a_reason(mount):
    assert await failing(mount.operations.create(ROOT, b"\xff", 0o644, os.O_RDWR, ME)) == errno.EINVAL
    [(error, key, caller)] = mount.refused
    assert "UTF-8" in error.reason
    assert key == ("\\xff",)
    assert caller.uid == 1000


async def test_create_opens_with_mode_and_owner(mount):
    info, entry = await mount.operations.create(ROOT, b"new", stat.S_IFREG | 0o640, os.O_WRONLY, ME)
    assert (entry.st_mode, entry.st_uid) == (stat.S_IFREG | 0o640, 1000)
    assert await mount.operations.write(info.fh, 0, b"data") == 4
    assert mount.root.children["new"].content == b"data"


async def test_create_that_cannot_be_answered_leaves_nothing_open(mount):
    file = Unreadable(("making", "x"))

    class Making(MemoryDirectory):
        async def create(self, name, mode, flags, caller):
            return file, await file.open(flags, caller)

    mount.root.children["making"] = Making(("making",))
    parent = await mount.lookup(b"making")
    assert await failing(mount.operations.create(parent, b"x", 0o644, os.O_RDWR, ME)) == errno.EUCLEAN
    assert file.calls == ["open", "release"]


@pytest.mark.parametrize(
    "request_of",
    [
        lambda ops: ops.mkdir(ROOT, b"d", 0o755, ME),
        lambda ops: ops.rmdir(ROOT, b"d", ME),
        lambda ops: ops.symlink(ROOT, b"s", b"a", ME),
        lambda ops: ops.link(ROOT, ROOT, b"h", ME),
        lambda ops: ops.mknod(ROOT, b"p", stat.S_IFIFO, 0, ME),
    ],
    ids=["mkdir", "rmdir", "symlink", "link", "mknod"],
)
async def test_only_files_are_made(mount, request_of):
    assert await failing(request_of(mount.operations)) == errno.EPERM
    [(error, _, _)] = mount.refused
    assert isinstance(error, Rejected)


async def test_readlink(mount):
    assert await mount.operations.readlink(await mount.lookup(b"link"), ME) == b"a"
    assert await failing(mount.operations.readlink(await mount.lookup(), ME)) == errno.ELOOP


# --- attributes ----------------------------------------------------------------------------------------


async def test_attributes_and_cache_times_are_the_nodes(mount):
    mount.file.policy = FOREVER
    entry = await mount.operations.lookup(ROOT, b"a", ME)
    assert (entry.st_size, entry.st_uid, entry.st_nlink, entry.st_mtime_ns) == (6, 1000, 1, 1_000_000_000)
    assert entry.entry_timeout == entry.attr_timeout == FOREVER.entry_timeout_s
    assert (await mount.operations.getattr(ROOT, ME)).attr_timeout == 0


def wanted(**values):
    attributes, fields = pyfuse3.EntryAttributes(), {name: False for name in FIELDS}
    for name, value in values.items():
        setattr(attributes, f"st_{name}", value)
        fields[f"update_{name.removesuffix('_ns')}"] = True
    return attributes, SimpleNamespace(**fields)


FIELDS = [f"update_{name}" for name in ("atime", "mtime", "ctime", "mode", "uid", "gid", "size")]


async def test_setattr_changes_what_it_was_asked_to(mount):
    asked = wanted(mode=stat.S_IFREG | 0o600, uid=5, mtime_ns=7)
    entry = await mount.operations.setattr(await mount.lookup(), *asked, None, ME)
    assert (entry.st_mode, entry.st_uid, entry.st_gid, entry.st_mtime_ns) == (stat.S_IFREG | 0o600, 5, 1000, 7)
    assert mount.file.content == b"hello\n"


async def test_truncate_by_name_is_the_nodes_and_by_descriptor_the_handles(mount):
    fh = await mount.open()
    inode = mount.inodes.number_of(("a",))
    assert (await mount.operations.setattr(inode, *wanted(size=4), None, ME)).st_size == 4
    assert (await mount.operations.setattr(inode, *wanted(size=2, mtime_ns=9), fh, ME)).st_size == 2
    assert mount.file.calls == ["open", "set_attributes", "ftruncate 2", "set_attributes"]
    assert mount.file.mtime_ns == 9


@pytest.mark.parametrize(
    ("uid", "mode", "granted"),
    [(1000, os.R_OK | os.W_OK, True), (1000, os.X_OK, False), (1, os.R_OK, True), (1, os.W_OK, False),
     (0, os.W_OK, True), (0, os.X_OK, False), (1, os.F_OK, True)],
)  # fmt: skip
async def test_access_follows_the_mode_bits(mount, uid, mode, granted):
    context = SimpleNamespace(uid=uid, gid=uid, pid=0, umask=0)
    assert await mount.operations.access(await mount.lookup(), mode, context) is granted


async def test_statfs_gives_the_pools_numbers(mount):
    space, reply = os.statvfs("/"), await mount.operations.statfs(ME)
    assert (reply.f_blocks, reply.f_frsize, reply.f_namemax) == (space.f_blocks, space.f_frsize, 255)


async def test_extended_attributes(mount):
    inode = await mount.lookup()
    assert await mount.operations.listxattr(inode, ME) == [b"user.x"]
    await mount.operations.setxattr(inode, b"user.y", b"2", ME)
    assert await mount.operations.getxattr(inode, b"user.y", ME) == b"2"
    await mount.operations.removexattr(inode, b"user.y", ME)
    assert await failing(mount.operations.getxattr(inode, b"user.y", ME)) == errno.ENODATA
    assert await failing(mount.operations.removexattr(inode, b"user.y", ME)) == errno.ENODATA
    assert await failing(mount.operations.getxattr(inode, b"security.selinux", ME)) == errno.EOPNOTSUPP
    assert await failing(mount.operations.setxattr(inode, b"system.posix_acl_access", b"", ME)) == errno.EOPNOTSUPP


# --- files ---------------------------------------------------------------------------------------------


async def test_open_says_what_the_kernel_may_keep(mount):
    info = await mount.operations.open(await mount.lookup(), os.O_RDONLY, ME)
    assert (info.direct_io, info.keep_cache) == (False, False)
    mount.file.policy, mount.file.direct_io = FOREVER, True
    info = await mount.operations.open(await mount.lookup(), os.O_RDONLY, ME)
    assert (info.direct_io, info.keep_cache) == (True, True)


async def test_a_file_is_flushed_synced_and_released(mount):
    fh = await mount.open()
    await mount.operations.flush(fh)
    await mount.operations.fsync(fh, False)
    await mount.operations.release(fh)
    assert mount.file.calls == ["open", "flush", "fsync", "release"]


async def test_closed_and_invented_handles_are_ebadf(mount):
    fh = await mount.open()
    await mount.operations.release(fh)
    assert await failing(mount.operations.read(fh, 0, 1)) == errno.EBADF
    assert await failing(mount.operations.flush(99)) == errno.EBADF
    assert await failing(mount.operations.releasedir(99)) == errno.EBADF
    assert await failing(mount.operations.fsync(99, True)) == errno.EBADF


async def test_a_refused_write_is_noted_with_its_path_and_the_opener(mount):
    class Refusing(MemoryHandle):
        async def write(self, offset, data, caller):
            raise InvalidRequest("not JSON")

    async def refusing():
        return Refusing(mount.file)

    mount.root.children["a"] = Broken(("a",), refusing)
    fh = await mount.open()
    assert await failing(mount.operations.write(fh, 0, b"x")) == errno.EINVAL
    [(error, key, caller)] = mount.refused
    assert (error.reason, key, caller.uid) == ("not JSON", ("a",), 1000)


# --- listings ------------------------------------------------------------------------------------------


@pytest.fixture
def page(monkeypatch):
    """A reply that takes three entries, as the kernel's buffer takes so many bytes."""
    taken = []

    def reply(token, name, attributes, next_id):
        if len(taken) == 3:
            return False
        taken.append((name, attributes, next_id))
        return True

    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)
    return taken


async def read_page(mount, fh, start, page):
    page.clear()
    await mount.operations.readdir(fh, start, None)
    return [name for name, _, _ in page]


async def test_a_listing_is_complete_whatever_the_size_of_a_page(mount, page):
    for number in range(5):
        mount.root.children[f"f{number}"] = MemoryFile((f"f{number}",))
    fh = await mount.operations.opendir(ROOT, ME)
    names, position = [], 0
    while await read_page(mount, fh, position, page):
        names += [name for name, _, _ in page]
        position = page[-1][2]
    assert names == [b".", b"..", b"a", b"link", b"f0", b"f1", b"f2", b"f3", b"f4"]


async def test_only_entries_that_fit_count_as_lookups(mount, page):
    fh = await mount.operations.opendir(ROOT, ME)
    assert await read_page(mount, fh, 0, page) == [b".", b"..", b"a"]
    assert mount.inodes.number_of(("a",)) == page[2][1].st_ino
    assert mount.inodes.number_of(("link",)) is None


async def test_a_listing_does_not_change_until_it_is_rewound(mount, page):
    fh = await mount.operations.opendir(ROOT, ME)
    await read_page(mount, fh, 0, page)
    mount.root.children["zzz"] = MemoryFile(("zzz",))
    assert await read_page(mount, fh, 3, page) == [b"link"]
    await read_page(mount, fh, 0, page)
    assert await read_page(mount, fh, 3, page) == [b"link", b"zzz"]
    await mount.operations.releasedir(fh)
    await mount.operations.fsyncdir(fh, False)


async def test_a_name_that_goes_away_or_fails_does_not_spoil_the_listing(mount, page):
    class Gone(MemoryFile):
        async def attributes(self, caller):
            raise NotFound("gone")

    mount.root.children = {"gone": Gone(("gone",)), "bad": Unreadable(("bad",))}
    fh = await mount.operations.opendir(ROOT, ME)
    assert await read_page(mount, fh, 2, page) == [b"bad"]
    assert page[0][1].attr_timeout == 0


async def test_a_file_is_not_listed_and_a_directory_not_opened(mount):
    assert await failing(mount.operations.opendir(await mount.lookup(), ME)) == errno.ENOTDIR
    assert await failing(mount.operations.open(ROOT, os.O_RDONLY, ME)) == errno.EACCES


async def test_an_open_that_fails_opens_nothing(mount):
    async def fail():
        raise Rejected("no")

    mount.root.children["broken"] = Broken(("broken",), fail)
    assert await failing(mount.operations.open(await mount.lookup(b"broken"), os.O_RDONLY, ME)) == errno.EPERM
    assert mount.operations._files == {}
