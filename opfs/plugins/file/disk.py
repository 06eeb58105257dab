"""Files, directories and links of the host, reached without being led astray: look, replace, remove.

A path is walked one component at a time from the root, each held by a descriptor. The file itself may not
be a symbolic link. A directory on the way may be one only if root owns the link: what another user could
turn elsewhere is refused. Trees of opfs itself are out of bounds, whatever links lead there. Blocking: call
in worker threads. Calls for different paths may run concurrently; owners are given as names.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from blake3 import blake3

from opfs.errors import ApplyFailed
from opfs.plugins.file.durable import Reached, held

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from opfs.plugins.file.durable import Barrier, Change

CONTENT_LIMIT_BYTES = 1 << 20
"""Larger files are observed by their digest alone."""

_CHUNK_BYTES = 1 << 20
_LINKS_MAX = 40
"""As the kernel's own limit (path_resolution(7))."""
_DIRECTORY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a path: `kind` is file, directory, symlink or other; content only of a small file."""

    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    digest: str = ""
    content: bytes | None = None
    target: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A name in a directory that is held open; valid inside `HostFiles.place`."""

    path: str
    directory: int
    name: str


class HostFiles:
    """The host's files but for the trees that are opfs' own."""

    def __init__(self, forbidden: Collection[str]) -> None:
        self._forbidden = tuple(os.path.realpath(tree) for tree in forbidden)

    @contextmanager
    def place(self, path: str) -> Iterator[Place]:
        """Hold the directory of `path` open. Raises ApplyFailed if the way there is not safe or not there."""
        parent, _, name = path.rpartition("/")
        directory = _walk(path, [part for part in parent.split("/") if part])
        try:
            self._check_free(path, os.readlink(f"/proc/self/fd/{directory}"), name)
            yield Place(path, directory, name)
        finally:
            os.close(directory)

    def _check_free(self, path: str, directory: str, name: str) -> None:
        real = directory.rstrip("/") + "/" + name
        for tree in self._forbidden:
            if real == tree or real.startswith(tree + "/"):
                raise ApplyFailed(f"{path} is inside {tree}, which is opfs' own", hint="choose another path")

    @contextmanager
    def looking(self) -> Iterator[Callable[[str], Found | None]]:
        """A function that says what is at a path; None where nothing is, or where its directory is not.

        It holds the directory of the last path open, so that many paths, in order, are found quickly.
        """
        parent, directory, real = "", -1, ""

        def look(path: str) -> Found | None:
            nonlocal parent, directory, real
            above, _, name = path.rpartition("/")
            if directory < 0 or above != parent:
                if directory >= 0:
                    os.close(directory)
                    directory = -1
                try:
                    directory = _walk(path, [part for part in above.split("/") if part])
                except MissingDirectory:
                    return None
                parent, real = above, os.readlink(f"/proc/self/fd/{directory}")
            self._check_free(path, real, name)
            return look_at(Place(path, directory, name))

        try:
            yield look
        finally:
            if directory >= 0:
                os.close(directory)


class MissingDirectory(ApplyFailed):
    """A directory on the way to a file is not there."""


def _walk(path: str, parts: list[str]) -> int:
    """Open the directory that `parts` lead to from the root, following only links that root owns."""
    parts = list(reversed(parts))
    current = os.open("/", _DIRECTORY | os.O_DIRECTORY)
    links_count = 0
    try:
        while parts:
            part = parts.pop()
            try:
                below = os.open(part, _DIRECTORY, dir_fd=current)
            except FileNotFoundError:
                where = os.path.join(os.readlink(f"/proc/self/fd/{current}"), part)
                raise MissingDirectory(f"the directory {where} of {path} is not there", hint="make it first") from None
            except OSError as error:
                raise ApplyFailed(f"{path} cannot be reached at {part!r}: {error.strerror}") from error
            status = os.fstat(below)
            if stat.S_ISDIR(status.st_mode):
                os.close(current)
                current = below
                continue
            try:
                if not stat.S_ISLNK(status.st_mode):
                    raise ApplyFailed(f"{part!r} on the way to {path} is not a directory")
                links_count += 1
                if status.st_uid != 0 or links_count > _LINKS_MAX:
                    raise ApplyFailed(
                        f"{part!r} on the way to {path} is a symbolic link that root does not own or that goes round",
                        hint="give the path without links",
                    )
                target = os.readlink("", dir_fd=below)
            finally:
                os.close(below)
            parts.extend(reversed([step for step in target.split("/") if step]))
            if target.startswith("/"):
                os.close(current)
                current = os.open("/", _DIRECTORY | os.O_DIRECTORY)
        return current
    except BaseException:
        os.close(current)
        raise


