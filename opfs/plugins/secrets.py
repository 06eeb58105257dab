"""Where the values of secrets come from: systemd's credentials of the service first, then a directory of root's.

One file holds one secret, whole. Nothing is kept here, no value is ever shown, and an error names the file and never
what is in it. Blocking, a few small reads; may be called from any thread.

Credentials: systemd.exec(5), "LoadCredential", which names the directory in $CREDENTIALS_DIRECTORY.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from opfs.core.secretfields import SECRET_NAME
from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DIRECTORY = Path("/etc/opfs/secrets")
MAX_BYTES = 64 << 10
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Secrets:
    """Looks secrets up by name; `found` is told of every value that is handed out, so that it is never shown."""

    def __init__(
        self,
        directory: Path = DIRECTORY,
        environment: Mapping[str, str] | None = None,
        found: Callable[[str, bytes], None] = lambda name, value: None,
    ) -> None:
        environment = os.environ if environment is None else environment
        credentials = environment.get("CREDENTIALS_DIRECTORY", "")
        self._directories = [Path(credentials)] if os.path.isabs(credentials) else []
        self._directories.append(directory)
        self._found = found

    def __call__(self, name: str) -> bytes:
        """The value of a secret; raises ApplyFailed where there is none, or one that others could read or change."""
        if not SECRET_NAME.match(name):
            raise ApplyFailed(f"{name[:100]!r} cannot be the name of a secret")
        for directory in self._directories:
            value = _read(directory, name)
            if value is not None:
                self._found(name, value)
                return value
        places = " or ".join(str(directory / name) for directory in self._directories)
        raise ApplyFailed(f"there is no secret {name!r}", hint=f"put it, for root alone (mode 0600), into {places}")


def _read(directory: Path, name: str) -> bytes | None:
    """None where the directory has no such file. The directory is opened once, so that it cannot be exchanged."""
    try:
        directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ApplyFailed(f"the secrets in {directory} cannot be read: {error.strerror}") from error
    try:
        _check_private(os.fstat(directory_fd), directory, stat.S_IWGRP | stat.S_IWOTH, "0700")
        return _read_file(directory_fd, name, directory / name)
    finally:
        os.close(directory_fd)


def _read_file(directory_fd: int, name: str, path: Path) -> bytes | None:
    try:
        fd = os.open(name, _FLAGS, dir_fd=directory_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ApplyFailed(f"the secret {path} is a symbolic link", hint="put a file there") from error
        raise ApplyFailed(f"the secret {path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ApplyFailed(f"the secret {path} is no file", hint="put a file there")
        _check_private(status, path, stat.S_IRWXG | stat.S_IRWXO, "0600")
        value = b""
        while len(value) <= MAX_BYTES and (part := os.read(fd, MAX_BYTES + 1 - len(value))):
            value += part
    except OSError as error:
        raise ApplyFailed(f"the secret {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    if len(value) > MAX_BYTES:
        raise ApplyFailed(f"the secret {path} is larger than {MAX_BYTES:,} bytes")
    return value


def _check_private(status: os.stat_result, path: Path, forbidden: int, right: str) -> None:
    """Only root may have written what root is about to use, and only root may read a secret."""
    if status.st_uid != 0:
        raise ApplyFailed(f"{path} belongs to uid {status.st_uid}", hint=f"chown root {path}")
    if status.st_mode & forbidden:
        mode = stat.S_IMODE(status.st_mode)
        raise ApplyFailed(f"{path} has mode {mode:04o}, which lets others in", hint=f"chmod {right} {path}")
