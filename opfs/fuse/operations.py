"""The protocol adapter: inode numbers, handles and bytes in; nodes asked; attributes out.

It decides nothing about the tree (opfs.vfs) and maps no errors (opfs.fuse.errnos). Trio thread only; one task
per request, interleaved wherever a node awaits.

What the kernel does for us: permission checks (`default_permissions`), the umask, and locking of a directory
during a change in it. What it does not: `read`, `write`, `flush`, `fsync` and `release` carry no caller, so
whoever opened the file stands for it, and `getattr` carries no file handle.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from errno import EACCES, EBADF, ELOOP, ENODATA, ENOTDIR, EOPNOTSUPP
from itertools import count
from typing import TYPE_CHECKING, TypeVar

import pyfuse3
import trio

from opfs.errors import InvalidRequest, NotFound, OpfsError
from opfs.fuse.caller import caller_of, groups_of
from opfs.fuse.errnos import AnsweredOperations, Deadlines
from opfs.fuse.inodes import Inodes
from opfs.vfs.node import AttributeChanges, Attributes, CachePolicy, Directory, File, Symlink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from opfs.commit.failsafe import FailSafe
    from opfs.vfs.node import Caller, Handle, Node, NodeKey

    Refused = Callable[[OpfsError, NodeKey, Caller], None]
    """Told of every request that was refused, with the path it was about."""

_OF_HANDLES = frozenset({"read", "write", "flush", "fsync", "release", "readdir", "releasedir", "fsyncdir"})
_IN_DIRECTORIES = frozenset({"lookup", "create", "unlink", "rename", "mkdir", "rmdir", "symlink", "mknod"})
_USER_NAMESPACE = b"user."
RENAME_EXCHANGE = 2
_Type = TypeVar("_Type")


@dataclass(slots=True)
class _OpenFile:
    handle: Handle
    node: File
    inode: int
    caller: Caller


@dataclass(slots=True)
class _OpenDirectory:
    """A listing: fixed when it was opened, so that positions in it mean the same until it is closed."""

    node: Directory
    inode: int
    caller: Caller
    entries: list[tuple[bytes, Node | None]] = field(default_factory=list)
    is_fresh: bool = False

    async def load(self) -> None:
        listing = await self.node.entries(self.caller)
        self.entries = [(b".", None), (b"..", None), *((name.encode(), node) for name, node in listing)]
        self.is_fresh = True


class Operations(AnsweredOperations):
    """All requests of the FUSE protocol that pyfuse3 passes on.

    `space` gives the pool's numbers for statfs. `refused` hears of every OpfsError that is answered, but not of
    names that do not exist: programs look for those all the time. The writeback cache stays off: it reports
    write errors to nobody.
    """

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(
        self,
        root: Directory,
        *,
        failsafe: FailSafe,
        space: Callable[[], os.statvfs_result],
        refused: Refused,
        deadlines: Deadlines | None = None,
    ) -> None:
        super().__init__(failsafe, deadlines or Deadlines())
        self.inodes = Inodes(root)
        self._space = space
        self._refused = refused
        self._files: dict[int, _OpenFile] = {}
        self._directories: dict[int, _OpenDirectory] = {}
        self._handle_numbers = count(1)

    # --- names ---------------------------------------------------------------------------------------

    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        caller = caller_of(ctx)
        try:
            text = _text(name)
        except InvalidRequest as error:
            raise NotFound(error.reason) from None
        node = await self._directory(parent_inode).lookup(text, caller)
        return await self._entry(node, caller)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, lookup_count in inode_list:
            self.inodes.forget(inode, lookup_count)

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        caller = caller_of(ctx)
        node, handle = await self._directory(parent_inode).create(_text(name), mode & 0o7777, flags, caller)
        try:
            entry = await self._entry(node, caller)
        except BaseException:
            with trio.CancelScope(shield=True):
                await handle.release()
            raise
        return self._opened(handle, node, entry.st_ino, caller), entry

    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        directory = self._directory(parent_inode)
        await directory.unlink(_text(name), caller_of(ctx))
        self.inodes.detach((*directory.key, _text(name)))

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        caller = caller_of(ctx)
        source, target = self._directory(parent_inode_old), self._directory(parent_inode_new)
        await source.rename(_text(name_old), target, _text(name_new), flags, caller)
        old_key, new_key = (*source.key, _text(name_old)), (*target.key, _text(name_new))
        if flags & RENAME_EXCHANGE:
            old, new = await source.lookup(_text(name_old), caller), await target.lookup(_text(name_new), caller)
            self.inodes.exchange(old, new)
            return
        try:
            self.inodes.move(old_key, await target.lookup(_text(name_new), caller))
        except NotFound:
            self.inodes.detach(new_key)
        self.inodes.detach(old_key)

    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        await self._directory(parent_inode).refuse_special("directory")

    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        directory = self._directory(parent_inode)
        await directory.rmdir(_text(name), caller_of(ctx))
        self.inodes.detach((*directory.key, _text(name)))

    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        await self._directory(parent_inode).refuse_special("symbolic link")

    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        await self._directory(new_parent_inode).refuse_special("hard link")

    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        await self._directory(parent_inode).refuse_special("special file")

    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return self._node(inode, Symlink, ELOOP).target.encode()

    # --- attributes ----------------------------------------------------------------------------------

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        node = self.inodes.node(inode)
        return _reply(inode, await node.attributes(caller_of(ctx)), node.cache)

    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Truncate through the open file where there is one: its draft is private to it.

        pyfuse3 has already put the time of day in for UTIME_NOW.
        """
        node, caller = self.inodes.node(inode), caller_of(ctx)
        handle = self._file(fh).handle if fh is not None else None
        size = attr.st_size if fields.update_size else None
        if handle is not None and size is not None:
            await handle.truncate(size, caller)
            size = None
        changes = AttributeChanges(
            mode=attr.st_mode & 0o7777 if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=size,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        if changes != AttributeChanges():
            await node.set_attributes(changes, handle, caller)
        return _reply(inode, await node.attributes(caller), node.cache)

    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        """Asked only where the kernel does not check permissions itself, so the rules are the kernel's."""
        caller = caller_of(ctx)
        attributes = await self.inodes.node(inode).attributes(caller)
        if mode == os.F_OK:
            return True
        if caller.uid == 0:
            return not mode & os.X_OK or attributes.is_directory or attributes.mode & 0o111 != 0
        if caller.uid == attributes.uid:
            granted = attributes.mode >> 6
        elif attributes.gid in groups_of(caller):
            granted = attributes.mode >> 3
        else:
            granted = attributes.mode
        return mode & ~granted & 0o7 == 0

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        space, reply = self._space(), pyfuse3.StatvfsData()
        for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"):
            setattr(reply, name, getattr(space, name))
        reply.f_namemax = 255
        return reply

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        value = await self.inodes.node(inode).get_xattr(_attribute(name), caller_of(ctx))
        if value is None:
            raise OSError(ENODATA, os.strerror(ENODATA))
        return value

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        return [name.encode() for name in await self.inodes.node(inode).list_xattrs(caller_of(ctx))]

    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self.inodes.node(inode).set_xattr(_attribute(name), value, caller_of(ctx))

    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self.getxattr(inode, name, ctx)
        await self.inodes.node(inode).remove_xattr(_attribute(name), caller_of(ctx))

    # --- files ---------------------------------------------------------------------------------------

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        node, caller = self._node(inode, File, EACCES), caller_of(ctx)
        return self._opened(await node.open(flags, caller), node, inode, caller)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await self._file(fh).handle.read(off, size)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        file = self._file(fh)
        return await file.handle.write(off, buf, file.caller)

    async def flush(self, fh: int) -> None:
        file = self._file(fh)
        await file.handle.flush(file.caller)

    async def fsync(self, fh: int, datasync: bool) -> None:
        file = self._file(fh)
        await file.handle.fsync(file.caller)

    async def release(self, fh: int) -> None:
        file = self._file(fh)
        del self._files[fh]
        self.inodes.released(file.inode)
        await file.handle.release()

    # --- directories ---------------------------------------------------------------------------------

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        listing = _OpenDirectory(self._directory(inode), inode, caller_of(ctx))
        await listing.load()
        number = next(self._handle_numbers)
        self._directories[number] = listing
        self.inodes.opened(inode)
        return number

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Names and attributes together (readdirplus): one round trip instead of one per entry."""
        listing = self._listing(fh)
        if start_id == 0 and not listing.is_fresh:
            await listing.load()  # rewinddir(3) shows what is there now
        listing.is_fresh = False
        for position in range(start_id, len(listing.entries)):
            name, node = listing.entries[position]
            if node is None:
                if not pyfuse3.readdir_reply(token, name, _reply(listing.inode, _DOT, _UNKNOWN), position + 1):
                    break
                continue
            attributes, policy = await _listed(node, listing.caller)
            if attributes is None:
                continue
            # no await from here to the reply: the kernel's count of lookups and ours change together
            inode = self.inodes.remember(node)
            if not pyfuse3.readdir_reply(token, name, _reply(inode, attributes, policy), position + 1):
                self.inodes.forget(inode, 1)
                break

    async def releasedir(self, fh: int) -> None:
        self.inodes.released(self._listing(fh).inode)
        del self._directories[fh]

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """What changed a directory was durable when it returned."""

    # --- refusals ------------------------------------------------------------------------------------

    def note_refusal(self, handler: str, arguments: Sequence[Any], error: OpfsError) -> None:
        if handler == "lookup" and isinstance(error, NotFound):
            return
        if handler in _OF_HANDLES:
            place = self._files.get(arguments[0]) or self._directories.get(arguments[0])
            if place is not None:
                self._refused(error, place.node.shown, place.caller)
            return
        key = self.inodes.node(arguments[0]).shown
        if handler in _IN_DIRECTORIES:
            key = (*key, arguments[1].decode(errors="backslashreplace"))
        self._refused(error, key, caller_of(arguments[-1]))

    def caller_pid(self, handler: str, arguments: Sequence[Any]) -> int:
        """The caller where the request names one, else who opened the file or the directory."""
        if handler in _OF_HANDLES:
            place = self._files.get(arguments[0]) or self._directories.get(arguments[0])
            return place.caller.pid if place is not None else 0
        context = arguments[-1]
        return context.pid if isinstance(context, pyfuse3.RequestContext) else 0

    # --- inside --------------------------------------------------------------------------------------

    def _node(self, inode: int, kind: type[_Type], otherwise: int) -> _Type:
        node = self.inodes.node(inode)
        if not isinstance(node, kind):
            raise OSError(otherwise, os.strerror(otherwise))
        return node

    def _directory(self, inode: int) -> Directory:
        return self._node(inode, Directory, ENOTDIR)

    def _file(self, number: int) -> _OpenFile:
        if number not in self._files:
            raise OSError(EBADF, os.strerror(EBADF))
        return self._files[number]

    def _listing(self, number: int) -> _OpenDirectory:
        if number not in self._directories:
            raise OSError(EBADF, os.strerror(EBADF))
        return self._directories[number]

    def _opened(self, handle: Handle, node: File, inode: int, caller: Caller) -> pyfuse3.FileInfo:
        number = next(self._handle_numbers)
        self._files[number] = _OpenFile(handle, node, inode, caller)
        self.inodes.opened(inode)
        return pyfuse3.FileInfo(fh=number, direct_io=handle.direct_io, keep_cache=node.cache.keep_pages)

    async def _entry(self, node: Node, caller: Caller) -> pyfuse3.EntryAttributes:
        attributes = await node.attributes(caller)
        return _reply(self.inodes.remember(node), attributes, node.cache)


_DOT = Attributes(mode=0o040555)
_UNKNOWN = CachePolicy()


async def _listed(node: Node, caller: Caller) -> tuple[Attributes | None, CachePolicy]:
    """Attributes for a listing: None if the name is gone; unreadable ones do not hide the other names."""
    try:
        return await node.attributes(caller), node.cache
    except (NotFound, FileNotFoundError):
        return None, _UNKNOWN
    except (OpfsError, OSError):
        return Attributes(mode=0o040000 if isinstance(node, Directory) else 0o100000), _UNKNOWN


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"the name {name!r} is not UTF-8") from None


def _attribute(name: bytes) -> str:
    """Only `user.` attributes exist here; ENOTSUP for the others lets ls and cp stop asking."""
    if not name.startswith(_USER_NAMESPACE):
        raise OSError(EOPNOTSUPP, os.strerror(EOPNOTSUPP))
    return _text(name)


def _reply(inode: int, attributes: Attributes, policy: CachePolicy) -> pyfuse3.EntryAttributes:
    reply = pyfuse3.EntryAttributes()
    reply.st_ino = inode
    reply.entry_timeout = policy.entry_timeout_s
    reply.attr_timeout = policy.attr_timeout_s
    reply.st_mode = attributes.mode
    reply.st_nlink = attributes.nlink
    reply.st_uid = attributes.uid
    reply.st_gid = attributes.gid
    reply.st_size = attributes.size
    reply.st_blocks = (attributes.size + 511) // 512 if attributes.blocks is None else attributes.blocks
    reply.st_atime_ns = attributes.atime_ns
    reply.st_mtime_ns = attributes.mtime_ns
    reply.st_ctime_ns = attributes.ctime_ns
    return reply
