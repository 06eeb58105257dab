"""The configuration: one frozen record, read once at start from a file, the environment and flags.

Later sources win: built-in defaults, then the TOML file, then environment variables, then flags. `SETTINGS`
is the single list of what can be set; the example file and the documentation are tested against it. This
module opens no pool and starts nothing; reading is synchronous and happens before any event loop.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
import re
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opfs.core.cadence import OFF, PER_OP, Cadence
from opfs.core.hooks import read_hooks
from opfs.core.retention import MinFree, Retention
from opfs.core.rules import read_tables
from opfs.core.settings import DEFAULT_LAYERS, LAYERS, PLACEMENTS, POLICIES, PROVIDERS, VARIANTS, EmbeddingSettings
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opfs.core.hooks import Hook
    from opfs.core.rules import PluginRules, PluginTable

CONFIG_FILE = Path("/etc/opfs/opfs.toml")
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


# --- reading one value ---------------------------------------------------------------------------------
# Each reader takes what TOML, the environment or a flag gave and returns the value, or raises ValueError
# with what would be right.


def _path(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("give a path")
    if not os.path.isabs(value):
        raise ValueError("give an absolute path")
    return Path(os.path.normpath(value))


def _origin(value: object) -> str:
    # C2SP signed-note: a key name holds no white space and no plus; the origin is the key name.
    if (
        not isinstance(value, str)
        or not 1 <= len(value.encode()) <= 255
        or "://" in value
        or re.search(r"[\s+\x00-\x1f\x7f]", value)
    ):
        raise ValueError("give a URL without scheme, blanks or plus signs, e.g. host1.example/opfs")
    return value


_SIZE = re.compile(r"(\d{1,12})(?:\s*([KMGT])(?:i?B)?)?\Z", re.IGNORECASE)


def _bytes(value: object) -> int:
    match = _SIZE.match(value.strip()) if isinstance(value, str) else None
    if isinstance(value, int) and not isinstance(value, bool):
        size_bytes = value
    elif match:
        size_bytes = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[(match[2] or "").upper()]
    else:
        raise ValueError("give a number of bytes with an optional K, M, G or T, e.g. 8G")
    return size_bytes


def _size(value: object) -> int:
    size_bytes = _bytes(value)
    if size_bytes < 256 << 20:
        raise ValueError("give at least 256M")
    return size_bytes


_PLUGIN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")


def _plugins(value: object) -> tuple[str, ...]:
    names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and _PLUGIN.match(n) for n in names):
        raise ValueError('give a list of "package.module:Class"')
    return tuple(names)


def _tables(value: object) -> dict[str, PluginTable]:
    """The tables [plugin.NAME]; in the environment as the same TOML, without the word plugin before each name."""
    if isinstance(value, str):
        try:
            value = tomllib.loads(value)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f'write TOML, e.g. net.mode = "observe": {error}') from None
    return read_tables(value)


def _hooks(value: object) -> tuple[Hook, ...]:
    """The tables [hook.NAME]; in the environment as the same TOML, without the word hook before each name."""
    if isinstance(value, str):
        try:
            value = tomllib.loads(value)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f'write TOML, e.g. chat.command = ["/usr/local/bin/notify"]: {error}') from None
    return read_hooks(value)


def _number(value: object) -> float:
    """Not a number where it is none."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return math.nan
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _seconds(value: object) -> float:
    number = _number(value)
    if not 0 < number <= 86_400:
        raise ValueError("give a number of seconds above 0 and up to 86400")
    return number


def _pause(value: object) -> float:
    number = _number(value)
    if not 0 <= number <= 366 * 86_400:
        raise ValueError("give a number of seconds from 0 up to a year")
    return number


def _natural(value: object) -> int:
    number = _number(value)
    if number != number // 1 or not 0 <= number <= 1_000_000:
        raise ValueError("give a whole number from 0 to 1000000")
    return int(number)


def _layers(value: object) -> tuple[str, ...]:
    names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(name in LAYERS for name in names):
        raise ValueError(f"give a list of {', '.join(LAYERS)}")
    return tuple(name for name in LAYERS if name in names)


def _min_free(value: object) -> MinFree:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError('give a part of the pool, e.g. "10%", or a size, e.g. "2G"')
    return MinFree.parse(str(value))


_LISTEN = re.compile(r"(?:(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):)?(\d{1,5})\Z", re.ASCII)


