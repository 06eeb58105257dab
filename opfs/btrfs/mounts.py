"""What is mounted where, as /proc/self/mountinfo tells it; changes nothing.

Concurrency: stateless; an answer may be out of date when it arrives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo (proc_pid_mountinfo(5)).

    `options` belong to the mount, `super_options` to the file system; an option is `name` or `name=value`.
    """

    id: int
    mount_point: Path
    fs_type: str
    source: str
    options: frozenset[str]
    super_options: frozenset[str]


def parse_mountinfo(text: str) -> list[Mount]:
    """Read the content of a mountinfo file; later lines lie over earlier ones."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, tail = before.split(" "), after.split(" ")
        mounts.append(
            Mount(
                id=int(fields[0]),
                mount_point=Path(_unescape(fields[4])),
                fs_type=tail[0],
                source=_unescape(tail[1]),
                options=frozenset(fields[5].split(",")),
                super_options=frozenset(tail[2].split(",")),
            )
        )
    return mounts


def mount_at(path: Path) -> Mount | None:
    """The mount whose mount point is `path`, the topmost if there are several."""
    found = [mount for mount in _load_mounts() if mount.mount_point == path]
    return found[-1] if found else None


def mount_of(fd: int) -> Mount | None:
    """The mount that an open file lies in; None where it is not visible from here."""
    id = re.search(r"^mnt_id:\s*(\d+)$", Path(f"/proc/self/fdinfo/{fd}").read_text(), re.MULTILINE)
    return next((mount for mount in _load_mounts() if id and mount.id == int(id[1])), None)


def mounts_of_source(source: str) -> list[Mount]:
    """Every mount of a device, e.g. `/dev/loop0`."""
    return [mount for mount in _load_mounts() if mount.source == source]


def _load_mounts() -> list[Mount]:
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text())


def _unescape(field: str) -> str:
    """Undo the octal escapes of blanks, tabs, newlines and backslashes."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
