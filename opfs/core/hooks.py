"""What the configuration says of hooks: a command or a URL that is told of events, and which; pure.

Who reads the file is opfs.config; who tells them is opfs.daemon.hooks.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 30.0
MAX_TIMEOUT_S = 3600.0
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z", re.ASCII)
_KEYS = ("command", "url", "plugins", "ops", "timeout_s")


@dataclass(frozen=True, slots=True)
class Hook:
    """One of `command` (an argument list) and `url` is set. Empty `plugins` and `ops` mean all of them."""

    name: str
    command: tuple[str, ...] = ()
    url: str = ""
    plugins: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()
    timeout_s: float = TIMEOUT_S

    def wants(self, event: Mapping[str, Any]) -> bool:
        """Whether the hook is told of an event, which is as a line of /events has it."""
        return (not self.plugins or event["plugin"] in self.plugins) and (not self.ops or event["op"] in self.ops)


def read_hooks(tables: object) -> tuple[Hook, ...]:
    """The tables [hook.NAME], in order; raises ValueError with what would be right."""
    if not isinstance(tables, dict):
        raise ValueError("write a table for each hook, e.g. [hook.chat]")
    return tuple(_read_hook(name, table) for name, table in tables.items())


def _read_hook(name: str, table: object) -> Hook:
    if not _NAME.match(name):
        raise ValueError(f"{name!r} cannot be the name of a hook: use a-z, 0-9, _ and -")
    if not isinstance(table, dict):
        raise ValueError(f"hook.{name} is no table: write [hook.{name}] and its keys below")
    for key in table:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1)
            raise ValueError(
                f"[hook.{name}] sets {key!r}: " + (f"did you mean {near[0]}?" if near else ", ".join(_KEYS))
            )
    command, url = _words(name, table, "command"), table.get("url", "")
    if not isinstance(url, str) or bool(command) == bool(url):
        raise ValueError(f"[hook.{name}] needs a command or a url, and not both")
    if command and not command[0].startswith("/"):
        raise ValueError(f"the command of [hook.{name}] begins with an absolute path, e.g. /usr/local/bin/notify")
    if url and not re.match(r"https?://", url):
        raise ValueError(f"the url of [hook.{name}] begins with http:// or https://")
    plugins, ops = _words(name, table, "plugins"), _words(name, table, "ops")
    return Hook(name, command, url, plugins, ops, _timeout(name, table.get("timeout_s", TIMEOUT_S)))


def _words(name: str, table: Mapping[str, object], key: str) -> tuple[str, ...]:
    words = table.get(key, [])
    if not isinstance(words, list) or not all(isinstance(word, str) and word and "\0" not in word for word in words):
        raise ValueError(f'{key} of [hook.{name}] is a list of texts, e.g. ["one", "two"]')
    return tuple(words)


def _timeout(name: str, value: object) -> float:
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0.1 <= number <= MAX_TIMEOUT_S:
        raise ValueError(f"timeout_s of [hook.{name}] is a number of seconds from 0.1 up to {MAX_TIMEOUT_S:.0f}")
    return number