def _listen(value: object) -> tuple[str, int]:
    """A port alone is the loopback's."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    match = _LISTEN.match(text) if isinstance(text, str) else None
    if not match or not 0 < int(match[2]) < 65536:
        raise ValueError("give a port for this host alone, or an address and a port, e.g. 9090 or 10.0.0.5:9090")
    return (match[1] or "127.0.0.1").strip("[]"), int(match[2])


def _one_of(*choices: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in choices:
            raise ValueError(f"give one of {', '.join(choices)}")
        return value.lower()

    return read


def _providers(value: object) -> tuple[str, ...]:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(name in list(PROVIDERS) for name in names):
        raise ValueError(f"give a list of {', '.join(PROVIDERS)}; the first that works is used")
    return tuple(names)


def _thread_count(value: object) -> int:
    number = _number(value)
    if number != number // 1 or not 1 <= number <= 64:
        raise ValueError("give a whole number from 1 to 64")
    return int(number)


def _interval(value: object) -> str:
    return _cadence(value, OFF).interval


def _threshold(value: object) -> str:
    return _cadence(PER_OP, value).threshold


def _cadence(interval: object, threshold: object) -> Cadence:
    if not isinstance(interval, str) or not isinstance(threshold, str):
        raise ValueError("give a word")
    try:
        return Cadence(interval, threshold)
    except InvalidRequest as error:
        raise ValueError(f"give {error.hint}") from None


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set: its key in the file, its variable, its default and how it is read."""

    key: str
    variable: str
    default: Any
    read: Callable[[object], Any]
    meaning: str


SETTINGS: tuple[Setting, ...] = (
    Setting("pool", "OPFS_POOL", Path("/var/lib/op-dbus"), _path, "where the pool is mounted"),
    Setting("mount", "OPFS_MOUNT", Path("/mnt/op"), _path, "where the tree is mounted"),
    Setting("origin", "OPFS_ORIGIN", None, _origin, "the log's name; fixed when the pool is made"),
    Setting("image_size_bytes", "OPFS_IMAGE_SIZE", None, _size, "size of a new pool image, e.g. 8G"),
    Setting("plugins", "OPFS_PLUGINS", (), _plugins, "plugins beside the installed ones"),
    Setting("models", "OPFS_MODELS", Path("/var/lib/opfs/models"), _path, "where language models are kept"),
    Setting(
        "embedding_variant", "OPFS_EMBEDDING_VARIANT", "fp32", _one_of(*VARIANTS), "how the model's weights are held"
    ),
    Setting("embedding_providers", "OPFS_EMBEDDING_PROVIDERS", ("cpu",), _providers, "what runs the model"),
    Setting("embedding_threads", "OPFS_EMBEDDING_THREADS", 2, _thread_count, "how many texts are embedded at once"),
    Setting(
        "embedding_idle_unload_s",
        "OPFS_EMBEDDING_IDLE_UNLOAD_S",
        900.0,
        _pause,
        "after how long without a text the model leaves the memory; 0: never",
    ),
    Setting("placement", "OPFS_PLACEMENT", "disabled", _one_of(*PLACEMENTS), "the NUMA node of the index's workers"),
    Setting("memory_policy", "OPFS_MEMORY_POLICY", "default", _one_of(*POLICIES), "the NUMA nodes of their memory"),
    Setting("lxc_path", "OPFS_LXC_PATH", Path("/var/lib/lxc"), _path, "where LXC keeps its containers"),
    Setting("secrets", "OPFS_SECRETS", Path("/etc/opfs/secrets"), _path, "the directory of the secrets"),
    Setting("witness_policy", "OPFS_WITNESS_POLICY", None, _path, "the file that names the witnesses of the log"),
    Setting("metrics_listen", "OPFS_METRICS_LISTEN", None, _listen, "where /metrics is served over HTTP"),
    Setting(
        "scrub_interval_s", "OPFS_SCRUB_INTERVAL_S", 86_400.0, _pause, "how long one round of the scrub takes; 0: off"
    ),
    Setting("request_timeout_s", "OPFS_REQUEST_TIMEOUT_S", 600.0, _seconds, "how long one file operation may take"),
    Setting("ready_timeout_s", "OPFS_READY_TIMEOUT_S", 120.0, _seconds, "how long `opfs up` waits for the mount"),
    Setting(
        "log_level",
        "OPFS_LOG_LEVEL",
        "info",
        _one_of("debug", "info", "warning", "error"),
        "debug, info, warning or error",
    ),
    Setting("retain_newest", "OPFS_RETAIN_NEWEST", 100, _natural, "which blocks keep snapshots: so many newest"),
    Setting("retain_hourly", "OPFS_RETAIN_HOURLY", 5, _natural, "and the last one of so many hours"),
    Setting("retain_daily", "OPFS_RETAIN_DAILY", 5, _natural, "of so many days"),
    Setting("retain_weekly", "OPFS_RETAIN_WEEKLY", 5, _natural, "of so many weeks"),
    Setting("retain_quarterly", "OPFS_RETAIN_QUARTERLY", 5, _natural, "and of so many quarters"),
    Setting(
        "retain_min_free", "OPFS_RETAIN_MIN_FREE", MinFree(), _min_free, "room that the pool shall have, e.g. 10% or 2G"
    ),
    Setting(
        "snapshot_interval", "OPFS_SNAPSHOT_INTERVAL", PER_OP, _interval, "how often blocks are made; per-op: always"
    ),
    Setting(
        "snapshot_threshold", "OPFS_SNAPSHOT_THRESHOLD", OFF, _threshold, "how much may change before a block is made"
    ),
    Setting("max_live_blocks", "OPFS_MAX_LIVE_BLOCKS", 1000, _natural, "snapshots at most before it prunes; 0: never"),
    Setting("cache_dir", "OPFS_CACHE_DIR", None, _path, "where the cache is, if not in the pool"),
    Setting("cache_max_bytes", "OPFS_CACHE_MAX_BYTES", 64 << 20, _bytes, "how large the cache may grow; 0: no cache"),
    Setting("cache_layers", "OPFS_CACHE_LAYERS", DEFAULT_LAYERS, _layers, "what is cached"),
    Setting("max_cache_snapshots", "OPFS_MAX_CACHE_SNAPSHOTS", 24, _natural, "hourly snapshots of the cache; 0: none"),
    Setting("plugin", "OPFS_PLUGIN", {}, _tables, "what the plugins are told"),
    Setting("hook", "OPFS_HOOK", (), _hooks, "who is told of events"),
)