def look_at(place: Place) -> Found | None:
    """What is at a place; the content of a file is read in full for its digest."""
    status = _status(place)
    if status is None:
        return None
    if not stat.S_ISREG(status.st_mode):
        kind = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}.get(stat.S_IFMT(status.st_mode), "other")
        target = os.readlink(place.name, dir_fd=place.directory) if kind == "symlink" else ""
        return Found(kind, status.st_mode & 0o7777, status.st_uid, status.st_gid, target=target)
    with open_file(place) as file:
        status = os.fstat(file.fileno())
        hasher = blake3()
        content: bytes | None = b""
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
            content = content + chunk if content is not None else None
            if content is not None and len(content) > CONTENT_LIMIT_BYTES:
                content = None
    return Found("file", status.st_mode & 0o7777, status.st_uid, status.st_gid, hasher.hexdigest(), content)


@contextmanager
def open_file(place: Place) -> Iterator[BinaryIO]:
    """Open a regular file for reading, never a link, a device or a pipe."""
    try:
        descriptor = os.open(place.name, _READ, dir_fd=place.directory)
    except OSError as error:
        raise ApplyFailed(f"{place.path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ApplyFailed(f"{place.path} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def replace_file(
    place: Place,
    source: BinaryIO,
    mode: int,
    uid: int,
    gid: int,
    barrier: Barrier,
    *,
    check_cancelled: Callable[[], None] = lambda: None,
    before: Callable[[str], None] = lambda digest: None,
) -> Change[str]:
    """Put the bytes of `source` at a place, atomically and durably; gives their digest.

    `source` is read to its end before the first barrier. `before` is told the digest when the new file is written and
    not yet in its place, and holds what must be durable with it. A crash leaves the old file whole, and at most a
    temporary one beside it, which the next call removes.
    """
    check_replaceable(place)
    hasher = blake3()
    temporary = _temporary(place)
    try:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=place.directory)
        try:
            with held(os.open(temporary, _NEW, 0o600, dir_fd=place.directory), barrier) as written:
                while chunk := source.read(_CHUNK_BYTES):
                    check_cancelled()
                    hasher.update(chunk)
                    write_all(written, chunk)
                os.fchown(written, uid, gid)
                os.fchmod(written, mode)
            before(hasher.hexdigest())
            yield Reached.PREPARED
            os.rename(temporary, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=place.directory)
            raise
        barrier.hold(_open_directory(place))
    except OSError as error:
        raise ApplyFailed(f"{place.path} cannot be written: {error.strerror}") from error
    yield Reached.CHANGED
    return hasher.hexdigest()


def make_directory(place: Place, mode: int, uid: int, gid: int, barrier: Barrier) -> Change[bool]:
    """Make a directory, or set the attributes of the one that is there, durably; gives whether it is new."""
    status = _status(place)
    if status is not None and not stat.S_ISDIR(status.st_mode):
        raise ApplyFailed(f"{place.path} is there already and is no directory", hint="remove it first")
    try:
        if status is None:
            os.mkdir(place.name, 0o700, dir_fd=place.directory)
        barrier.hold(_open_directory(place))
    except OSError as error:
        raise ApplyFailed(f"{place.path} cannot be made: {error.strerror}") from error
    yield from set_attributes(place, mode, uid, gid, barrier)
    return status is None


