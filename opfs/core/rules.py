"""What the configuration says of a plugin: to opfs, which these rules are, and to the plugin, whose settings pass by.

Pure; who reads the file is opfs.config.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opfs.core.meta import Mode
from opfs.core.names import PLUGIN_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

POLL_INTERVAL_S = 60.0
MAX_POLL_INTERVAL_S = 86_400.0


@dataclass(frozen=True, slots=True)
class PluginRules:
    """`mode` holds for elements whose document names none. Drift is looked for every `poll_interval_s` (0: at the start
    only) where the backend does not report changes, and corrected only with `correct_drift`.
    """

    mode: Mode = Mode.ENFORCE
    correct_drift: bool = False
    poll_interval_s: float = POLL_INTERVAL_S


DEFAULT_RULES = PluginRules()


@dataclass(frozen=True, slots=True)
class PluginTable:
    """One table `[plugin.NAME]`: the rules for opfs, and all other keys, which are the plugin's own."""

    rules: PluginRules = DEFAULT_RULES
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_tables(tables: object) -> dict[str, PluginTable]:
    """The tables of all plugins, by name; raises ValueError with what would be right."""
    if not isinstance(tables, dict):
        raise ValueError("write a table for each plugin, e.g. [plugin.net]")
    return {_plugin_name(name): _read_table(name, table) for name, table in tables.items()}


def _plugin_name(name: str) -> str:
    if not PLUGIN_NAME.match(name):
        raise ValueError(f"{name!r} cannot be the name of a plugin")
    return name


def _read_table(name: str, table: object) -> PluginTable:
    if not isinstance(table, dict):
        raise ValueError(f"plugin.{name} is no table: write [plugin.{name}] and its keys below")
    rules: dict[str, Any] = {}
    settings = {}
    for key, value in table.items():
        if key in _READERS:
            try:
                rules[key] = _READERS[key](value)
            except ValueError as error:
                raise ValueError(f"{key} of [plugin.{name}] is {value!r}: {error}") from None
            continue
        near = difflib.get_close_matches(key, _READERS, n=1, cutoff=0.8)
        if near:
            raise ValueError(f"[plugin.{name}] sets {key!r}: did you mean {near[0]}?")
        settings[key] = value
    return PluginTable(PluginRules(**rules), settings)


def _mode(value: object) -> Mode:
    if value not in list(Mode):
        raise ValueError(f"give one of {', '.join(Mode)}")
    return Mode(str(value))


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("give true or false")
    return value


def _interval(value: object) -> float:
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if number != 0 and not 0.1 <= number <= MAX_POLL_INTERVAL_S:
        raise ValueError("give a number of seconds from 0.1 up to 86400, or 0 for once")
    return number


_READERS: Mapping[str, Callable[[object], Any]] = {
    "mode": _mode,
    "correct_drift": _truth,
    "poll_interval_s": _interval,
}
