"""The ids of the host that root may hand to containers: subuid(5), subgid(5); blocking."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_COUNT_MIN = 65_536
"""A system has ids up to 65535 (nobody is 65534)."""


def root_ids(directory: Path) -> tuple[int, int] | None:
    """The first range that both `subuid` and `subgid` in `directory` give to root, None without one."""
    ranges = [_ranges(directory / name) for name in ("subuid", "subgid")]
    common = [found for found in ranges[0] if found in ranges[1] and found[1] >= _COUNT_MIN]
    return (common[0][0], _COUNT_MIN) if common else None


def _ranges(file: Path) -> list[tuple[int, int]]:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return []
    fields = [line.split(":") for line in lines if not line.startswith("#")]
    return [
        (int(first), int(count))
        for owner, first, count in (line for line in fields if len(line) == 3)
        if owner in ("root", "0") and first.isdigit() and count.isdigit()
    ]
