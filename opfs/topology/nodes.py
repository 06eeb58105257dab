"""The NUMA nodes of a machine, as /sys/devices/system tells them: processors, memory, distances.

Where the tree is missing, cut short or contradicts itself, the machine is one node, and `doubt` says why: a wrong
placement is worse than none. Reads files; changes nothing. Synchronous.

Source: the kernel's Documentation/ABI/stable/sysfs-devices-node and ABI/testing/sysfs-devices-system-cpu.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from opfs.topology.lists import parse_list

SYSTEM = Path("/sys/devices/system")
STATUS = Path("/proc/self/status")

_FILE_LIMIT_BYTES = 1 << 16
_MEMORY = re.compile(r"^Node\s+\d+\s+(MemTotal|MemFree):\s+(\d{1,15})\s+kB$", re.MULTILINE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Node:
    """One node. `cpus` are those that are online; `distances` are to the nodes of the topology, in its order."""

    number: int
    cpus: frozenset[int]
    total_bytes: int
    free_bytes: int
    distances: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Topology:
    """The nodes by number, never none. `doubt` says why it is taken for one node; empty where it simply is as read."""

    nodes: tuple[Node, ...]
    doubt: str = ""

    def nearest_memory(self, node: Node) -> Node | None:
        """The node with memory that is nearest to `node`: itself, where it has any; None where no node has."""
        with_memory = [other for other in self.nodes if other.total_bytes]
        if node in with_memory or not with_memory:
            return node if with_memory else None
        place = {other.number: position for position, other in enumerate(self.nodes)}
        return min(
            with_memory,
            key=lambda other: (node.distances[place[other.number]] if node.distances else 0, other.number),
        )


@dataclass(frozen=True, slots=True)
class Allowed:
    """What this process may use: a control group's cpuset or whoever started it can leave it less than there is."""

    cpus: frozenset[int]
    memory_nodes: frozenset[int] | None
    """None where the kernel does not say."""


def load_topology(system: Path = SYSTEM) -> Topology:
    """Read the tree below `system`; never raises."""
    try:
        return Topology(_read_nodes(system))
    except (OSError, ValueError) as error:
        return Topology((_whole_machine(system),), _reason(error, system))


def load_allowed(status: Path = STATUS) -> Allowed:
    """What the calling thread may use."""
    cpus = frozenset(os.sched_getaffinity(0))
    try:
        (listed,) = re.findall(r"^Mems_allowed_list:\s*(\S*)$", _read(status), re.MULTILINE)
        return Allowed(cpus, parse_list(listed))
    except (OSError, ValueError):
        return Allowed(cpus, None)


def _read_nodes(system: Path) -> tuple[Node, ...]:
    online = parse_list(_read(system / "cpu" / "online"))
    numbers = sorted(parse_list(_read(system / "node" / "online")))
    nodes = [_read_node(system / "node" / f"node{number}", number, online) for number in numbers]
    if not any(node.cpus for node in nodes):
        raise ValueError("no node has a processor")
    claimed = [cpu for node in nodes for cpu in node.cpus]
    if len(claimed) != len(set(claimed)):
        raise ValueError("nodes share processors")
    if not any(node.total_bytes for node in nodes):
        raise ValueError("no node has memory")
    if any(len(node.distances) != len(nodes) for node in nodes):
        # Seen where nodes are offline; without distances every other node is as near as the next.
        nodes = [replace(node, distances=()) for node in nodes]
    return tuple(nodes)


def _read_node(directory: Path, number: int, online: frozenset[int]) -> Node:
    cpus = parse_list(_read(directory / "cpulist")) & online
    memory = {name: int(kib) << 10 for name, kib in _MEMORY.findall(_read(directory / "meminfo"))}
    distances = tuple(int(word) for word in _optional(directory / "distance").split())
    return Node(number, cpus, memory.get("MemTotal", 0), memory.get("MemFree", 0), distances)


def _whole_machine(system: Path) -> Node:
    try:
        cpus = parse_list(_read(system / "cpu" / "online"))
    except (OSError, ValueError):
        cpus = frozenset()
    return Node(0, cpus or frozenset(os.sched_getaffinity(0)), 0, 0)


def _read(path: Path) -> str:
    with path.open("rb") as file:
        # Kernels before 2.6.33 end such a file with a NUL.
        return file.read(_FILE_LIMIT_BYTES).rstrip(b"\0").decode("ascii", "replace")


def _optional(path: Path) -> str:
    """Kernels before 2.6.21 tell no distances."""
    try:
        return _read(path)
    except FileNotFoundError:
        return ""


def _reason(error: Exception, system: Path) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or system}: {error.strerror}"
    return f"{system}: {error}"
