"""A small writable tree in memory, to drive the FUSE adapter without documents, blocks or plugins.

Ordinary files with POSIX manners, and `Broken`, a file whose every use raises what a test asks for. Trio
thread only.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opfs.errors import NotFound
from opfs.vfs.node import Attributes, CachePolicy, Directory, File, Handle, Node

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from opfs.vfs.node import AttributeChanges, Caller


@dataclass(slots=True)
class MemoryHandle(Handle):
    """An open `MemoryFile`; `calls` on the file tells what was asked of it."""

    file: MemoryFile

    async def read(self, offset: int, size: int) -> bytes:
        return bytes(self.file.content[offset : offset + size])

    async def write(self, offset: int, data: bytes, caller: Caller) -> int:
        self.file.calls.append(f"write {offset}+{len(data)}")
        end = offset + len(data)
        self.file.content.extend(bytes(max(0, end - len(self.file.content))))
        self.file.content[offset:end] = data
        return len(data)

    async def truncate(self, size: int, caller: Caller) -> None:
        self.file.calls.append(f"ftruncate {size}")
        self.file.resize(size)

    async def flush(self, caller: Caller) -> None:
        self.file.calls.append("flush")

    async def fsync(self, caller: Caller) -> None:
        self.file.calls.append("fsync")

    async def release(self) -> None:
        self.file.calls.append("release")


@dataclass(slots=True)
class MemoryFile(File):
    """Content, attributes and extended attributes in memory."""

    content: bytearray = field(default_factory=bytearray)
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 1_000_000_000
    policy: CachePolicy = field(default_factory=CachePolicy)
    direct_io: bool = False
    xattrs: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    @property
    def cache(self) -> CachePolicy:
        return self.policy

    def resize(self, size: int) -> None:
        del self.content[size:]
        self.content.extend(bytes(size - len(self.content)))

    async def attributes(self, caller: Caller) -> Attributes:
        return Attributes(
            mode=stat.S_IFREG | self.mode,
            size=len(self.content),
            uid=self.uid,
            gid=self.gid,
            mtime_ns=self.mtime_ns,
        )

    async def set_attributes(self, changes: AttributeChanges, handle: Handle | None, caller: Caller) -> None:
        self.calls.append("set_attributes")
        if changes.size is not None:
            self.resize(changes.size)
        for name in ("mode", "uid", "gid", "mtime_ns"):
            if (value := getattr(changes, name)) is not None:
                setattr(self, name, value)

    async def open(self, flags: int, caller: Caller) -> Handle:
        self.calls.append("open truncating" if flags & os.O_TRUNC else "open")
        if flags & os.O_TRUNC:
            self.content.clear()
        return MemoryHandle(self, direct_io=self.direct_io)

    async def list_xattrs(self, caller: Caller) -> Iterable[str]:
        return self.xattrs

    async def get_xattr(self, name: str, caller: Caller) -> bytes | None:
        return self.xattrs.get(name)

    async def set_xattr(self, name: str, value: bytes, caller: Caller) -> None:
        if value:
            self.xattrs[name] = value
        else:
            self.xattrs.pop(name, None)


@dataclass(slots=True)
class MemoryDirectory(Directory):
    """Children in a dict that a test may fill; files can be made, renamed within it and removed."""

    children: dict[str, Node] = field(default_factory=dict)

    async def lookup(self, name: str, caller: Caller) -> Node:
        if name not in self.children:
            raise NotFound(f"{name} does not exist")
        return self.children[name]

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        return list(self.children.items())

    async def create(self, name: str, mode: int, flags: int, caller: Caller) -> tuple[File, Handle]:
        file = MemoryFile((*self.key, name), mode=mode, uid=caller.uid, gid=caller.gid)
        self.children[name] = file
        return file, await file.open(flags, caller)

    async def unlink(self, name: str, caller: Caller) -> None:
        await self.lookup(name, caller)
        del self.children[name]

    async def rename(self, name: str, target: Directory, target_name: str, flags: int, caller: Caller) -> None:
        assert target is self
        node = await self.lookup(name, caller)
        del self.children[name]
        node.key = (*self.key, target_name)
        self.children[target_name] = node


@dataclass(slots=True)
class Broken(File):
    """A file whose `open` does what the test wants: raise, hang, answer."""

    on_open: Callable[[], Awaitable[Handle]]

    async def attributes(self, caller: Caller) -> Attributes:
        return Attributes(mode=stat.S_IFREG | 0o644)

    async def open(self, flags: int, caller: Caller) -> Handle:
        return await self.on_open()
