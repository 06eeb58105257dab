"""Which processors a worker may use and where its memory comes from: the two settings, worked out for a machine.

The names and values of the settings are the original proposal's. Decides only; makes no system call and no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.settings import (
    DEFAULT,
    DISABLED,
    INTERLEAVED,
    MOST_MEMORY,
    ROUND_ROBIN,
)
from opfs.topology.lists import format_list

if TYPE_CHECKING:
    from opfs.topology.nodes import Allowed, Node, Topology


@dataclass(frozen=True, slots=True)
class Spot:
    """Where one worker is put. Empty `cpus`: anywhere. `policy` default: memory as it comes; else from these nodes."""

    cpus: frozenset[int]
    policy: str
    memory_nodes: frozenset[int]

    def __str__(self) -> str:
        cpus = f"processors {format_list(self.cpus)}" if self.cpus else "any processor"
        if self.policy == DEFAULT:
            return cpus
        return f"{cpus}, memory {self.policy} {format_list(self.memory_nodes)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The spots that workers take in turns; none where nothing is done, and then `reason` says why.

    Where something is done but not all that was asked for, `reason` says what not.
    """

    spots: tuple[Spot, ...]
    reason: str = ""


def plan_placement(topology: Topology, allowed: Allowed, placement: str, policy: str, current_cpu: int) -> Plan:
    """Work the settings out; `current_cpu` is where this process runs now."""
    if placement == DISABLED and policy == DEFAULT:
        return Plan((), "not asked for")
    usable = [node for node in topology.nodes if node.cpus & allowed.cpus]
    if len(topology.nodes) == 1:
        return Plan((), topology.doubt or "the machine has one node")
    if len(usable) < 2:
        return Plan((), "this process may use one node's processors only" if usable else "no processor is allowed")

    memory = {node.number: _memory_of(node, topology, allowed) for node in usable}
    everywhere = frozenset().union(*memory.values())
    if placement == DISABLED:
        if policy != INTERLEAVED:
            return Plan((), f"memory policy {policy} needs a placement")
        if not everywhere:
            return Plan((), "no memory that this process may use is known")
        return Plan((Spot(frozenset(), policy, everywhere),))
    spots = []
    reason = ""
    for node in _chosen(usable, placement, current_cpu):
        sources = everywhere if policy == INTERLEAVED else memory[node.number]
        kept = policy if sources else DEFAULT
        if kept != policy:
            reason = f"no memory that this process may use is known near node {node.number}"
        spots.append(Spot(node.cpus & allowed.cpus, kept, sources if kept != DEFAULT else frozenset()))
    return Plan(tuple(spots), reason)


def _chosen(usable: list[Node], placement: str, current_cpu: int) -> list[Node]:
    if placement == ROUND_ROBIN:
        return usable
    if placement == MOST_MEMORY:
        return [max(usable, key=lambda node: (node.free_bytes, -node.number))]
    return [next((node for node in usable if current_cpu in node.cpus), usable[0])]


def _memory_of(node: Node, topology: Topology, allowed: Allowed) -> frozenset[int]:
    """The node that memory for `node` comes from.

    Its own, or the nearest one's: only these are ever named, since a node without processors may be the memory of a
    graphics card.
    """
    nearest = topology.nearest_memory(node)
    if nearest is None or (allowed.memory_nodes is not None and nearest.number not in allowed.memory_nodes):
        return frozenset()
    return frozenset({nearest.number})
