"""Settings in a restore state: which ones an export tells, and what another host's opfs.toml would have to say.

Nothing is ever set from a file: settings are root's to write. Hooks are told by name only, because their commands and
addresses may hold what lets somebody in. Pure but for the look at which models are there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opfs.config import SETTINGS
from opfs.core.rules import DEFAULT_RULES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from opfs.config import Config
    from opfs.core.restore_state import RestoreState
    from opfs.core.rules import PluginTable

_OWN = ("pool", "mount", "origin", "image_size_bytes")
"""Of the host itself: another one has its own."""
_TABLES = ("plugin", "hook")
_RETAIN = "retain_"
_LIVE = "max_live_blocks"


def retention_of(config: Config) -> dict[str, object]:
    """How many blocks keep their snapshots, by the setting's name without `retain_`."""
    return {
        setting.key.removeprefix(_RETAIN): _as_json(getattr(config, setting.key))
        for setting in SETTINGS
        if _is_retention(setting.key)
    }


def settings_of(config: Config) -> dict[str, object]:
    """Every other setting that is not the default, in JSON."""
    told: dict[str, object] = {
        setting.key: _as_json(getattr(config, setting.key))
        for setting in SETTINGS
        if not _is_retention(setting.key)
        and setting.key not in (*_OWN, *_TABLES)
        and getattr(config, setting.key) != setting.default
    }
    if config.plugin:
        told["plugin"] = {name: _table(table) for name, table in sorted(config.plugin.items())}
    if config.hook:
        told["hooks"] = sorted(hook.name for hook in config.hook)
    return told


def toml_to_add(state: RestoreState, config: Config) -> list[str]:
    """The lines of opfs.toml in which this host's settings are not those of the state; comments for what is no line."""
    here = settings_of(config)
    wanted = {
        (key if key == _LIVE else f"{_RETAIN}{key}"): value
        for key, value in state.retention.items()
        if retention_of(config).get(key) != value
    }
    defaults = {setting.key: _as_json(setting.default) for setting in SETTINGS}
    wanted |= {
        key: value
        for key, value in state.settings.items()
        if key not in ("plugin", "hooks") and here.get(key, defaults.get(key)) != value
    }
    unknown = [key for key in wanted if key not in defaults]
    lines = [f"{key} = {_toml(value)}" for key, value in wanted.items() if key not in unknown]
    lines += [f"# {key} is no setting of this version" for key in unknown]
    lines += _tables(state.settings.get("plugin"), here.get("plugin"))
    hooks = state.settings.get("hooks")
    there = here.get("hooks", [])
    for name in hooks if isinstance(hooks, list) else []:
        if isinstance(there, list) and name not in there:
            lines.append(f"# the table [hook.{name}] stands in the other host's opfs.toml only")
    return lines


def models_to_fetch(state: RestoreState, config: Config) -> Sequence[str]:
    """The names of models that this host has not."""
    names = [str(model["name"]) for model in state.models]
    return [name for name in names if "/" in name or not (config.models / name).is_dir()]


def _is_retention(key: str) -> bool:
    return key.startswith(_RETAIN) or key == _LIVE


def _table(table: PluginTable) -> dict[str, object]:
    rules = {
        key: _as_json(getattr(table.rules, key))
        for key in ("mode", "correct_drift", "poll_interval_s")
        if getattr(table.rules, key) != getattr(DEFAULT_RULES, key)
    }
    return {**rules, **{key: _as_json(value) for key, value in table.settings.items()}}


def _tables(wanted: object, here: object) -> Iterator[str]:
    """[plugin.NAME] as it was there, where this host has another or none."""
    if not isinstance(wanted, dict):
        return
    for name, table in wanted.items():
        if not isinstance(table, dict) or (isinstance(here, dict) and here.get(name) == table):
            continue
        yield f"[plugin.{name}]"
        yield from (f"{key} = {_toml(value)}" for key, value in table.items())


def _as_json(value: Any) -> Any:
    """A setting's value as JSON has it; what it has not, as times and dates, as text."""
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, bool | int | float) or value is None:
        return value
    return str(value) if isinstance(value, Path) else f"{value}"


def _toml(value: object) -> str:
    """JSON's texts, numbers, truths and arrays are TOML's; an object is an inline table there."""
    if isinstance(value, dict):
        inner: Mapping[str, object] = value
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in inner.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
