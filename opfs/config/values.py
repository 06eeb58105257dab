"""Reading one value of a setting.

Each reader takes what TOML, the environment or a flag gave and returns the value, or raises ValueError with what would
be right.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from opfs.core.cadence import OFF, PER_OP, Cadence
from opfs.core.hooks import read_hooks
from opfs.core.retention import MinFree
from opfs.core.rules import read_tables
from opfs.core.settings import LAYERS, PROVIDERS
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from opfs.core.hooks import Hook
    from opfs.core.rules import PluginTable


def read_path(value: object) -> Path:
    """An absolute path, normalized but not resolved."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("give a path")
    if not os.path.isabs(value):
        raise ValueError("give an absolute path")
    return Path(os.path.normpath(value))


def read_origin(value: object) -> str:
    """The log's name."""
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


def read_bytes(value: object) -> int:
    """A number of bytes; K, M, G and T are powers of 1024."""
    match = _SIZE.match(value.strip()) if isinstance(value, str) else None
    if isinstance(value, int) and not isinstance(value, bool):
        size_bytes = value
    elif match:
        size_bytes = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[(match[2] or "").upper()]
    else:
        raise ValueError("give a number of bytes with an optional K, M, G or T, e.g. 8G")
    return size_bytes


def read_pool_size(value: object) -> int:
    """Bytes of an image that btrfs can be made in."""
    size_bytes = read_bytes(value)
    if size_bytes < 256 << 20:
        raise ValueError("give at least 256M")
    return size_bytes


_PLUGIN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")


def read_plugins(value: object) -> tuple[str, ...]:
    """Where classes of plugins are; in the environment with commas between them."""
    names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and _PLUGIN.match(n) for n in names):
        raise ValueError('give a list of "package.module:Class"')
    return tuple(names)


def read_plugin_tables(value: object) -> dict[str, PluginTable]:
    """The tables [plugin.NAME]; in the environment as the same TOML, without the word plugin before each name."""
    if isinstance(value, str):
        try:
            value = tomllib.loads(value)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f'write TOML, e.g. net.mode = "observe": {error}') from None
    return read_tables(value)


def read_hook_tables(value: object) -> tuple[Hook, ...]:
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


def read_seconds(value: object) -> float:
    """Above zero, up to a day."""
    number = _number(value)
    if not 0 < number <= 86_400:
        raise ValueError("give a number of seconds above 0 and up to 86400")
    return number


def read_pause(value: object) -> float:
    """Seconds, up to a year; zero means something of its own to each setting."""
    number = _number(value)
    if not 0 <= number <= 366 * 86_400:
        raise ValueError("give a number of seconds from 0 up to a year")
    return number


def read_natural(value: object) -> int:
    """A whole number up to a million."""
    number = _number(value)
    if number != number // 1 or not 0 <= number <= 1_000_000:
        raise ValueError("give a whole number from 0 to 1000000")
    return int(number)


def read_layers(value: object) -> tuple[str, ...]:
    """Layers of the cache, in their own order."""
    names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(name in LAYERS for name in names):
        raise ValueError(f"give a list of {', '.join(LAYERS)}")
    return tuple(name for name in LAYERS if name in names)


def read_min_free(value: object) -> MinFree:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError('give a part of the pool, e.g. "10%", or a size, e.g. "2G"')
    return MinFree.parse(str(value))


_LISTEN = re.compile(r"(?:(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):)?(\d{1,5})\Z", re.ASCII)


def read_listen(value: object) -> tuple[str, int]:
    """A port alone is the loopback's."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    match = _LISTEN.match(text) if isinstance(text, str) else None
    if not match or not 0 < int(match[2]) < 65536:
        raise ValueError("give a port for this host alone, or an address and a port, e.g. 9090 or 10.0.0.5:9090")
    return (match[1] or "127.0.0.1").strip("[]"), int(match[2])


def one_of(*choices: str) -> Callable[[object], str]:
    """A reader of one of these words, in any case."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in choices:
            raise ValueError(f"give one of {', '.join(choices)}")
        return value.lower()

    return read


def read_providers(value: object) -> tuple[str, ...]:
    """What runs the model, best first."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(name in list(PROVIDERS) for name in names):
        raise ValueError(f"give a list of {', '.join(PROVIDERS)}; the first that works is used")
    return tuple(names)


def read_thread_count(value: object) -> int:
    number = _number(value)
    if number != number // 1 or not 1 <= number <= 64:
        raise ValueError("give a whole number from 1 to 64")
    return int(number)


def read_interval(value: object) -> str:
    return _cadence(value, OFF).interval


def read_threshold(value: object) -> str:
    return _cadence(PER_OP, value).threshold


def _cadence(interval: object, threshold: object) -> Cadence:
    if not isinstance(interval, str) or not isinstance(threshold, str):
        raise ValueError("give a word")
    try:
        return Cadence(interval, threshold)
    except InvalidRequest as error:
        raise ValueError(f"give {error.hint}") from None
