"""Snapshots of the cache: read-only btrfs snapshots of @cache in @cache-snapshots, named by their time.

They are what the original proposal has them for, to go back to an earlier cache; what the cache holds can be worked out
again, so losing them loses nothing. They keep the room of what the cache has dropped since, so they are few, go first
where room is needed, and none is made while the cache stays as it is.

Concurrency: one thread at a time. Blocking: a snapshot writes back what the cache has written.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from opfs.cache.cache import signature_of
from opfs.core.timestamp import format_time, parse_moment
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")


class Subvolumes(Protocol):
    """What btrfs does with subvolumes by descriptors; raises OSError."""

    def create_snapshot(self, source_fd: int, parent_fd: int, name: str) -> None: ...

    def delete_subvolume(self, parent_fd: int, name: str) -> None: ...


class CacheSnapshots:
    """Snapshots of the subvolume `cache` in `directory`, at most `kept` of them."""

    def __init__(self, cache: Path, directory: Path, kept: int, subvolumes: Subvolumes) -> None:
        self._cache = cache
        self._directory = directory
        self._kept = kept
        self._subvolumes = subvolumes

    def names(self) -> Sequence[str]:
        """Those there are, oldest first."""
        try:
            return sorted(name for name in os.listdir(self._directory) if _NAME.match(name))
        except OSError:
            return []

    def age_ns(self, now_ns: int) -> int:
        """How long ago the newest was made; very long where there is none."""
        names = self.names()
        try:
            return now_ns - (parse_moment(names[-1], ends_second=False) if names else 0)
        except InvalidRequest:
            return now_ns

    def take(self, now_ns: int) -> str | None:
        """Make one, unless the cache is as it was at the last; its name."""
        if not self._kept:
            return None
        current = signature_of(self._cache)
        names = self.names()
        if not current or (names and signature_of(self._directory / names[-1]) == current):
            return None
        name = format_time(now_ns)[:19] + "Z"
        try:
            with _directory(self._cache) as cache, _directory(self._directory) as parent:
                self._subvolumes.create_snapshot(cache, parent, name)
        except OSError as error:
            if error.errno != errno.EEXIST:
                log.warning("the cache has no snapshot of this hour: %s", error.strerror)
            return None
        self.trim()
        return name

    def trim(self) -> None:
        """Delete the oldest of those that are too many."""
        names = self.names()
        self._delete(names[: max(0, len(names) - self._kept)])

    def clear(self) -> None:
        """Delete all of them; their room is free some time later, as with any snapshot."""
        self._delete(self.names())

    def _delete(self, names: Collection[str]) -> None:
        for name in names:
            try:
                with _directory(self._directory) as parent:
                    self._subvolumes.delete_subvolume(parent, name)
            except OSError as error:
                log.warning("the snapshot %s of the cache cannot be deleted: %s", name, error.strerror)


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
