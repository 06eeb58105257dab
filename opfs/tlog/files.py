"""The files of a log in one directory: checkpoint, verifier keys, tiles, entry bundles; read and replaced whole.

What lies here is what C2SP tlog-tiles serves, so any web server can. It is derived from the blocks and therefore not
synced but for full tiles, which are never written again. Nothing half-written is ever visible under a final name.

Concurrency: one thread writes at a time, or each under a temporary name of its own; any number read meanwhile.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from opfs.core.note import MAX_NOTE_BYTES
from opfs.core.tiles import MAX_ENTRY_BYTES, WIDTH, Tile
from opfs.errors import InvalidRequest, NoSpace, NotFound, PoolError
from opfs.ports import LogFileInfo

if TYPE_CHECKING:
    from pathlib import Path

CHECKPOINT = "checkpoint"
WITNESSED = "checkpoint.witnessed"
VERIFIER_KEYS = "log.vkey"
TILES = "tile"
_SUPERSEDED = ".superseded"
_DIRECTORY = re.compile(r"tile(?:/(?:entries|\d{1,2})(?:/x\d{3})*(?:/\d{3}\.p)?)?\Z", re.ASCII)
_MAX_BYTES = WIDTH * (2 + MAX_ENTRY_BYTES)


def _is_file(path: str) -> bool:
    if path in (CHECKPOINT, WITNESSED, VERIFIER_KEYS):
        return True
    try:
        Tile.parse(path)
    except InvalidRequest:
        return False
    return True


class LogFiles:
    """The directory of a log, which must exist. Raises NotFound, NoSpace or PoolError."""

    def __init__(self, directory: Path, temporary: str = ".new") -> None:
        self.directory = directory
        self._prefix = f"{directory}/"
        self._temporary = temporary

    # --- reading ---------------------------------------------------------------------------------------

    def read_checkpoint(self) -> bytes:
        return self._read(CHECKPOINT, MAX_NOTE_BYTES)

    def read_witnessed(self) -> bytes:
        return self._read(WITNESSED, MAX_NOTE_BYTES)

    def read_verifier_keys(self) -> bytes:
        return self._read(VERIFIER_KEYS, MAX_NOTE_BYTES)

    def read_tile(self, tile: Tile) -> bytes:
        """The bytes of a tile or of a wider one, of which it is the beginning; raises NotFound."""
        for candidate in (tile, tile.full):
            with suppress(NotFound):
                return self._read(candidate.path, _MAX_BYTES)
        wider = [width for width in self.widths(tile) if width > tile.width]
        return self._read((Tile(tile.level, tile.index, min(wider)) if wider else tile.full).path, _MAX_BYTES)

    def read_exactly(self, tile: Tile) -> bytes:
        """The file of that very name; raises NotFound."""
        return self._read(tile.path, _MAX_BYTES)

    def list_directory(self, path: str) -> dict[str, LogFileInfo]:
        """What is in a directory of the log, "" for the top; temporary and foreign files do not show."""
        if path and not _DIRECTORY.match(path):
            raise NotFound(f"the log has no {path}")
        try:
            names = os.listdir(self._prefix + path)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"the log has no {path}") from None
        listing = {}
        for name in names:
            with suppress(NotFound):  # foreign, or removed since
                listing[name] = self.info(f"{path}/{name}" if path else name)
        return listing

    def info(self, path: str) -> LogFileInfo:
        """What a name of the log is; raises NotFound."""
        try:
            found = os.lstat(self._prefix + path)
        except (OSError, ValueError):
            raise NotFound(f"the log has no {path}") from None
        if stat.S_ISREG(found.st_mode) and _is_file(path):
            return LogFileInfo(found.st_size, found.st_mtime_ns)
        if stat.S_ISDIR(found.st_mode) and _DIRECTORY.match(path):
            return LogFileInfo(None, found.st_mtime_ns)
        raise NotFound(f"the log has no {path}")

    def widths(self, tile: Tile) -> list[int]:
        """Of the beginnings of a tile, how wide those are that are there."""
        try:
            return [int(name) for name in os.listdir(self.directory / f"{tile.full.path}.p") if name.isdecimal()]
        except FileNotFoundError:
            return []

    def _read(self, path: str, limit: int) -> bytes:
        try:
            fd = os.open(self._prefix + path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                return file.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"the log has no {path}") from None
        except OSError as error:
            raise PoolError(f"{path} of the log cannot be read: {error.strerror}") from error

    # --- writing ---------------------------------------------------------------------------------------

    def write_checkpoint(self, data: bytes) -> None:
        self._replace(CHECKPOINT, data)

    def write_witnessed(self, data: bytes) -> None:
        self._replace(WITNESSED, data)

    def write_verifier_keys(self, data: bytes) -> None:
        self._replace(VERIFIER_KEYS, data)

    def write_tile(self, tile: Tile, data: bytes) -> None:
        """Put a tile in place; a full one is durable on return."""
        self._replace(tile.path, data, durable=not tile.is_partial)

    def remove_partials(self, tile: Tile, widths: range) -> None:
        """Drop partial tiles of a tile that is full now; with the last of them their directory goes."""
        directory = f"{self._prefix}{tile.full.path}.p"
        for width in widths:
            with suppress(FileNotFoundError):
                os.unlink(f"{directory}/{width}")
        if WIDTH - 1 in widths:
            with suppress(OSError):
                os.rmdir(directory)

    def set_aside(self) -> None:
        """Move checkpoint and tiles out of the way, so that the log is made anew from the blocks; nothing is lost."""
        number = 0
        while any((self.directory / f"{name}{_SUPERSEDED}-{number}").exists() for name in (CHECKPOINT, TILES)):
            number += 1
        for name in (CHECKPOINT, TILES):
            with suppress(FileNotFoundError):
                os.rename(self.directory / name, self.directory / f"{name}{_SUPERSEDED}-{number}")
        sync_directory(self.directory)

    def _replace(self, path: str, data: bytes, *, durable: bool = False) -> None:
        target, temporary = self._prefix + path, self._prefix + self._temporary
        try:
            write_file(temporary, data, 0o644, durable=durable)
            try:
                os.rename(temporary, target)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
                os.rename(temporary, target)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(f"the pool is full: {path} of the log was not written", hint="make room") from error
            raise PoolError(f"{path} of the log cannot be written: {error.strerror}") from error


def write_file(path: Path | str, data: bytes, mode: int, *, durable: bool) -> None:
    """Create or overwrite a file whole; raises OSError, also where the disk takes less than all of it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
