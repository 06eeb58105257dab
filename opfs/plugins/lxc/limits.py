"""Limits of a document as the kernel's control groups word them, versions 1 and 2; pure.

The same wording serves the container's configuration (`lxc.cgroup.FILE`, `lxc.cgroup2.FILE`) and the live
files of its control group. Sizes are MiB in documents and bytes in the kernel.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONTROLLERS: Mapping[str, str] = {"memory": "memory", "swap": "memory", "cores": "cpuset", "cpulimit": "cpu"}
"""The controller that enforces each limit."""

FILES: Mapping[tuple[str, int], str] = {
    ("memory", 1): "memory.limit_in_bytes",
    ("memory", 2): "memory.max",
    ("swap", 1): "memory.memsw.limit_in_bytes",
    ("swap", 2): "memory.swap.max",
    ("cores", 1): "cpuset.cpus",
    ("cores", 2): "cpuset.cpus",
    ("cpulimit", 1): "cpu.cfs_quota_us",
    ("cpulimit", 2): "cpu.max",
}
PERIOD_FILE = "cpu.cfs_period_us"
"""Of version 1 only: there the period has a file of its own."""

_MIB = 1 << 20
_PERIOD_US = 100_000
_UNLIMITED_BYTES = 1 << 62
"""Version 1 reports "no limit" as the largest multiple of a page below 2^63."""


def encode_limit(key: str, limits: Mapping[str, Any], version: int, *, element: str, host_cpu_count: int) -> str | None:
    """The kernel's value of one limit, or None where the document sets none."""
    value = limits.get(key)
    if value is None:
        return None
    if key == "cores":
        return format_cpus(choose_cpus(element, value, host_cpu_count))
    if key == "cpulimit":
        quota_us = round(value * _PERIOD_US)
        return str(quota_us) if version == 1 else f"{quota_us} {_PERIOD_US}"
    # Version 1 limits memory and swap together, version 2 swap alone.
    size = value + limits["memory"] if key == "swap" and version == 1 else value
    return str(int(size * _MIB))


def decode_limits(read: Callable[[str, str], str | None], versions: Mapping[str, int]) -> dict[str, Any]:
    """The limits that `read(controller, file)` finds, in the document's units; absent where there is none.

    A size that is no whole number of MiB is a fraction, which no document can ask for: so a limit that
    somebody else set is never taken for ours.
    """
    found: dict[str, Any] = {}
    raw = {
        key: read(controller, FILES[key, versions[controller]])
        for key, controller in CONTROLLERS.items()
        if controller in versions
    }
    memory_bytes, swap_bytes = _bytes(raw.get("memory")), _bytes(raw.get("swap"))
    if memory_bytes is not None:
        found["memory"] = _mib(memory_bytes)
    if swap_bytes is not None and versions["memory"] == 2:
        found["swap"] = _mib(swap_bytes)
    elif swap_bytes is not None and memory_bytes is not None:
        found["swap"] = _mib(max(0, swap_bytes - memory_bytes))
    if raw.get("cores"):
        found["cores"] = len(parse_cpus(raw["cores"] or ""))
    quota, _, period = (raw.get("cpulimit") or "max").partition(" ")
    if quota != "max" and not quota.startswith("-"):
        period = period or (read("cpu", PERIOD_FILE) if versions["cpu"] == 1 else None) or str(_PERIOD_US)
        found["cpulimit"] = round(int(quota) / int(period), 6)
    return found


def choose_cpus(element: str, count: int, host_cpu_count: int) -> tuple[int, ...]:
    """Which CPUs a container with `count` cores gets: neighbours, from a place that its name decides.

    Spreading by name keeps containers off each other without knowing of each other, and the choice is the
    same on every run.
    """
    first = zlib.crc32(element.encode()) % host_cpu_count
    return tuple(sorted((first + step) % host_cpu_count for step in range(min(count, host_cpu_count))))


def format_cpus(cpus: tuple[int, ...]) -> str:
    """A list as the kernel takes it (cpuset(7), "List format")."""
    return ",".join(map(str, cpus))


def parse_cpus(text: str) -> tuple[int, ...]:
    """Read the kernel's list format: `0-2,5`."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(cpus))


def _bytes(text: str | None) -> int | None:
    """A size as the configuration (with LXC's suffixes) or the kernel writes it; None for no limit."""
    text = (text or "max").strip()
    if text == "max" or text.startswith("-"):
        return None
    unit = {"K": 10, "M": 20, "G": 30, "T": 40}.get(text[-1].upper(), 0)
    size = int(text[:-1] if unit else text) << unit
    return size if size < _UNLIMITED_BYTES else None


def _mib(size_bytes: int) -> int | float:
    return size_bytes // _MIB if size_bytes % _MIB == 0 else size_bytes / _MIB
