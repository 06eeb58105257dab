"""What a program may do with modes, owners, times and extended attributes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from behaviour import OLD_NS, OLDER_NS, Place, Seen, behaviour, opened, put, shape, told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@behaviour
def modes_and_owners(at: Place) -> Seen:
    path = put(at / "x")
    seen: Seen = []
    for mode in (0o600, 0o777, 0o4755, 0o2750, 0o1644, 0):
        os.chmod(path, mode)
        seen.append(oct(path.stat().st_mode))
    os.chmod(path, 0o6755)
    os.chown(path, 1234, -1)
    seen.append(shape(path.stat()))
    os.chown(path, -1, 4321)
    seen.append(shape(path.stat()))
    with opened(path, os.O_RDWR) as file:
        os.fchown(file, 0, 0)
        os.fchmod(file, 0o640)
        seen.append(shape(os.fstat(file)))
    return [*seen, told(os.chmod, at / "missing", 0o600), told(os.chown, at / "missing", 0, 0)]


@behaviour
def setting_times(at: Place) -> Seen:
    path = put(at / "x")
    os.utime(path, ns=(OLD_NS, OLDER_NS))
    status = path.stat()
    seen = [status.st_atime_ns, status.st_mtime_ns]
    with opened(path, os.O_WRONLY) as file:
        os.utime(file, ns=(OLDER_NS, OLD_NS))
        seen += [os.fstat(file).st_atime_ns, os.fstat(file).st_mtime_ns]
    os.utime(path, ns=(-1_500_000_000, 7_000_000_000_000_000_000))  # before 1970, and after 2038
    seen += [path.stat().st_atime_ns, path.stat().st_mtime_ns]
    before = path.stat().st_ctime_ns
    os.utime(path)
    return [*seen, path.stat().st_mtime_ns > before - 10**9, path.stat().st_ctime_ns >= before]


@behaviour
def times_that_change_by_themselves(at: Place) -> Seen:
    path = put(at / "x")

    def changed(do: Callable[[], Any]) -> Seen:
        os.utime(path, ns=(OLD_NS, OLD_NS))
        before = path.stat().st_ctime_ns
        do()
        status = path.stat()
        return [status.st_mtime_ns != OLD_NS, status.st_ctime_ns >= before]

    def write() -> None:
        with opened(path, os.O_WRONLY) as file:
            os.write(file, b"x")

    def truncate_open() -> None:
        with opened(path, os.O_WRONLY | os.O_TRUNC):
            pass

    return [
        changed(write),
        changed(lambda: os.truncate(path, 3)),
        changed(truncate_open),
        changed(lambda: os.chmod(path, 0o600)),
        changed(lambda: os.rename(path, path)),
        changed(path.read_bytes),
    ]


@behaviour
def extended_attributes(at: Place) -> Seen:
    path = put(at / "x")
    os.setxattr(path, "user.a", b"1")
    seen = [
        os.getxattr(path, "user.a"),
        told(os.setxattr, path, "user.a", b"2", os.XATTR_CREATE),
        told(os.setxattr, path, "user.b", b"2", os.XATTR_REPLACE),
        told(os.setxattr, path, "user.a", b"3", os.XATTR_REPLACE),
        told(os.getxattr, path, "user.missing"),
        told(os.removexattr, path, "user.missing"),
        told(os.setxattr, path, "user.empty", b""),
        told(os.getxattr, path, "user.empty"),
        told(os.setxattr, path, "user.big", b"x" * 3000),
        len(os.getxattr(path, "user.big")),
        sorted(name for name in os.listxattr(path) if name.startswith("user.")),
    ]
    with opened(path, os.O_RDWR) as file:
        os.removexattr(file, "user.big")
        os.unlink(path)
        os.setxattr(file, "user.late", b"still")
        return [*seen, sorted(name for name in os.listxattr(file) if name.startswith("user."))]


@behaviour
def who_may(at: Place) -> Seen:
    """What another user is allowed, by the mode of the file."""
    path = put(at / "x")
    seen: Seen = []
    for mode in (0o600, 0o604, 0o606, 0o602):
        os.chmod(path, mode)
        seen.append(as_nobody(lambda: _tries(path)))
    os.chown(path, NOBODY, NOBODY)
    os.chmod(path, 0o400)
    return [*seen, as_nobody(lambda: _tries(path)), shape(path.stat())]


NOBODY = 65534


def _tries(path: Path) -> Seen:
    seen: Seen = []
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        found = told(os.open, path, flags)
        seen.append("open" if isinstance(found, int) else found)
        if isinstance(found, int):
            os.close(found)
    return [
        *seen,
        os.access(path, os.R_OK),
        os.access(path, os.W_OK),
        told(os.chmod, path, 0o640),
        told(os.chown, path, 0, 0),
        told(os.utime, path, ns=(OLD_NS, OLD_NS)),
        told(os.utime, path),
        told(os.truncate, path, 5),
    ]


def as_nobody(do: Callable[[], Seen]) -> Seen:
    """What an unprivileged process sees; a child, because capabilities do not come back."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(write, repr(do()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        seen = pipe.read().decode()
    os.waitpid(child, 0)
    return [seen]
