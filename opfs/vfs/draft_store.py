"""The disk under the drafts: ordinary files in a tree that is the daemon's alone.

Knows no documents and no callers. Does blocking I/O; any thread may call any method. The tree has mode 0700 and no
links in it; every name is resolved below an open directory without following one.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.errors import InvalidRequest
from opfs.ports import FileAttributes

if TYPE_CHECKING:
    from pathlib import Path

# Not O_APPEND: the kernel gives the offset, and it alone knows when fcntl(2) took the flag back.
_KEPT_FLAGS = os.O_ACCMODE | os.O_TRUNC | os.O_SYNC | os.O_DSYNC
_SAFE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class DraftContent:
    """A draft read as a whole, to become a document; `is_cut` if it is longer than was asked for."""

    content: bytes
    attributes: FileAttributes
    is_cut: bool
    xattrs: dict[str, bytes]


class DraftStore:
    """Real files in `<root>/<plugin>/`, made on demand."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._directories: dict[str, int] = {}

    def close(self) -> None:
        with self._lock:
            for descriptor in self._directories.values():
                os.close(descriptor)
            self._directories.clear()

    # --- names -------------------------------------------------------------------------------------------

    def names(self, plugin: str) -> list[str]:
        try:
            # through a description of its own: on btrfs one that is kept ends at the last name there was before
            descriptor = os.open(".", _DIRECTORY_FLAGS, dir_fd=self._directory(plugin))
        except FileNotFoundError:
            return []
        try:
            found = os.listdir(descriptor)
        finally:
            os.close(descriptor)
        return [name for name in found if _is_text(name)]

    def stat(self, plugin: str, name: str) -> os.stat_result:
        return os.stat(_checked(name), dir_fd=self._directory(plugin), follow_symlinks=False)

    def exists(self, plugin: str, name: str) -> bool:
        try:
            self.stat(plugin, name)
        except FileNotFoundError:
            return False
        return True

    def unlink(self, plugin: str, name: str) -> None:
        os.unlink(_checked(name), dir_fd=self._directory(plugin))

    def rename(self, plugin: str, name: str, target_plugin: str, target_name: str, flags: int) -> None:
        """`flags` as renameat2(2)."""
        source, target = self._directory(plugin), self._directory(target_plugin, make=True)
        if flags:
            names = (os.fsencode(_checked(name)), os.fsencode(_checked(target_name)))
            if _libc.renameat2(source, names[0], target, names[1], flags) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), name)
        else:
            os.rename(_checked(name), _checked(target_name), src_dir_fd=source, dst_dir_fd=target)

    # --- files -------------------------------------------------------------------------------------------

    def create(self, plugin: str, name: str, flags: int, mode: int, owner: tuple[int, int]) -> int:
        """Open a new file owned by `owner`, or, unless O_EXCL is among the flags, the one that is there."""
        directory = self._directory(plugin, make=True)
        opening = flags & _KEPT_FLAGS | _SAFE_FLAGS
        try:
            descriptor = os.open(_checked(name), opening | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            return self.open(plugin, name, flags)
        try:
            os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode & 0o7777)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def open(self, plugin: str, name: str, flags: int) -> int:
        return os.open(_checked(name), flags & _KEPT_FLAGS | _SAFE_FLAGS, dir_fd=self._directory(plugin))

    def reopen(self, descriptor: int, flags: int) -> int:
        """Another descriptor of a file that may have no name any more."""
        return os.open(f"/proc/self/fd/{descriptor}", flags & _KEPT_FLAGS | _SAFE_FLAGS & ~os.O_NOFOLLOW)

    def put(self, plugin: str, name: str, content: bytes, attributes: FileAttributes, flags: int) -> None:
        """Make a draft of `content`, in one step, over what has that name unless RENAME_NOREPLACE is given."""
        incoming = self._directory("", make=True)
        temporary = f".incoming-{secrets.token_hex(8)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE_FLAGS, 0o600, dir_fd=incoming)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchown(descriptor, attributes.uid, attributes.gid)
                os.fchmod(descriptor, attributes.mode)
                os.utime(descriptor, ns=(attributes.mtime_ns, attributes.mtime_ns))
            self.rename("", temporary, plugin, name, flags)
        except BaseException:
            os.unlink(temporary, dir_fd=incoming)
            raise

    def read(self, plugin: str, name: str, limit_bytes: int) -> DraftContent:
        """The whole of a draft, or its first `limit_bytes`, with what belongs to it."""
        descriptor = self.open(plugin, name, os.O_RDONLY)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            content = file.read(limit_bytes + 1)
            xattrs = {x: os.getxattr(descriptor, x) for x in os.listxattr(descriptor) if x.startswith("user.")}
        attributes = FileAttributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)
        return DraftContent(content[:limit_bytes], attributes, len(content) > limit_bytes, xattrs)

    # --- inside ------------------------------------------------------------------------------------------

    def _directory(self, plugin: str, *, make: bool = False) -> int:
        """The open directory of a plugin, "" for the root; raises FileNotFoundError unless `make`."""
        with self._lock:
            if plugin not in self._directories:
                path = self._root / plugin if plugin else self._root
                if make:
                    self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                    path.mkdir(mode=0o700, exist_ok=True)
                descriptor = os.open(path, _DIRECTORY_FLAGS)
                os.fchmod(descriptor, 0o700)
                self._directories[plugin] = descriptor
            return self._directories[plugin]


def _checked(name: str) -> str:
    """The name, if it is one path component."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InvalidRequest(f"{name!r} is not the name of a file")
    return name


def _is_text(name: str) -> bool:
    """Whether the name is UTF-8 on disk; nothing else is made through the mount."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