def replace_link(place: Place, target: str, barrier: Barrier, uid: int = 0, gid: int = 0) -> Change[None]:
    """Put a symbolic link at a place, atomically and durably, over nothing or another link."""
    status = _status(place)
    if status is not None and not stat.S_ISLNK(status.st_mode):
        raise ApplyFailed(f"{place.path} is there already and is no symbolic link", hint="remove it first")
    temporary = _temporary(place)
    try:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=place.directory)
        os.symlink(target, temporary, dir_fd=place.directory)
        os.chown(temporary, uid, gid, dir_fd=place.directory, follow_symlinks=False)
        os.rename(temporary, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory)
        barrier.hold(_open_directory(place))
    except OSError as error:
        raise ApplyFailed(f"{place.path} cannot be linked: {error.strerror}") from error
    yield Reached.CHANGED


def set_attributes(place: Place, mode: int | None, uid: int | None, gid: int | None, barrier: Barrier) -> Change[None]:
    """Change owner and mode of a regular file or a directory; None leaves one as it is."""
    try:
        descriptor = os.open(place.name, _READ, dir_fd=place.directory)
    except OSError as error:
        raise ApplyFailed(f"{place.path} cannot be opened: {error.strerror}") from error
    try:
        with held(descriptor, barrier):
            if not stat.S_ISREG(os.fstat(descriptor).st_mode) and not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise ApplyFailed(f"{place.path} is neither a regular file nor a directory")
            os.fchown(descriptor, -1 if uid is None else uid, -1 if gid is None else gid)
            if mode is not None:
                # Last: a change of owner clears the set-user-ID bits.
                os.fchmod(descriptor, mode)
    except OSError as error:
        raise ApplyFailed(f"the attributes of {place.path} cannot be set: {error.strerror}") from error
    yield Reached.CHANGED


def remove_file(place: Place, barrier: Barrier, kind: str = "file") -> Change[bool]:
    """Remove a regular file, a link or an empty directory, durably; gives whether there was one."""
    status = _status(place)
    if status is None:
        return False
    is_kind = {"file": stat.S_ISREG, "directory": stat.S_ISDIR, "symlink": stat.S_ISLNK}[kind]
    if not is_kind(status.st_mode):
        check_replaceable(place)
        raise ApplyFailed(f"{place.path} is no {kind}", hint="it is left alone")
    try:
        (os.rmdir if kind == "directory" else os.unlink)(place.name, dir_fd=place.directory)
        barrier.hold(_open_directory(place))
    except OSError as error:
        raise ApplyFailed(f"{place.path} cannot be removed: {error.strerror}") from error
    yield Reached.CHANGED
    return True


def check_replaceable(place: Place) -> None:
    """Raise ApplyFailed unless there is a regular file or nothing."""
    status = _status(place)
    if status is None or stat.S_ISREG(status.st_mode):
        return
    what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
    raise ApplyFailed(f"{place.path} is {what}", hint="remove it first, or give the path it leads to")


def _temporary(place: Place) -> str:
    """The same name each time, so that what a crash left does not pile up."""
    return f".opfs-{blake3(place.name.encode()).hexdigest()[:16]}"


def user_id(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ApplyFailed(f"this host has no user {name!r}") from None


def group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ApplyFailed(f"this host has no group {name!r}") from None


def user_name(uid: int) -> str | int:
    """The name, or the number itself where the host has no name for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return uid


def group_name(gid: int) -> str | int:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return gid


def _status(place: Place) -> os.stat_result | None:
    try:
        return os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte, whatever a single call takes."""
    written = memoryview(content)
    while written:
        written = written[os.write(descriptor, written) :]


def _open_directory(place: Place) -> int:
    """A descriptor that can be synced, which the held one, of the O_PATH kind, cannot."""
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place.directory)
