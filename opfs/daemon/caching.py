"""The care of the cache: its hourly snapshots, its room, the command `cache`, and what is said of it.

Trio thread; the disk is touched in worker threads of low priority, one at a time, and no commit waits for them.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import TYPE_CHECKING

import trio

from opfs.btrfs import ioctl
from opfs.cache.cache import Cache
from opfs.cache.snapshots import CacheSnapshots
from opfs.commit.derive import low_priority
from opfs.core.timestamp import NS_PER_S
from opfs.errors import AccessDenied, InvalidRequest
from opfs.metrics.exposition import Figures
from opfs.vfs.ctl import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from opfs.btrfs.pool import Pool
    from opfs.config import Config
    from opfs.vfs.node import Caller

log = logging.getLogger(__name__)

TEND_S = 60.0
SNAPSHOT_INTERVAL_NS = 3600 * NS_PER_S


def open_cache(config: Config, pool: Pool) -> Cache:
    """The cache of a pool, as configured; what is there and cannot be used is as if it were not."""
    if config.cache_dir is not None:
        # what the pool's own place held would be out of reach for an erasure
        Cache(pool.subvolume("@cache"), 0).close()
        CacheSnapshots(*_places(pool), 0, ioctl).clear()
    return Cache(config.cache_dir or pool.subvolume("@cache"), config.cache_max_bytes, config.cache_layers)


def take_care(config: Config, pool: Pool, cache: Cache, has_room: Callable[[], bool]) -> Caretaker:
    """A cache that is not in the pool has no snapshots."""
    snapshots = CacheSnapshots(*_places(pool), config.max_cache_snapshots, ioctl) if config.cache_dir is None else None
    return Caretaker(cache, snapshots, has_room)


def _places(pool: Pool) -> tuple[Path, Path]:
    return pool.subvolume("@cache"), pool.subvolume("@cache-snapshots")


class Caretaker:
    """Looks after one cache; `snapshots` is None where the cache is not in the pool, and so has none."""

    def __init__(self, cache: Cache, snapshots: CacheSnapshots | None, has_room: Callable[[], bool]) -> None:
        self._cache = cache
        self.snapshots = snapshots
        self._has_room = has_room
        self._thread = trio.CapacityLimiter(1)
        self._disk = threading.Lock()
        """Held while snapshots are made or everything is forgotten: none is made of what is being erased."""

    async def run(self) -> None:
        """Tend the cache every minute and take a snapshot every hour, until cancelled."""
        while True:
            try:
                await trio.to_thread.run_sync(low_priority()(self._tend), limiter=self._thread)
            except OSError as error:
                log.warning("the cache cannot be looked after: %s", error)
            await trio.sleep(TEND_S)

    def _tend(self) -> None:
        with self._disk:
            self._look_after()

    def _look_after(self) -> None:
        self._cache.tend(self._has_room)
        if self.snapshots is None:
            return
        if not self._has_room():
            self.snapshots.clear()
            return
        now_ns = time.time_ns()
        if self.snapshots.age_ns(now_ns) >= SNAPSHOT_INTERVAL_NS:
            self.snapshots.take(now_ns)
        self.snapshots.trim()

    def forget(self) -> None:
        """Empty the cache and remove its snapshots: something is being erased. Blocking."""
        with self._disk:
            self._cache.clear()
            if self.snapshots is not None:
                self.snapshots.clear()

    def command(self) -> Command:
        """`cache`: its figures as JSON, or empty it, or read all of it."""

        async def run(words: Sequence[str], caller: Caller) -> str:
            if caller.uid != 0:
                raise AccessDenied("only root may look into the cache")
            if len(words) != 1:
                raise InvalidRequest("cache takes stats, clear or verify", hint="write: cache clear")
            return await trio.to_thread.run_sync(low_priority()(self.carry_out), words[0], limiter=self._thread)

        return Command("cache", "cache clear", "empty the cache, which loses nothing but time", run)

    def carry_out(self, word: str) -> str:
        """The answer to `stats`, `clear` or `verify`; raises InvalidRequest. Blocking."""
        match word:
            case "stats":
                return json.dumps(self._stats()) + "\n"
            case "clear":
                self.forget()
                return ""
            case "verify":
                checked = self._cache.check().items()
                return json.dumps({name: {"well": well, "damaged": bad} for name, (well, bad) in checked}) + "\n"
        raise InvalidRequest(f"there is no command cache {word}", hint="cache takes stats, clear or verify")

    def _stats(self) -> dict[str, object]:
        names = [] if self.snapshots is None else list(self.snapshots.names())
        return {"directory": str(self._cache.directory), "layers": self._cache.stats(), "snapshots": names}

    def report(self) -> str:
        """One line for /status."""
        layers = self._cache.stats().values()
        hits, asked = sum(layer["hits"] for layer in layers), sum(layer["hits"] + layer["misses"] for layer in layers)
        size = f"{self._cache.disk_bytes / 2**20:.1f} MiB in {sum(layer['entries'] for layer in layers)} entries"
        return f"{size}, {hits} hits of {asked}, {sum(layer['saved_us'] for layer in layers) / 1e6:.1f} s saved"

    def measure(self) -> Iterator[Figures]:
        """The figures for /metrics."""
        stats = self._cache.stats()

        def figures(name: str, what: str, key: str, scale: float = 1) -> Figures:
            return Figures(name, what, {(layer,): values[key] * scale for layer, values in stats.items()}, ("layer",))

        yield figures("opfs_cache_bytes", "What the cache takes on disk.", "bytes")
        yield figures("opfs_cache_entries", "What the cache holds.", "entries")
        yield figures("opfs_cache_hits_total", "What was asked of the cache and there.", "hits")
        yield figures("opfs_cache_misses_total", "What was asked of the cache and not there.", "misses")
        yield figures("opfs_cache_evictions_total", "What made room in the cache for other things.", "evictions")
        yield figures("opfs_cache_saved_seconds_total", "What the hits would have taken to work out.", "saved_us", 1e-6)
