"""Every exception opfs raises on purpose: whose fault it is, its errno and its exit code.

The FUSE adapter answers `errno`, the CLI exits with `exit_code`, and both show `str(error)`. A class
says whose fault the failure is; an instance says what was wrong, where, and what would be right.
This module imports nothing of opfs and does no I/O.
"""

from __future__ import annotations

import errno as _errno
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Location:
    """A spot in a document: 1-based line and column (in characters), and an RFC 6901 JSON pointer."""

    line: int
    column: int
    pointer: str = ""


class OpfsError(Exception):
    """Base of all errors.

    `reason` is one sentence for a person; `hint` says what would have been accepted; `location` is where
    in the submitted document the fault lies, if it lies in a document.
    """

    errno: int = _errno.EIO
    exit_code: int = 1

    def __init__(self, reason: str, *, hint: str = "", location: Location | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.location = location

    def __str__(self) -> str:
        return f"{self.reason}; {self.hint}" if self.hint else self.reason


# The caller's fault: nothing was tried, nothing changed.


class InvalidRequest(OpfsError):
    """The bytes, the name, the query or the command is not acceptable."""

    errno = _errno.EINVAL
    exit_code = 2


class SecretWritten(InvalidRequest):
    """A document holds the value of a secret: it is neither kept nor shown."""


class NotFound(InvalidRequest):
    """No such plugin, element, block or command."""

    errno = _errno.ENOENT


class TooLarge(InvalidRequest):
    """A document or a name passes a limit."""

    errno = _errno.EFBIG


class NameTooLong(InvalidRequest):
    """A name has more bytes than a name can have."""

    errno = _errno.ENAMETOOLONG


class AccessDenied(InvalidRequest):
    """File permissions say no."""

    errno = _errno.EACCES


class ReadOnly(InvalidRequest):
    """Nothing is written here, or the daemon is in fail-safe mode."""

    errno = _errno.EROFS


# Policy says no: nothing was tried, nothing changed.


class Rejected(OpfsError):
    """Policy refuses: protected element, unconfirmed destructive action, unavailable plugin."""

    errno = _errno.EPERM
    exit_code = 3


class Busy(Rejected):
    """Another writer is committing the same element."""

    errno = _errno.EBUSY


class Stale(Rejected):
    """The write was based on a block that is no longer current for its element."""

    errno = _errno.ESTALE


# The world's fault.


class ApplyFailed(OpfsError):
    """The plugin tried and failed; the reason says what was done, undone and not undone."""

    errno = _errno.EIO
    exit_code = 4


class ApplyTimeout(ApplyFailed):
    """The plugin was still at work when its time limit passed."""

    errno = _errno.ETIMEDOUT


class Interrupted(OpfsError):
    """The caller stopped waiting; what it asked for goes on."""

    errno = _errno.EINTR
    exit_code = 4


class ApplyNoSpace(ApplyFailed):
    """The plugin came to a full disk; what it had done was undone as far as the reason says."""

    errno = _errno.ENOSPC


class NoSpace(OpfsError):
    """The pool is full; the batch was not committed and nothing of it is in the layer."""

    errno = _errno.ENOSPC
    exit_code = 4


class IntegrityError(OpfsError):
    """Stored bytes disagree with their hash."""

    errno = _errno.EUCLEAN
    exit_code = 5


class Erased(OpfsError):
    """The content was destroyed on purpose, as an event says; `content` is its BLAKE3, which stays."""

    errno = _errno.ENODATA
    exit_code = 4

    def __init__(self, reason: str, content: bytes = b"", *, hint: str = "") -> None:
        super().__init__(reason, hint=hint)
        self.content = content


class PoolError(OpfsError):
    """The pool cannot be used: wrong format, locked by another process, not what it seems."""

    errno = _errno.EIO
    exit_code = 6


class CommitUnknown(OpfsError):
    """A block may or may not be durable: the sequencer stops and the next start recovers."""

    errno = _errno.EIO
    exit_code = 7


class PoolReadOnly(CommitUnknown):
    """The kernel has turned the pool read-only, as btrfs does after an error that it could not undo."""

    errno = _errno.EROFS

    def __init__(self, doing: str) -> None:
        super().__init__(
            f"the kernel turned the pool read-only: {doing}",
            hint="see the kernel's log, check the device, then unmount and mount the pool",
        )
