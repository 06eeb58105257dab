"""What a program may do with files in one directory, each behaviour as a function that returns what it saw.

A behaviour is run in a plain directory of the pool's file system and among the drafts of the mount, and has to see
the same. It makes names that start with its prefix only, and tells errors by their names. Times are compared by
what they do, never by what they are.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Seen = list[Any]


@dataclass(frozen=True)
class Place:
    """Names in `directory` that start with `prefix`: `at / "x"` is one; drafts have no directories to be apart in."""

    directory: Path
    prefix: str

    def __truediv__(self, name: str) -> Path:
        return self.directory / f"{self.prefix}{name}"

    def names(self) -> list[str]:
        found = os.listdir(self.directory)
        return sorted(name.removeprefix(self.prefix) for name in found if name.startswith(self.prefix))


BEHAVIOURS: dict[str, Callable[[Place], Seen]] = {}
OLD_NS, OLDER_NS = 1_000_000_000_123_456_789, 900_000_000_000_000_001


def behaviour(function: Callable[[Place], Seen]) -> Callable[[Place], Seen]:
    BEHAVIOURS[function.__name__] = function
    return function


def told(do: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What a call returns, or the name of its error."""
    try:
        found = do(*arguments, **named)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return found


@contextmanager
def opened(path: Path, flags: int, mode: int = 0o644) -> Iterator[int]:
    descriptor = os.open(path, flags, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def shape(status: os.stat_result) -> Seen:
    """What does not depend on when and where."""
    return [oct(status.st_mode), status.st_nlink, status.st_uid, status.st_gid, status.st_size]


def put(path: Path, content: bytes = b"0123456789") -> Path:
    path.write_bytes(content)
    return path


# --- open ----------------------------------------------------------------------------------------------


@behaviour
def exclusive_creation(at: Place) -> Seen:
    path = at / "x"
    with opened(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY):
        again = told(os.open, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    return [again, told(os.open, path, os.O_CREAT | os.O_EXCL | os.O_RDONLY), shape(path.stat())]


@behaviour
def one_winner_of_many(at: Place) -> Seen:
    """O_EXCL is how lock files are made."""
    seen: Seen = []
    for round_number in range(10):
        path, outcomes = at / f"lock{round_number}", []
        barrier = threading.Barrier(6)

        def take(path: Path = path, outcomes: Seen = outcomes, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            found = told(os.open, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            outcomes.append("won" if isinstance(found, int) else found)
            if isinstance(found, int):
                os.close(found)

        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen.append(sorted(outcomes))
    return seen


@behaviour
def mode_of_a_new_file(at: Place) -> Seen:
    seen: Seen = []
    for umask, mode in ((0o022, 0o666), (0o077, 0o777), (0, 0o4755), (0o027, 0o640), (0, 0)):
        old = os.umask(umask)
        try:
            path = at / f"m{umask:o}-{mode:o}"
            with opened(path, os.O_CREAT | os.O_RDWR, mode) as file:
                seen.append([oct(os.fstat(file).st_mode), os.write(file, b"writable by its opener")])
            with opened(path, os.O_CREAT | os.O_WRONLY, 0o777):
                seen.append(oct(path.stat().st_mode))
        finally:
            os.umask(old)
    return seen


@behaviour
def access_modes(at: Place) -> Seen:
    path = put(at / "x")
    with opened(path, os.O_RDONLY) as reading, opened(path, os.O_WRONLY) as writing, opened(path, os.O_RDWR) as both:
        return [
            told(os.write, reading, b"no"),
            told(os.pread, writing, 1, 0),
            told(os.ftruncate, reading, 1),
            os.pwrite(both, b"X", 1),
            os.pread(both, 3, 0),
            fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY,
        ]


@behaviour
def what_open_refuses(at: Place) -> Seen:
    path = put(at / "x")
    return [
        told(os.open, path, os.O_RDONLY | os.O_DIRECTORY),
        told(os.open, at / "missing", os.O_RDONLY),
        told(os.open, path / "below", os.O_RDONLY),
        told(os.open, path / "below", os.O_CREAT | os.O_WRONLY),
        told(os.open, f"{path}/", os.O_RDONLY),
        told(os.open, at.directory, os.O_WRONLY),
        told(os.open, at.directory, os.O_CREAT | os.O_RDONLY),
    ]


@behaviour
def truncation_at_open(at: Place) -> Seen:
    path = put(at / "x")
    with opened(path, os.O_RDONLY) as before:
        with opened(path, os.O_WRONLY | os.O_TRUNC) as writing:
            seen = [os.fstat(before).st_size, os.pread(before, 10, 0), os.write(writing, b"new")]
        return [*seen, os.pread(before, 10, 0), path.read_bytes()]


@behaviour
def appending(at: Place) -> Seen:
    path = put(at / "x", b"one ")
    with opened(path, os.O_WRONLY | os.O_APPEND) as first, opened(path, os.O_RDWR | os.O_APPEND) as second:
        os.write(first, b"two ")
        os.write(second, b"three ")
        os.lseek(first, 0, os.SEEK_SET)
        os.write(first, b"four ")
        where = os.lseek(first, 0, os.SEEK_CUR)
        os.pwrite(second, b"five ", 2)  # Linux appends all the same: pwrite(2), BUGS
        seen = [where, os.pread(second, 100, 0)]
        fcntl.fcntl(second, fcntl.F_SETFL, 0)
        os.pwrite(second, b"ONE", 0)
        return [*seen, path.read_bytes()]


@behaviour
def appenders_at_once(at: Place) -> Seen:
    path = put(at / "log", b"")
    barrier = threading.Barrier(4)

    def append(letter: bytes) -> None:
        with opened(path, os.O_WRONLY | os.O_APPEND) as file:
            barrier.wait()
            for _ in range(25):
                os.write(file, letter * 9 + b"\n")

    threads = [threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_bytes().splitlines()
    return [len(lines), sorted(set(lines)), [lines.count(letter * 9) for letter in (b"a", b"d")]]


# --- bytes ---------------------------------------------------------------------------------------------


@behaviour
def reading_and_seeking(at: Place) -> Seen:
    with opened(put(at / "x"), os.O_RDONLY) as file:
        return [
            os.read(file, 4),
            os.lseek(file, 0, os.SEEK_CUR),
            os.lseek(file, -3, os.SEEK_END),
            os.read(file, 10),
            os.read(file, 10),
            os.pread(file, 10, 100),
            told(os.lseek, file, -1, os.SEEK_SET),
            os.lseek(file, 5, os.SEEK_DATA),
            os.lseek(file, 0, os.SEEK_HOLE),
            told(os.lseek, file, 11, os.SEEK_DATA),
        ]


@behaviour
def holes(at: Place) -> Seen:
    path = at / "sparse"
    with opened(path, os.O_CREAT | os.O_RDWR) as file:
        os.pwrite(file, b"end", 5_000_000)
        os.pwrite(file, b"middle", 2_000_001)
        size = os.fstat(file).st_size
        seen = [size, os.pread(file, 8, 1_999_998), os.pread(file, 4, 0), os.pread(file, 10, 4_999_998)]
        os.fsync(file)
    return [*seen, path.stat().st_blocks * 512 < size // 2]


@behaviour
def truncating(at: Place) -> Seen:
    path = put(at / "x", b"abcdef" * 3000)
    seen: Seen = []
    for size in (10, 5, 9000, 4096, 0, 7):
        os.truncate(path, size)
        content = path.read_bytes()
        seen.append([path.stat().st_size, len(content), content[:12], content.count(b"\0")])
    with opened(path, os.O_RDWR) as file:
        os.write(file, b"1234567")
        os.ftruncate(file, 3)
        os.write(file, b"x")  # the position stays
        seen.append(os.pread(file, 100, 0))
    return [
        *seen,
        told(os.truncate, path, -1),
        told(os.truncate, at.directory, 0),
        told(os.truncate, at / "missing", 0),
    ]


@behaviour
def what_one_writes_the_other_reads(at: Place) -> Seen:
    path = put(at / "x", b"a" * 10_000)
    with opened(path, os.O_RDONLY) as reading, opened(path, os.O_RDWR) as writing:
        seen = [os.pread(reading, 3, 4095)]
        os.pwrite(writing, b"BBB", 4095)
        seen.append(os.pread(reading, 3, 4095))
        os.ftruncate(writing, 4096)
        seen.append([os.pread(reading, 10, 4094), os.fstat(reading).st_size])
        os.ftruncate(writing, 5000)
        seen.append(os.pread(reading, 10, 4094))
        return seen


@behaviour
def mapped_pages(at: Place) -> Seen:
    path = put(at / "x", b"a" * 9000)
    with opened(path, os.O_RDWR) as file:
        with mmap.mmap(file, 9000, prot=mmap.PROT_READ) as reading:
            seen: Seen = [reading[:3], reading[8999]]
            os.pwrite(file, b"XYZ", 4095)
            seen.append(reading[4094:4099])
        with mmap.mmap(file, 9000, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as private:
            private[:5] = b"mine!"
            seen.append(os.pread(file, 5, 0))
        with mmap.mmap(file, 9000) as shared:
            shared[100:106] = b"shared"
            shared.flush()
            seen.append(os.pread(file, 8, 99))
    return [*seen, path.read_bytes()[4094:4099], path.read_bytes()[99:107]]


@behaviour
def copying_in_the_kernel(at: Place) -> Seen:
    source, target = put(at / "source", b"s" * 5000), put(at / "target", b"")
    with opened(source, os.O_RDONLY) as reading, opened(target, os.O_RDWR) as writing:
        sent = os.sendfile(writing, reading, 0, 3000)
        copied = os.copy_file_range(reading, writing, 2000, 3000, 3000)
    return [sent, copied, target.read_bytes() == source.read_bytes()]


@behaviour
def making_it_durable(at: Place) -> Seen:
    path = at / "x"
    with opened(path, os.O_CREAT | os.O_RDWR | os.O_DSYNC) as file:
        os.write(file, b"x")
        seen = [os.fsync(file), os.fdatasync(file)]
    with opened(at.directory, os.O_RDONLY | os.O_DIRECTORY) as directory:
        seen.append(os.fsync(directory))
    with opened(path, os.O_RDONLY) as file:
        seen.append(os.fsync(file))
    return seen


@behaviour
def locks(at: Place) -> Seen:
    path = put(at / "x")
    with opened(path, os.O_RDWR) as first, opened(path, os.O_RDWR) as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        seen = [told(fcntl.flock, second, fcntl.LOCK_EX | fcntl.LOCK_NB)]
        fcntl.flock(first, fcntl.LOCK_UN)
        seen.append(told(fcntl.flock, second, fcntl.LOCK_EX | fcntl.LOCK_NB))
        fcntl.lockf(first, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)
        return [*seen, told(fcntl.lockf, second, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 5)]


# --- names ---------------------------------------------------------------------------------------------


@behaviour
def lengths_of_names(at: Place) -> Seen:
    # 255 bytes are the kernel's limit; the test's own prefix is part of the name
    room = 255 - len(at.prefix)
    longest, too_long, wide = at / ("n" * room), at / ("n" * (room + 1)), at / ("é" * (room // 2))
    return [
        told(put, longest) == longest,
        longest.exists(),
        told(put, too_long),
        told(os.stat, too_long),
        told(os.rename, longest, too_long),
        told(os.unlink, too_long),
        told(put, wide) == wide,
        told(os.unlink, longest),
        told(os.unlink, wide),
    ]


@behaviour
def odd_names(at: Place) -> Seen:
    names = [
        "with blank",
        "new\nline",
        "-dash",
        "tab\t",
        "quote'\"",
        "back\\slash",
        "ünïcödé",
        "日本",
        "%2F",
        "$(x)",
        "*",
    ]
    for name in names:
        put(at / name, name.encode())
    seen: Seen = [at.names() == sorted(names)]
    for name in names:
        path = at / name
        seen.append([path.read_bytes() == name.encode(), told(os.unlink, path), told(os.stat, path)])
    return seen


@behaviour
def renaming(at: Place) -> Seen:
    a, b = put(at / "a", b"A"), put(at / "b", b"B")
    seen = [told(os.rename, a, b), b.read_bytes(), a.exists()]
    seen += [told(os.rename, b, b), b.read_bytes()]
    seen += [told(os.rename, a, b), told(os.rename, b, b / "c"), told(os.rename, at / "no", at / "no")]
    return [*seen, at.names()]


@behaviour
def renaming_what_is_open(at: Place) -> Seen:
    a, b = put(at / "a", b"AAAA"), put(at / "b", b"BBBB")
    with opened(a, os.O_RDWR) as first, opened(b, os.O_RDWR) as second:
        inode = os.fstat(first).st_ino
        os.rename(a, b)
        os.pwrite(first, b"new", 0)
        os.pwrite(second, b"old", 0)
        seen = [b.read_bytes(), os.pread(second, 10, 0), os.fstat(first).st_nlink, os.fstat(second).st_nlink]
        put(a, b"another")
        seen += [b.stat().st_ino == inode, a.stat().st_ino == inode, os.fstat(first).st_size, a.read_bytes()]
        os.ftruncate(second, 1)
        os.fchmod(second, 0o600)
        return [*seen, os.pread(second, 10, 0), oct(os.fstat(second).st_mode), oct(b.stat().st_mode), b.read_bytes()]


@behaviour
def removing(at: Place) -> Seen:
    path = put(at / "x")
    return [told(os.unlink, path), told(os.unlink, path), told(os.stat, path), told(os.rmdir, put(at / "y"))]


@behaviour
def removing_what_is_open(at: Place) -> Seen:
    path = put(at / "x")
    with opened(path, os.O_RDWR) as file, opened(path, os.O_RDONLY) as other:
        os.unlink(path)
        seen = [shape(os.fstat(file)), os.pwrite(file, b"still", 8), os.pread(other, 20, 0)]
        put(path, b"a new one")
        os.ftruncate(file, 2)
        os.fchmod(file, 0o600)
        os.utime(file, ns=(OLD_NS, OLDER_NS))
        status = os.fstat(file)
        seen += [shape(status), status.st_atime_ns, status.st_mtime_ns, path.read_bytes(), os.pread(other, 20, 0)]
        with opened(Path(f"/proc/self/fd/{file}"), os.O_RDONLY) as again:
            seen.append(told(os.pread, again, 10, 0))
        return [*seen, shape(path.stat())]


@behaviour
def listings(at: Place) -> Seen:
    for number in range(50):
        put(at / f"n{number}", b"x" * number)
    with os.scandir(at.directory) as entries:
        ours = [entry for entry in entries if entry.name.startswith(at.prefix)]
        found = sorted((entry.name, entry.is_file(), entry.is_symlink(), entry.stat().st_size) for entry in ours)
    os.unlink(at / "n7")
    os.rename(at / "n8", at / "renamed")
    return [found, len(set(at.names())), at.names()[-3:]]


# --- attributes ----------------------------------------------------------------------------------------


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
