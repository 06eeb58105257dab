"""What a process is told, as one frozen record, and what follows from it without looking at the machine."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opfs.core.cadence import Cadence
from opfs.core.retention import MinFree, Retention
from opfs.core.settings import EmbeddingSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.core.hooks import Hook
    from opfs.core.rules import PluginRules, PluginTable

RUNTIME_ROOT = Path("/run/opfs")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a process needs to know to serve or to reach one pool.

    `origin` is None unless set: then the pool's own origin holds, or `<host name>/opfs` for a new pool.
    `image_size_bytes` is None unless set: then a size is chosen from the free space.
    `cache_dir` is None unless set: then the cache is in the pool.
    `witness_policy` is None unless set: then no witness is asked.
    `metrics_listen` is an address and a port, None unless set: then no metrics are served over HTTP.
    `warnings` are about variables that look like settings and are none; the caller shows each once.
    """

    pool: Path
    mount: Path
    origin: str | None
    image_size_bytes: int | None
    plugins: tuple[str, ...]
    models: Path
    embedding_variant: str
    embedding_providers: tuple[str, ...]
    embedding_threads: int
    embedding_idle_unload_s: float
    placement: str
    memory_policy: str
    lxc_path: Path
    secrets: Path
    witness_policy: Path | None
    metrics_listen: tuple[str, int] | None
    scrub_interval_s: float
    request_timeout_s: float
    ready_timeout_s: float
    log_level: str
    retain_newest: int
    retain_hourly: int
    retain_daily: int
    retain_weekly: int
    retain_quarterly: int
    retain_min_free: MinFree
    snapshot_interval: str
    snapshot_threshold: str
    max_live_blocks: int
    cache_dir: Path | None
    cache_max_bytes: int
    cache_layers: tuple[str, ...]
    max_cache_snapshots: int
    plugin: Mapping[str, PluginTable]
    hook: tuple[Hook, ...]
    warnings: tuple[str, ...] = ()

    @property
    def retention(self) -> Retention:
        """Which blocks keep their snapshots."""
        return Retention(
            self.retain_newest,
            self.retain_hourly,
            self.retain_daily,
            self.retain_weekly,
            self.retain_quarterly,
            self.retain_min_free,
        )

    @property
    def embedding(self) -> EmbeddingSettings:
        """How texts are given their meaning."""
        return EmbeddingSettings(
            self.embedding_variant, self.embedding_providers, self.embedding_threads, self.embedding_idle_unload_s
        )

    @property
    def cadence(self) -> Cadence:
        """When a block follows the writes."""
        return Cadence(self.snapshot_interval, self.snapshot_threshold)

    @property
    def runtime(self) -> Path:
        """Where the daemon of this pool keeps its log; distinct for distinct pools."""
        readable = re.sub(r"[^A-Za-z0-9]+", "-", str(self.pool)).strip("-")[-80:] or "root"
        digest = hashlib.sha256(os.fsencode(self.pool)).hexdigest()[:8]
        return RUNTIME_ROOT / f"{readable}-{digest}"

    def plugin_settings(self, name: str) -> dict[str, Any]:
        """What the configuration says to the plugin `name`."""
        table = self.plugin.get(name)
        settings: dict[str, Any] = {"lxcpath": str(self.lxc_path)} if name == "lxc" else {}
        return {**settings, **table.settings} if table else settings

    @property
    def plugin_rules(self) -> dict[str, PluginRules]:
        """What it says to opfs of the plugins that have a table, by name."""
        return {name: table.rules for name, table in self.plugin.items()}

    @property
    def log_file(self) -> Path:
        return self.runtime / "daemon.log"
