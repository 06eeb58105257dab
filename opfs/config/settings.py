"""The single list of what can be set; the example file and the documentation are tested against it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opfs.config.values import (
    one_of,
    read_bytes,
    read_hook_tables,
    read_interval,
    read_layers,
    read_listen,
    read_min_free,
    read_natural,
    read_origin,
    read_path,
    read_pause,
    read_plugin_tables,
    read_plugins,
    read_pool_size,
    read_providers,
    read_seconds,
    read_thread_count,
    read_threshold,
)
from opfs.core.cadence import OFF, PER_OP
from opfs.core.retention import MinFree
from opfs.core.settings import DEFAULT_LAYERS, PLACEMENTS, POLICIES, VARIANTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set: its key in the file, its variable, its default and how it is read."""

    key: str
    variable: str
    default: Any
    read: Callable[[object], Any]
    meaning: str


SETTINGS: tuple[Setting, ...] = (
    Setting("pool", "OPFS_POOL", Path("/var/lib/op-dbus"), read_path, "where the pool is mounted"),
    Setting("mount", "OPFS_MOUNT", Path("/mnt/op"), read_path, "where the tree is mounted"),
    Setting("origin", "OPFS_ORIGIN", None, read_origin, "the log's name; fixed when the pool is made"),
    Setting("image_size_bytes", "OPFS_IMAGE_SIZE", None, read_pool_size, "size of a new pool image, e.g. 8G"),
    Setting("plugins", "OPFS_PLUGINS", (), read_plugins, "plugins beside the installed ones"),
    Setting("models", "OPFS_MODELS", Path("/var/lib/opfs/models"), read_path, "where language models are kept"),
    Setting(
        "embedding_variant", "OPFS_EMBEDDING_VARIANT", "fp32", one_of(*VARIANTS), "how the model's weights are held"
    ),
    Setting("embedding_providers", "OPFS_EMBEDDING_PROVIDERS", ("cpu",), read_providers, "what runs the model"),
    Setting("embedding_threads", "OPFS_EMBEDDING_THREADS", 2, read_thread_count, "how many texts are embedded at once"),
    Setting(
        "embedding_idle_unload_s",
        "OPFS_EMBEDDING_IDLE_UNLOAD_S",
        900.0,
        read_pause,
        "after how long without a text the model leaves the memory; 0: never",
    ),
    Setting("placement", "OPFS_PLACEMENT", "disabled", one_of(*PLACEMENTS), "the NUMA node of the index's workers"),
    Setting("memory_policy", "OPFS_MEMORY_POLICY", "default", one_of(*POLICIES), "the NUMA nodes of their memory"),
    Setting("lxc_path", "OPFS_LXC_PATH", Path("/var/lib/lxc"), read_path, "where LXC keeps its containers"),
    Setting("secrets", "OPFS_SECRETS", Path("/etc/opfs/secrets"), read_path, "the directory of the secrets"),
    Setting("witness_policy", "OPFS_WITNESS_POLICY", None, read_path, "the file that names the witnesses of the log"),
    Setting("metrics_listen", "OPFS_METRICS_LISTEN", None, read_listen, "where /metrics is served over HTTP"),
    Setting(
        "scrub_interval_s",
        "OPFS_SCRUB_INTERVAL_S",
        86_400.0,
        read_pause,
        "how long one round of the scrub takes; 0: off",
    ),
    Setting("request_timeout_s", "OPFS_REQUEST_TIMEOUT_S", 600.0, read_seconds, "how long one file operation may take"),
    Setting("ready_timeout_s", "OPFS_READY_TIMEOUT_S", 120.0, read_seconds, "how long `opfs up` waits for the mount"),
    Setting(
        "log_level",
        "OPFS_LOG_LEVEL",
        "info",
        one_of("debug", "info", "warning", "error"),
        "debug, info, warning or error",
    ),
    Setting("retain_newest", "OPFS_RETAIN_NEWEST", 100, read_natural, "which blocks keep snapshots: so many newest"),
    Setting("retain_hourly", "OPFS_RETAIN_HOURLY", 5, read_natural, "and the last one of so many hours"),
    Setting("retain_daily", "OPFS_RETAIN_DAILY", 5, read_natural, "of so many days"),
    Setting("retain_weekly", "OPFS_RETAIN_WEEKLY", 5, read_natural, "of so many weeks"),
    Setting("retain_quarterly", "OPFS_RETAIN_QUARTERLY", 5, read_natural, "and of so many quarters"),
    Setting(
        "retain_min_free",
        "OPFS_RETAIN_MIN_FREE",
        MinFree(),
        read_min_free,
        "room that the pool shall have, e.g. 10% or 2G",
    ),
    Setting(
        "snapshot_interval",
        "OPFS_SNAPSHOT_INTERVAL",
        PER_OP,
        read_interval,
        "how often blocks are made; per-op: always",
    ),
    Setting(
        "snapshot_threshold",
        "OPFS_SNAPSHOT_THRESHOLD",
        OFF,
        read_threshold,
        "how much may change before a block is made",
    ),
    Setting(
        "max_live_blocks", "OPFS_MAX_LIVE_BLOCKS", 1000, read_natural, "snapshots at most before it prunes; 0: never"
    ),
    Setting("cache_dir", "OPFS_CACHE_DIR", None, read_path, "where the cache is, if not in the pool"),
    Setting(
        "cache_max_bytes", "OPFS_CACHE_MAX_BYTES", 64 << 20, read_bytes, "how large the cache may grow; 0: no cache"
    ),
    Setting("cache_layers", "OPFS_CACHE_LAYERS", DEFAULT_LAYERS, read_layers, "what is cached"),
    Setting(
        "max_cache_snapshots", "OPFS_MAX_CACHE_SNAPSHOTS", 24, read_natural, "hourly snapshots of the cache; 0: none"
    ),
    Setting("plugin", "OPFS_PLUGIN", {}, read_plugin_tables, "what the plugins are told"),
    Setting("hook", "OPFS_HOOK", (), read_hook_tables, "who is told of events"),
)

ALIASES: Mapping[str, str] = {
    "OPDBUS_BLOCKCHAIN_DIR": "pool",
    "OPDBUS_CACHE_DIR": "cache_dir",
    "OPDBUS_MAX_CACHE_SNAPSHOTS": "max_cache_snapshots",
    "OPDBUS_CACHE_PLACEMENT": "placement",
    "OPDBUS_CACHE_MEMORY_POLICY": "memory_policy",
    "OPDBUS_RETAIN_HOURLY": "retain_hourly",
    "OPDBUS_RETAIN_DAILY": "retain_daily",
    "OPDBUS_RETAIN_WEEKLY": "retain_weekly",
    "OPDBUS_RETAIN_QUARTERLY": "retain_quarterly",
    "OPDBUS_SNAPSHOT_INTERVAL": "snapshot_interval",
}
"""The proposal's names of settings that opfs has; its own name of the same thing wins."""
