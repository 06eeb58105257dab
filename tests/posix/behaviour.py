"""What a program may do with files in one directory, each behaviour as a function that returns what it saw.

A behaviour is run in a plain directory of the pool's file system and among the drafts of the mount, and has to see
the same. It makes names that start with its prefix only, and tells errors by their names. Times are compared by
what they do, never by what they are.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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
    """Add it to those that are run."""
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
