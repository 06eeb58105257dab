"""Units: what they may be called, what their text may say, and how a file of ours is known; pure.

A file that opfs writes begins with one comment line, which says whose it is and what it held. Without it a file
is somebody else's; with another digest than its content has, it was changed since. Sources: systemd.unit(5),
systemd.syntax(7).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SECTIONS: Mapping[str, str] = {
    "service": "Service",
    "socket": "Socket",
    "target": "",
    "timer": "Timer",
    "mount": "Mount",
    "automount": "Automount",
    "swap": "Swap",
    "path": "Path",
    "slice": "Slice",
}
"""The kinds of units that have files, with the section of their own; device and scope units have none."""

LIMITED = {"service": "Service", "socket": "Socket", "mount": "Mount", "swap": "Swap", "slice": "Slice"}
"""The kinds that have control groups, with the D-Bus interface that tells their limits."""

UNIT_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9:_.-]*(@[A-Za-z0-9:_.-]*)?\.({'|'.join(SECTIONS)})\Z")
"""Names that an element may have too: a backslash, as in the escaped paths of mounts, it may not."""

_MARK = re.compile(r"# Written by opfs for systemd/\S+, BLAKE3 ([0-9a-f]{32})[^\n]*\n")
_SECTION = re.compile(r"\[([^\[\]]+)\]\Z")
_COMMENTS = ("#", ";")
_LINE_BYTES_MAX = 1 << 20
"""systemd's own limit of a line, which continued lines are together."""


def kind_of(unit: str) -> str:
    return unit.rpartition(".")[2]


def is_template(unit: str) -> bool:
    """Whether the name is one of a template (`web@.service`), which cannot run itself."""
    return "@." in unit


def template_of(unit: str) -> str | None:
    """`web@.service` for `web@one.service`; None for a unit that is no instance."""
    name, _, suffix = unit.rpartition(".")
    prefix, at, instance = name.partition("@")
    return f"{prefix}@.{suffix}" if at and instance else None


def with_mark(unit: str, text: str) -> str:
    """The file of ours that holds `text`."""
    return f"# Written by opfs for systemd/{unit}, BLAKE3 {_digest(text)}; change the document, not this.\n{text}"


def without_mark(file: str) -> tuple[str, str | None]:
    """The text of a file, and its origin: None if it is as opfs wrote it, else `foreign` or `changed`."""
    mark = _MARK.match(file)
    if not mark:
        return file, "foreign"
    text = file[mark.end() :]
    return text, None if mark[1] == _digest(text) else "changed"


def _digest(text: str) -> str:
    return blake3(text.encode()).hexdigest(16)


@dataclass(frozen=True, slots=True)
class Setting:
    """One assignment: where it begins (lines count from 1), what it says."""

    line: int
    section: str
    key: str
    value: str


class UnitSyntaxError(ValueError):
    """Text that is no unit file; says the line and what would be right."""

    def __init__(self, line: int, reason: str, hint: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.hint = hint


def read_settings(text: str) -> Iterator[Setting]:
    """The assignments of a unit file in order. Raises UnitSyntaxError."""
    section = ""
    for number, line in _joined_lines(text):
        match = _SECTION.match(line)
        if match:
            section = match[1]
        elif line.startswith("["):
            raise UnitSyntaxError(number, f"{line!r} is no section", "write it as [Service]")
        elif "=" not in line:
            raise UnitSyntaxError(number, f"{_shortened(line)} is no assignment", "write it as Key=value")
        elif not section:
            raise UnitSyntaxError(number, f"{_shortened(line)} is in no section", "begin with one, e.g. [Unit]")
        else:
            key, _, value = line.partition("=")
            yield Setting(number, section, key.strip(), value.strip())


def _joined_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with the ones that continue them, stripped; without comments, also those in between, and empty lines."""
    begin, length, parts = 0, 0, list[str]()
    for number, raw in enumerate(text.split("\n"), 1):
        if "\0" in raw:
            raise UnitSyntaxError(number, "there is a NUL in it", "remove it")
        line = raw.strip()
        if (not line and not parts) or line.startswith(_COMMENTS):
            continue
        begin = begin or number
        parts.append(line.removesuffix("\\") + " " if line.endswith("\\") else line)
        length += len(parts[-1].encode("utf-8", "surrogatepass"))
        if length > _LINE_BYTES_MAX:
            raise UnitSyntaxError(begin, "the line is longer than 1 MiB", "divide it")
        if not line.endswith("\\"):
            yield begin, "".join(parts).strip()
            begin, length, parts = 0, 0, []
    if parts:
        yield begin, "".join(parts).strip()


def check_text(unit: str, text: str, known: Mapping[str, frozenset[str]], *, is_dropin: bool = False) -> None:
    """Raise UnitSyntaxError for text that systemd would ignore or refuse.

    `known` gives the settings that the host's systemd knows, by section; nothing is said of one that it does not
    give. Sections and settings that begin with `X-` belong to others and are never looked at.
    """
    own = SECTIONS[kind_of(unit)]
    allowed = [section for section in ("Unit", own, "" if is_dropin else "Install") if section]
    for setting in read_settings(text):
        if setting.section.startswith("X-") or setting.key.startswith("X-"):
            continue
        if setting.section not in allowed:
            where = "a drop-in" if is_dropin else f"a .{kind_of(unit)}"
            near = difflib.get_close_matches(setting.section, allowed, n=1, cutoff=0.5)
            hint = f"did you mean [{near[0]}]?" if near else f"there are: {', '.join(f'[{name}]' for name in allowed)}"
            raise UnitSyntaxError(setting.line, f"{where} has no section [{setting.section}]", hint)
        keys = known.get(setting.section)
        if keys and setting.key not in keys:
            near = difflib.get_close_matches(setting.key, keys, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}=?" if near else "man systemd.directives lists them all"
            raise UnitSyntaxError(setting.line, f"[{setting.section}] has no setting {setting.key}=", hint)


def _shortened(line: str) -> str:
    return repr(line if len(line) <= 60 else f"{line[:57]}...")
