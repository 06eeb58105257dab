"""What the read-only parts of the tree are made of: fixed directories, and files written when they are opened.

Knows no subject; the modules beside it do. Trio thread only.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from opfs.errors import NotFound, ReadOnly
from opfs.vfs.node import FOREVER, Attributes, CachePolicy, Directory, File, Handle, Node

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from opfs.vfs.node import Caller


def is_writing(flags: int) -> bool:
    """Whether open(2) was asked for a file to be written, or emptied."""
    return flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC != 0


@dataclass(slots=True, eq=False)
class ContentHandle(Handle):
    """An open file whose whole content is known."""

    content: bytes

    async def read(self, offset: int, size: int) -> bytes:
        return self.content[offset : offset + size]


@dataclass(slots=True)
class GeneratedFile(File):
    """A file whose content is made for whoever opens it, and is that until it is closed.

    Its size is unknown before, so it shows 0 as files below /proc do, and is read past the page cache.
    """

    generate: Callable[[Caller], Awaitable[bytes]]
    time_ns: int = field(default=0, kw_only=True)

    async def attributes(self, caller: Caller) -> Attributes:
        return Attributes(
            mode=stat.S_IFREG | 0o444, atime_ns=self.time_ns, mtime_ns=self.time_ns, ctime_ns=self.time_ns
        )

    async def open(self, flags: int, caller: Caller) -> Handle:
        if is_writing(flags):
            raise ReadOnly(f"/{'/'.join(self.key)} is only read")
        return ContentHandle(await self.generate(caller), direct_io=True)


@dataclass(slots=True)
class FixedFile(File):
    """A file that never changes while the daemon runs."""

    content: bytes
    time_ns: int = field(default=0, kw_only=True)

    @property
    def cache(self) -> CachePolicy:
        return FOREVER

    async def attributes(self, caller: Caller) -> Attributes:
        return Attributes(
            mode=stat.S_IFREG | 0o444,
            size=len(self.content),
            atime_ns=self.time_ns,
            mtime_ns=self.time_ns,
            ctime_ns=self.time_ns,
        )

    async def open(self, flags: int, caller: Caller) -> Handle:
        if is_writing(flags):
            raise ReadOnly(f"/{'/'.join(self.key)} is only read")
        return ContentHandle(self.content)


@dataclass(slots=True)
class ReadOnlyDirectory(Directory):
    """A directory in which nothing is made, removed or renamed, with a name and attributes that stay.

    The kernel may keep both: a path below it then costs no round trip for each component. What is *in* it
    is asked for every time. One link, which find(1) takes for "subdirectories not counted".
    """

    time_ns: int = field(default=0, kw_only=True)

    @property
    def cache(self) -> CachePolicy:
        return FOREVER

    async def attributes(self, caller: Caller) -> Attributes:
        return Attributes(
            mode=stat.S_IFDIR | 0o555, atime_ns=self.time_ns, mtime_ns=self.time_ns, ctime_ns=self.time_ns
        )

    async def rmdir(self, name: str, caller: Caller) -> None:
        raise ReadOnly(f"nothing is removed from /{'/'.join(self.key)}")

    async def refuse_special(self, what: str) -> NoReturn:
        raise ReadOnly(f"nothing is made in /{'/'.join(self.key)}", hint="documents belong in /state/<plugin>/")


@dataclass(slots=True)
class FixedDirectory(ReadOnlyDirectory):
    """A directory whose entries are known when the daemon starts, listed in the order given."""

    nodes: dict[str, Node]

    async def lookup(self, name: str, caller: Caller) -> Node:
        if name not in self.nodes:
            raise NotFound(f"/{'/'.join((*self.key, name))} does not exist", hint=f"there is {', '.join(self.nodes)}")
        return self.nodes[name]

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        return self.nodes.items()