# --- the variables of the original proposal ------------------------------------------------------------


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


# --- putting it together -------------------------------------------------------------------------------


def load_config(flags: Mapping[str, object], environment: Mapping[str, str] | None = None) -> Config:
    """Read the file, `environment` (default: the process's) and `flags` (keys of `SETTINGS`; None is unset).

    The file is `OPFS_CONFIG`, or `CONFIG_FILE` where that exists. Raises InvalidRequest, naming the source.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {setting.key: setting.default for setting in SETTINGS}
    by_key = {setting.key: setting for setting in SETTINGS}

    for key, value in _load_file(environment).items():
        values[key] = _read(by_key[key], value, f"{key} in {_file(environment)}")
    for alias, key in ALIASES.items():
        if environment.get(alias):
            values[key] = _read(by_key[key], environment[alias], alias)
    for setting in SETTINGS:
        if environment.get(setting.variable):
            values[setting.key] = _read(setting, environment[setting.variable], setting.variable)
    for key, value in flags.items():
        if value is not None:
            flag = {"image_size_bytes": "size"}.get(key, key.replace("_", "-"))
            values[key] = _read(by_key[key], value, f"--{flag}")

    _check_apart(values["pool"], values["mount"])
    return Config(**values, warnings=_unknown_variables(environment))


def _file(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("OPFS_CONFIG") or CONFIG_FILE)


def _load_file(environment: Mapping[str, str]) -> dict[str, object]:
    path = _file(environment)
    try:
        with path.open("rb") as file:
            _check_owner(path, os.fstat(file.fileno()))
            content = tomllib.load(file)
    except FileNotFoundError:
        if environment.get("OPFS_CONFIG"):
            raise InvalidRequest(f"the file {path} named by OPFS_CONFIG does not exist") from None
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is not TOML: {error}") from error
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
    keys = [setting.key for setting in SETTINGS]
    for key in content:
        if key not in keys:
            nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
            hint = f"the nearest known key is {nearest[0]}" if nearest else f"known keys: {', '.join(keys)}"
            raise InvalidRequest(f"{path} sets {key!r}, which is no setting", hint=hint)
    return content


def _check_owner(path: Path, status: os.stat_result) -> None:
    # The file names Python classes that root imports, so who writes it is root.
    if os.geteuid() == 0 and (status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise InvalidRequest(
            f"{path} can be written by others than root", hint=f"chown root {path} && chmod go-w {path}"
        )


def _read(setting: Setting, value: object, source: str) -> Any:
    try:
        return setting.read(value)
    except ValueError as error:
        raise InvalidRequest(f"{source} is {value!r}, which is not {setting.meaning}", hint=str(error)) from None


def _check_apart(pool: Path, mount: Path) -> None:
    if pool == mount or pool in mount.parents or mount in pool.parents:
        raise InvalidRequest(
            f"the pool {pool} and the mount {mount} are one inside the other", hint="give two separate directories"
        )


def _unknown_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    known = {"OPFS_CONFIG", *ALIASES, *(setting.variable for setting in SETTINGS)}
    return tuple(
        f"{name} is not a variable of opfs: ignored"
        for name in environment
        if name.startswith(("OPDBUS_", "OPFS_")) and name not in known
    )
