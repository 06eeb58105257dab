"""Limits of running containers, as the kernel enforces them: read, and changed without a restart.

Knows control groups and nothing of LXC but the name its payload groups begin with. Blocking, on the
kernel's memory only: a few microseconds a container.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from opfs.clients.cgroup import CgroupLayout, read_value, write_value
from opfs.plugins.lxc.config import HostCgroups
from opfs.plugins.lxc.limits import CONTROLLERS, FILES, PERIOD_FILE, decode_limits, encode_limit
from opfs.plugins.lxc.plan import LIMITS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PAYLOAD = "lxc.payload"
_UNLIMITED = 1 << 62


class LiveLimits:
    """The limits of the containers of this host; what the host can limit is found out once."""

    def __init__(self) -> None:
        self._layout = CgroupLayout.detect()
        self.host = HostCgroups(
            versions=self._layout.versions(),
            has_swap=self._layout.has_swap_limit(),
            has_bandwidth=self._layout.has_bandwidth_limit(),
            cpu_count=os.cpu_count() or 1,
        )

    def read(self, init_pid: int, configured: Mapping[str, Any]) -> dict[str, Any]:
        """The limits of the container whose init this is; `configured` if it has ended meanwhile."""
        groups = self._layout.groups_of(init_pid, _PAYLOAD)
        if not groups:
            return dict(configured)
        live = self._decode(groups)
        if live.get("cores") == self.host.cpu_count and configured.get("cores") is None:
            # Version 1 has no word for "all CPUs": a group without a limit lists every one.
            del live["cores"]
        return live

    def write(self, element: str, init_pid: int, limits: Mapping[str, Any]) -> bool:
        """Make all limits what `limits` says, None and absent lifting one; returns whether it still runs.

        Raises ApplyFailed with the kernel's reason; what was written before that stays.
        """
        groups = self._layout.groups_of(init_pid, _PAYLOAD)
        keys = [key for key in LIMITS if CONTROLLERS[key] in groups and self._can_limit(key)]
        if (limits.get("memory") or _UNLIMITED) >= (self._decode(groups).get("memory") or _UNLIMITED):
            # Version 1 wants memory <= memory plus swap after every single write: when memory grows, the sum
            # goes first.
            keys.sort(key=lambda key: key != "swap")
        for key in keys:
            self._write_one(key, element, limits, groups[CONTROLLERS[key]])
        return bool(groups)

    def _write_one(self, key: str, element: str, limits: Mapping[str, Any], group: Path) -> None:
        version = self.host.versions[CONTROLLERS[key]]
        value = encode_limit(key, limits, version, element=element, host_cpu_count=self.host.cpu_count)
        if value is None:
            value = self._no_limit(key, version)
        elif key == "cpulimit" and version == 1:
            write_value(group, PERIOD_FILE, "100000")
        if read_value(group, FILES[key, version]) != value:
            write_value(group, FILES[key, version], value)

    def _decode(self, groups: Mapping[str, Path]) -> dict[str, Any]:
        return decode_limits(
            lambda controller, file: read_value(groups[controller], file) if controller in groups else None,
            self.host.versions,
        )

    def _can_limit(self, key: str) -> bool:
        return (key != "swap" or self.host.has_swap) and (key != "cpulimit" or self.host.has_bandwidth)

    def _no_limit(self, key: str, version: int) -> str:
        if key == "cores":
            return ",".join(map(str, range(self.host.cpu_count)))
        return "-1" if version == 1 else "max"
