"""What a program may do with opened files, their bytes and their names."""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from pathlib import Path

from behaviour import OLD_NS, OLDER_NS, Place, Seen, behaviour, opened, put, shape, told

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
