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

from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONFIG_FILE = Path("/etc/opfs/opfs.toml")
RUNTIME_ROOT = Path("/run/opfs")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a process needs to know to serve or to reach one pool.

    `origin` is None unless set: then the pool's own origin holds, or `<host name>/opfs` for a new pool.
    `image_size_bytes` is None unless set: then a size is chosen from the free space.
    `witness_policy` is None unless set: then no witness is asked.
    `warnings` are settings that were understood and have no effect; the caller shows each once.
    """

    pool: Path
    mount: Path
    origin: str | None
    image_size_bytes: int | None
    plugins: tuple[str, ...]
    models: Path
    lxc_path: Path
    witness_policy: Path | None
    scrub_interval_s: float
    request_timeout_s: float
    ready_timeout_s: float
    log_level: str
    warnings: tuple[str, ...] = ()

    @property
    def runtime(self) -> Path:
        """Where the daemon of this pool keeps its log; distinct for distinct pools."""
        readable = re.sub(r"[^A-Za-z0-9]+", "-", str(self.pool)).strip("-")[-80:] or "root"
        digest = hashlib.sha256(os.fsencode(self.pool)).hexdigest()[:8]
        return RUNTIME_ROOT / f"{readable}-{digest}"

    def plugin_settings(self, name: str) -> dict[str, str]:
        """What the configuration says to the plugin `name`."""
        return {"lxcpath": str(self.lxc_path)} if name == "lxc" else {}

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


def _size(value: object) -> int:
    match = _SIZE.match(value.strip()) if isinstance(value, str) else None
    if isinstance(value, int) and not isinstance(value, bool):
        size_bytes = value
    elif match:
        size_bytes = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[(match[2] or "").upper()]
    else:
        raise ValueError("give a number of bytes with an optional K, M, G or T, e.g. 8G")
    if size_bytes < 256 << 20:
        raise ValueError("give at least 256M")
    return size_bytes


_PLUGIN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")


def _plugins(value: object) -> tuple[str, ...]:
    names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and _PLUGIN.match(n) for n in names):
        raise ValueError('give a list of "package.module:Class"')
    return tuple(names)


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


def _log_level(value: object) -> str:
    levels = ("debug", "info", "warning", "error")
    if not isinstance(value, str) or value.lower() not in levels:
        raise ValueError(f"give one of {', '.join(levels)}")
    return value.lower()


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
    Setting("lxc_path", "OPFS_LXC_PATH", Path("/var/lib/lxc"), _path, "where LXC keeps its containers"),
    Setting("witness_policy", "OPFS_WITNESS_POLICY", None, _path, "the file that names the witnesses of the log"),
    Setting(
        "scrub_interval_s", "OPFS_SCRUB_INTERVAL_S", 86_400.0, _pause, "how long one round of the scrub takes; 0: off"
    ),
    Setting("request_timeout_s", "OPFS_REQUEST_TIMEOUT_S", 600.0, _seconds, "how long one file operation may take"),
    Setting("ready_timeout_s", "OPFS_READY_TIMEOUT_S", 120.0, _seconds, "how long `opfs up` waits for the mount"),
    Setting("log_level", "OPFS_LOG_LEVEL", "info", _log_level, "debug, info, warning or error"),
)


# --- the variables of the original proposal ------------------------------------------------------------


def _one_of(*choices: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        if value not in choices:
            raise ValueError(f"give one of {', '.join(choices)}")

    return check


def _count(value: str) -> None:
    if not re.fullmatch(r"\d{1,6}", value):
        raise ValueError("give a whole number")


def _interval(value: str) -> None:
    if not re.fullmatch(r"per-op|every-[1-9]\d{0,4}-minutes|hourly|daily|weekly", value):
        raise ValueError("give per-op, every-N-minutes, hourly, daily or weekly")


def _directory(value: str) -> None:
    _path(value)


POOL_ALIAS = "OPDBUS_BLOCKCHAIN_DIR"
"""Means what OPFS_POOL means; OPFS_POOL wins."""

PROPOSAL_VARIABLES: Mapping[str, tuple[Callable[[str], None], str | None]] = {
    "OPDBUS_CACHE_DIR": (_directory, None),
    "OPDBUS_CACHE_PLACEMENT": (_one_of("local_node", "round_robin", "most_memory", "disabled"), None),
    "OPDBUS_CACHE_MEMORY_POLICY": (_one_of("bind", "preferred", "interleaved", "default"), None),
    "OPDBUS_SNAPSHOT_INTERVAL": (_interval, "per-op"),
    "OPDBUS_RETAIN_HOURLY": (_count, None),
    "OPDBUS_RETAIN_DAILY": (_count, None),
    "OPDBUS_RETAIN_WEEKLY": (_count, None),
    "OPDBUS_RETAIN_QUARTERLY": (_count, None),
    "OPDBUS_MAX_CACHE_SNAPSHOTS": (_count, None),
}
"""How each variable is checked, and the one value that is what opfs does; any other has no effect yet."""


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
    if environment.get(POOL_ALIAS):
        values["pool"] = _read(by_key["pool"], environment[POOL_ALIAS], POOL_ALIAS)
    for setting in SETTINGS:
        if environment.get(setting.variable):
            values[setting.key] = _read(setting, environment[setting.variable], setting.variable)
    for key, value in flags.items():
        if value is not None:
            flag = {"image_size_bytes": "size"}.get(key, key.replace("_", "-"))
            values[key] = _read(by_key[key], value, f"--{flag}")

    _check_apart(values["pool"], values["mount"])
    return Config(**values, warnings=_check_proposal_variables(environment))


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


def _check_proposal_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    warnings = []
    for name, (check, honoured) in PROPOSAL_VARIABLES.items():
        value = environment.get(name)
        if not value:
            continue
        try:
            check(value)
        except ValueError as error:
            raise InvalidRequest(f"{name} is {value!r}", hint=str(error)) from None
        if value != honoured:
            warnings.append(f"{name}={value} is not implemented yet: ignored")
    known = {"OPFS_CONFIG", POOL_ALIAS, *PROPOSAL_VARIABLES, *(setting.variable for setting in SETTINGS)}
    for name in environment:
        if name.startswith(("OPDBUS_", "OPFS_")) and name not in known:
            warnings.append(f"{name} is not a variable of opfs: ignored")
    return tuple(warnings)
