"""A container's `config` file as lines: read, and changed without touching what is not ours; pure.

Every line that is not asked to change (what the template wrote, what a person added, comments) stays byte for
byte as it is, and so does a line whose value is right already. Files named by `lxc.include` are not
followed. What LXC has no key for is kept in one comment line of ours, `#opfs {...}`, which LXC carries
along. Source: lxc.container.conf(5).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

_ENTRY = re.compile(r"\s*(lxc\.[A-Za-z0-9_.-]+)\s*=\s*(.*?)\s*\Z")
_NOTES = "#opfs "


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The lines of a container's configuration, without their line feeds."""

    lines: tuple[str, ...]
    _values: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_values", dict(self.entries()))

    @classmethod
    def parse(cls, text: str) -> ConfigFile:
        return cls(tuple(text.split("\n")[:-1] if text.endswith("\n") else text.split("\n")))

    def render(self) -> str:
        return "".join(line + "\n" for line in self.lines)

    def entries(self) -> Iterator[tuple[str, str]]:
        """Keys and values in order, quotes removed; comments and what is no entry left out."""
        for line in self.lines:
            match = _ENTRY.match(line)
            if match:
                yield match[1], _unquote(match[2])

    def get(self, key: str) -> str | None:
        """The value that counts, which is the last one; None if it is not set or set to nothing."""
        return self._values.get(key) or None

    def all_of(self, key: str) -> list[str]:
        """Every value of a key that may be there many times."""
        return [value for name, value in self.entries() if name == key]

    def notes(self) -> dict[str, Any]:
        """What our comment line holds; nothing if it is missing or somebody broke it."""
        for line in self.lines:
            if line.startswith(_NOTES):
                try:
                    notes = json.loads(line.removeprefix(_NOTES))
                except ValueError:
                    return {}
                return notes if isinstance(notes, dict) else {}
        return {}

    def with_values(self, values: Mapping[str, str | None]) -> ConfigFile:
        """Set keys, or remove them where the value is None; new keys go to the end."""
        kept: list[str] = []
        written: set[str] = set()
        for line in self.lines:
            match = _ENTRY.match(line)
            if not match or match[1] not in values:
                kept.append(line)
                continue
            key, value = match[1], values[match[1]]
            if value is None or key in written:
                continue
            written.add(key)
            kept.append(line if _unquote(match[2]) == value else f"{key} = {value}")
        added = [f"{key} = {value}" for key, value in values.items() if value is not None and key not in written]
        return ConfigFile((*kept, *added))

    def with_lines(self, remove: Collection[tuple[str, str]], add: Sequence[tuple[str, str]]) -> ConfigFile:
        """Take entries out, and put others at the end, of keys that may be there many times."""
        kept = list(self.lines)
        there: list[tuple[str, str]] = []
        for line in self.lines:
            match = _ENTRY.match(line)
            entry = (match[1], _unquote(match[2])) if match else None
            if entry is None:
                continue
            if entry in remove and entry not in add:
                kept.remove(line)
            else:
                there.append(entry)
        return ConfigFile((*kept, *(f"{key} = {value}" for key, value in add if (key, value) not in there)))

    def with_notes(self, changes: Mapping[str, Any]) -> ConfigFile:
        """Change what our comment line holds; a value that is empty, false or None is removed."""
        notes = {key: value for key, value in {**self.notes(), **changes}.items() if value}
        kept = tuple(line for line in self.lines if not line.startswith(_NOTES))
        # One line of ASCII, whatever the notes hold: no text of a document can end the comment.
        head = (_NOTES + json.dumps(notes, sort_keys=True, ensure_ascii=True),) if notes else ()
        return self if notes == self.notes() else ConfigFile((*head, *kept))


def _unquote(value: str) -> str:
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'" else value
