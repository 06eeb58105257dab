"""A program that unpacks the image of a container into a directory: `python -I -m opfs.plugins.lxc.unpack`.

    unpack ARCHIVE DIRECTORY BYTES_MAX FILES_MAX

It is a process of its own, so that it can be ended at any time and its memory is bounded, and its root is
the new directory before the first byte of the archive is looked at: no name and no link in an archive leads
out of there. Names that are absolute or have `..` end it, device nodes are left out (LXC makes its own), and
so is everything past the bounds. On success one line of JSON says what was unpacked; else the reason is on
standard error. Not to be imported by the daemon.
"""

from __future__ import annotations

import ctypes
import gzip
import json
import lzma
import os
import resource
import subprocess
import sys
import tarfile
from contextlib import suppress
from typing import BinaryIO, cast

_MEMORY_MAX = 1 << 30
_CHUNK_BYTES = 1 << 20
_XATTR = "SCHILY.xattr."
_XATTRS = ("security.capability", "user.")


class BadImage(Exception):
    """Why an archive is not unpacked."""


def main() -> int:
    archive, directory, bytes_max, files_max = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_MAX, _MEMORY_MAX))
    try:
        stream = _open(archive)
        # Text is decoded after the change of root, where there is no codec to load.
        "".encode("utf-8", "surrogateescape")
        os.chroot(directory)
        os.chdir("/")
        print(json.dumps(_unpack(stream, int(bytes_max), int(files_max))))
    except (BadImage, OSError, EOFError, MemoryError, tarfile.TarError, lzma.LZMAError) as error:
        print(f"{type(error).__name__}: {error}" if not isinstance(error, BadImage) else error, file=sys.stderr)
        return 1
    return 0


def _open(archive: str) -> BinaryIO:
    file = os.fdopen(os.open(archive, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    if archive.endswith(".gz"):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if archive.endswith(".xz"):
        return cast("BinaryIO", lzma.LZMAFile(file))
    if archive.endswith(".zst"):
        # The tool rather than a library: the daemon has no other use for one. It refuses large windows itself.
        tool = subprocess.Popen(["zstd", "-dc", "--quiet"], stdin=file, stdout=subprocess.PIPE, cwd="/")
        return cast("BinaryIO", tool.stdout)
    return file


def _unpack(stream: BinaryIO, bytes_max: int, files_max: int) -> dict[str, int]:
    counted = {"files": 0, "bytes": 0, "left_out": 0}
    folders: list[tuple[str, int]] = []
    with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
        for member in archive:
            name = _checked(member.name)
            if not name:
                continue
            counted["files"] += 1
            counted["bytes"] += member.size
            if counted["files"] > files_max:
                raise BadImage(f"it has more than {files_max} files")
            if counted["bytes"] > bytes_max:
                raise BadImage(f"it is over {bytes_max >> 20} MiB unpacked")
            if not _make(archive, member, name):
                counted["left_out"] += 1
            elif member.isdir():
                folders.append((name, int(member.mtime)))
    if not counted["files"]:
        raise BadImage("it is empty")
    for name, mtime in reversed(folders):
        with suppress(FileNotFoundError, NotADirectoryError):
            os.utime(name, (mtime, mtime), follow_symlinks=False)
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    ctypes.CDLL(None).syncfs(root)
    return counted


def _checked(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise BadImage(f"it has the name {name!r}, which leads out of it")
    return "/".join(parts)


def _make(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> bool:
    """Make one file; returns False for what containers do not get from their image."""
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    if not (member.isdir() and os.path.isdir(name) and not os.path.islink(name)):
        with suppress(FileNotFoundError):
            os.unlink(name)
    if member.isdir():
        with suppress(FileExistsError):
            os.mkdir(name)
    elif member.issym():
        os.symlink(member.linkname, name)
    elif member.islnk():
        os.link(_checked(member.linkname), name, follow_symlinks=False)
        return True
    elif member.isfifo():
        os.mkfifo(name)
    elif member.isreg():
        _write(archive, member, name)
    else:
        return False
    os.chown(name, member.uid, member.gid, follow_symlinks=False)
    if not member.issym():
        # After the owner, whose change takes set-user-ID bits and capabilities away.
        os.chmod(name, member.mode & 0o7777)
        for key, value in member.pax_headers.items():
            attribute = key.removeprefix(_XATTR)
            if key != attribute and attribute.startswith(_XATTRS):
                os.setxattr(name, attribute, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
    if not member.isdir():
        os.utime(name, (int(member.mtime), int(member.mtime)), follow_symlinks=False)
    return True


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
    content = archive.extractfile(member)
    if content is None:
        raise BadImage(f"{name} cannot be read from it")
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while chunk := content.read(_CHUNK_BYTES):
            file.write(chunk)


if __name__ == "__main__":
    sys.exit(main())
