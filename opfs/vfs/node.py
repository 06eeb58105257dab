"""The vocabulary of the mounted tree: nodes, handles, attributes, callers. Knows no FUSE.

A node is what a path names; a handle is what an open returns. The FUSE adapter maps nodes to inodes by
`Node.key`, so two nodes with equal keys are one inode. Everything runs on the trio thread; methods are
`async` because a subclass may wait for the commit path, a worker thread or the index. Methods raise
`opfs.errors.OpfsError` or, where an ordinary file lies beneath (drafts, blocks), `OSError`.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from opfs.errors import NotFound, ReadOnly, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable

NodeKey = tuple[str, ...]
"""The path of a node below the mount point, one string per component."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the kernel says: effective uid and gid, thread id in the daemon's pid namespace, umask."""

    uid: int
    gid: int
    pid: int
    umask: int = 0o022


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat(2) shows. `mode` includes the file type; sizes in bytes; times in ns since the epoch.

    `blocks` are the 512 bytes that stat(2) counts in; None: as many as the size takes.
    """

    mode: int
    size: int = 0
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    blocks: int | None = None

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True, slots=True)
class AttributeChanges:
    """What chmod, chown, truncate and utimensat ask for; None leaves a field as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long the kernel may keep a name and its attributes, and whether file pages survive a close.

    A fleeting name is one of any number that somebody may think of: the kernel is asked to forget it before there are
    too many (opfs.fuse.crowd).
    """

    entry_timeout_s: float = 0.0
    attr_timeout_s: float = 0.0
    keep_pages: bool = False
    is_fleeting: bool = False


NEVER = CachePolicy()
FLEETING = CachePolicy(is_fleeting=True)
NAMED = CachePolicy(entry_timeout_s=86_400.0)
FOREVER = CachePolicy(entry_timeout_s=86_400.0, attr_timeout_s=86_400.0, keep_pages=True)


@dataclass(slots=True, eq=False)
class Handle:
    """One open file, equal only to itself. The defaults are those of a file that cannot be written.

    `direct_io` makes the kernel hand every read and write through, without its page cache.
    """

    direct_io: bool = field(default=False, kw_only=True)

    async def read(self, offset: int, size: int) -> bytes:
        raise NotImplementedError

    async def write(self, offset: int, data: bytes, caller: Caller) -> int:
        raise ReadOnly("nothing is written here", hint="write below /state or to /ctl")

    async def truncate(self, size: int, caller: Caller) -> None:
        raise ReadOnly("nothing is written here", hint="write below /state or to /ctl")

    async def flush(self, caller: Caller) -> None:
        """Once per closed descriptor, so more than once per open; with nothing new it does nothing."""

    async def fsync(self, caller: Caller) -> None:
        """Make what was written durable, or say why not."""

    async def release(self) -> None:
        """The last descriptor is gone; an error from here reaches nobody."""


@dataclass(slots=True)
class Node:
    """What a path names."""

    key: NodeKey

    @property
    def cache(self) -> CachePolicy:
        return NEVER

    @property
    def shown(self) -> NodeKey:
        """The path as people know it, for records of refusals; a key has more where users have nodes of their own."""
        return self.key

    async def attributes(self, caller: Caller) -> Attributes:
        raise NotImplementedError

    async def set_attributes(self, changes: AttributeChanges, handle: Handle | None, caller: Caller) -> None:
        raise ReadOnly("this file's attributes do not change", hint="only files below /state have their own")

    async def list_xattrs(self, caller: Caller) -> Iterable[str]:
        return ()

    async def get_xattr(self, name: str, caller: Caller) -> bytes | None:
        """The value, or None where there is no such attribute."""
        return None

    async def set_xattr(self, name: str, value: bytes, caller: Caller) -> None:
        raise ReadOnly(f"the attribute {name} is not set here")

    async def remove_xattr(self, name: str, caller: Caller) -> None:
        """Called for one that is there; unless a subclass says otherwise, set to nothing is removed."""
        await self.set_xattr(name, b"", caller)


@dataclass(slots=True)
class Symlink(Node):
    """A symbolic link; `target` is relative to the directory that holds it."""

    target: str
    time_ns: int = field(default=0, kw_only=True)

    async def attributes(self, caller: Caller) -> Attributes:
        return Attributes(
            mode=stat.S_IFLNK | 0o777,
            size=len(self.target.encode()),
            atime_ns=self.time_ns,
            mtime_ns=self.time_ns,
            ctime_ns=self.time_ns,
        )


@dataclass(slots=True)
class File(Node):
    """A regular file."""

    async def open(self, flags: int, caller: Caller) -> Handle:
        """`flags` as open(2)."""
        raise NotImplementedError


@dataclass(slots=True)
class Directory(Node):
    """A directory. What changes it is refused unless a subclass says otherwise."""

    async def attributes(self, caller: Caller) -> Attributes:
        return Attributes(mode=stat.S_IFDIR | 0o755, nlink=2)

    async def lookup(self, name: str, caller: Caller) -> Node:
        """The child called `name`; raises NotFound."""
        raise NotFound(f"{'/'.join((*self.key, name))} does not exist")

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        """Name and node of every child that a listing shows, without `.` and `..`."""
        return ()

    async def create(self, name: str, mode: int, flags: int, caller: Caller) -> tuple[File, Handle]:
        """Create and open a regular file; `mode` has the umask applied."""
        raise ReadOnly(f"no files are made in /{'/'.join(self.key)}", hint="documents belong in /state/<plugin>/")

    async def unlink(self, name: str, caller: Caller) -> None:
        raise ReadOnly(f"nothing is removed from /{'/'.join(self.key)}")

    async def rename(self, name: str, target: Directory, target_name: str, flags: int, caller: Caller) -> None:
        """`flags` as renameat2(2)."""
        raise ReadOnly(f"nothing is renamed in /{'/'.join(self.key)}")

    async def rmdir(self, name: str, caller: Caller) -> None:
        raise Rejected(
            f"/{'/'.join((*self.key, name))} is not removed", hint="directories come and go with plugins and blocks"
        )

    async def refuse_special(self, what: str) -> NoReturn:
        """mkdir, symlink, link and mknod end here; always raises."""
        raise Rejected(f"a {what} cannot be made here", hint="the tree holds JSON documents only")
