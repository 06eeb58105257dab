"""Putting the record together: built-in defaults, then the TOML file, then environment variables, then flags.

Later sources win.
"""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opfs.config.record import Config
from opfs.config.settings import ALIASES, SETTINGS
from opfs.core.printable import clip
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.config.settings import Setting

CONFIG_FILE = Path("/etc/opfs/opfs.toml")


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
        raise InvalidRequest(
            f"{source} cannot be {clip(repr(value), 60)} ({setting.meaning})", hint=str(error)
        ) from None


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
