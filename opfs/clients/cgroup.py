"""Control groups of the kernel, versions 1, 2 and both at once: where they are, reading and writing limits.

Knows files, not containers and not documents. Blocking, but only on the kernel's own memory: each call is
a few microseconds, so callers may stay on the trio thread for one and use a worker thread for hundreds.
Sources: cgroups(7), proc_pid_mountinfo(5), the kernel's cgroup-v1/memory and cgroup-v2 documents.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONTROLLERS = ("memory", "cpuset", "cpu")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy: its version and where it is mounted."""

    version: int
    mount: Path


@dataclass(frozen=True, slots=True)
class CgroupLayout:
    """The hierarchy of each controller that this host can use."""

    hierarchies: Mapping[str, Hierarchy]

    @classmethod
    def detect(cls, mountinfo: Path = Path("/proc/self/mountinfo")) -> CgroupLayout:
        """Read the mounts; a host may have some controllers in version 1 and the others in version 2."""
        found: dict[str, Hierarchy] = {}
        for line in mountinfo.read_text().splitlines():
            left, _, right = line.partition(" - ")
            mount = Path(left.split()[4])
            kind, _, options = right.split()[:3]
            if kind == "cgroup2":
                names, version = _read_words(mount / "cgroup.controllers"), 2
            elif kind == "cgroup":
                names, version = options.split(","), 1
            else:
                continue
            for name in names:
                if name in _CONTROLLERS:
                    # The last mount on a place hides the ones before it.
                    found[name] = Hierarchy(version, mount)
        return cls(found)

    def versions(self) -> dict[str, int]:
        return {name: hierarchy.version for name, hierarchy in self.hierarchies.items()}

    def has_swap_limit(self) -> bool:
        """Whether the kernel accounts swap (it may be compiled or booted without)."""
        memory = self.hierarchies.get("memory")
        if memory is None:
            return False
        if memory.version == 1:
            return (memory.mount / "memory.memsw.limit_in_bytes").exists()
        # The root group has no limits of its own: look into its children, of which a host always has some.
        return any(memory.mount.glob("*/memory.swap.max"))

    def has_bandwidth_limit(self) -> bool:
        """Whether the kernel limits CPU time (CONFIG_CFS_BANDWIDTH)."""
        cpu = self.hierarchies.get("cpu")
        if cpu is None:
            return False
        if cpu.version == 1:
            return (cpu.mount / "cpu.cfs_quota_us").exists()
        return any(cpu.mount.glob("*/cpu.max"))

    def groups_of(self, pid: int, top_prefix: str = "") -> dict[str, Path]:
        """The directory of each controller that `pid` is in; nothing if the process is gone.

        A process may have made groups below the one its limits are in (an init system does): with
        `top_prefix`, the path is cut after the first component that begins with it.
        """
        try:
            text = Path(f"/proc/{pid}/cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return {}
        groups: dict[str, Path] = {}
        for line in text.splitlines():
            number, names, path = line.split(":", 2)
            parts = path.strip("/").split("/")
            top = next((i for i, part in enumerate(parts) if top_prefix and part.startswith(top_prefix)), len(parts))
            for name, hierarchy in self.hierarchies.items():
                is_its = name in names.split(",") if hierarchy.version == 1 else number == "0"
                if is_its:
                    groups[name] = hierarchy.mount.joinpath(*parts[: top + 1])
        return groups


def any_hierarchy(mountinfo: Path = Path("/proc/self/mountinfo")) -> Path | None:
    """Where groups of any kind are made, version 2 rather than 1; None on a host without control groups.

    The first mount of a kind is the host's own; later ones, made for somebody's container, come and go.
    """
    found: dict[str, Path] = {}
    for line in mountinfo.read_text().splitlines():
        left, _, right = line.partition(" - ")
        found.setdefault(right.split()[0], Path(left.split()[4]))
    return found.get("cgroup2") or found.get("cgroup")


def read_value(group: Path, file: str) -> str | None:
    """The content of one file of a group; None where the group or the file is gone."""
    try:
        return (group / file).read_text().strip()
    except OSError:
        return None


def write_value(group: Path, file: str, value: str) -> None:
    """Write one file of a group; raises ApplyFailed with the kernel's number."""
    try:
        # One write(2) call: the kernel takes each one as a whole command.
        descriptor = os.open(group / file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ApplyFailed(f"the kernel refuses {value} for {group / file}: {error.strerror} ({error.errno})") from error


def _read_words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
