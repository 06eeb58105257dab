"""The layers of one pool's cache below one directory, each with its share of the size.

Disposable at any moment: files may be removed under it, the disk may be full or fail, and nothing but time is lost.

Concurrency: thread-safe. `tend` and `clear` block for as long as a few files take to be removed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from typing import TYPE_CHECKING

from opfs.cache.embeddings import EmbeddingCache
from opfs.cache.layer import Layer
from opfs.cache.packed import PackedFile
from opfs.core.settings import DEFAULT_LAYERS, LAYERS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

SHARES: Mapping[str, float] = dict(zip(LAYERS, (0.5, 0.25, 0.25, 0.25), strict=True))
"""Parts of the size, of those layers that are on; an embedding takes 1.6 KB, an answer some 10 KB."""
MIN_QUERY_COST_US = 500
"""Reading an answer back takes a tenth of that."""


class Cache:
    """`layers` of SHARES share `max_bytes` in proportion; a layer that is off keeps nothing and finds nothing."""

    def __init__(self, directory: Path, max_bytes: int, layers: Collection[str] = DEFAULT_LAYERS) -> None:
        """Take up what is there. Raises nothing: what cannot be used is as if it were not there."""
        self.directory = directory
        self._lock_fd, trouble = _lock(directory)
        if trouble:
            log.error("nothing is cached: %s %s", directory, trouble)
            max_bytes = 0
        layers = layers if max_bytes else ()
        whole = sum(SHARES[name] for name in layers) or 1
        self._files = {
            name: PackedFile(directory / name, int(max_bytes * share / whole) if name in layers else 0)
            for name, share in SHARES.items()
        }
        self.embeddings = EmbeddingCache(self._files["embeddings"])
        self.queries = Layer(self._files["queries"], MIN_QUERY_COST_US)
        self.blocks = Layer(self._files["blocks"])
        self.diffs = Layer(self._files["diffs"])
        for name in SHARES.keys() - set(layers) if self._lock_fd >= 0 else ():
            self._files[name].clear()

    def clear(self) -> None:
        """Forget everything; what is being computed now is not kept either. Not what is another's."""
        for file in self._files.values() if self._lock_fd >= 0 else ():
            file.clear()

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def tend(self, has_room: Callable[[], bool]) -> None:
        """Now and then: give everything back where the disk is nearly full, and what somebody removed under us."""
        is_full = not has_room()
        for file in self._files.values():
            file.is_paused = is_full
            if is_full and file.disk_bytes:
                file.clear()
            else:
                file.look_again()

    def stats(self) -> Mapping[str, Mapping[str, int]]:
        """Of each layer: entries, bytes, max_bytes, hits, misses, puts, evictions, damaged, refused, saved_us."""
        return {name: file.stats() for name, file in self._files.items()}

    def check(self) -> Mapping[str, tuple[int, int]]:
        """Read everything: of each layer how many records are well, and how many were damaged and are forgotten."""
        return {name: file.check() for name, file in self._files.items()}

    @property
    def disk_bytes(self) -> int:
        return sum(file.disk_bytes for file in self._files.values())


def _lock(directory: Path) -> tuple[int, str]:
    """A descriptor that holds the directory for this process, made if it is missing; or -1 and what is wrong with it.

    Nobody else may be able to put files there, or links to them; two daemons would write over each other's records.
    """
    descriptor = -1
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            trouble = "belongs to somebody else, or others may write to it"
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor, ""
    except BlockingIOError:
        trouble = "is the cache of another daemon"
    except OSError as error:
        trouble = f"cannot be used: {error.strerror}"
    if descriptor >= 0:
        os.close(descriptor)
    return -1, trouble


def signature_of(directory: Path) -> frozenset[tuple[str, int, int]]:
    """The names, sizes and times of a cache's files: where they are the same, so is what they hold."""
    found = set()
    for name in SHARES:
        try:
            with os.scandir(directory / name) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    found.add((f"{name}/{entry.name}", status.st_size, status.st_mtime_ns))
        except OSError:
            continue
    return frozenset(found)
