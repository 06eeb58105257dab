"""Puts worker threads where the settings say, for as long as their work takes, and tells what became of it.

What the kernel refuses (in a container, on a kernel without NUMA) is left as it is: `report` has the reason,
and the work goes on. The first refusal of a kind of call is the last try.

Concurrency: `placed` may be entered in any number of threads; each changes itself alone.
"""

from __future__ import annotations

import itertools
import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from opfs.core.settings import DEFAULT
from opfs.topology import calls
from opfs.topology.lists import format_list
from opfs.topology.nodes import load_allowed, load_topology
from opfs.topology.plan import plan_placement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.topology.nodes import Allowed, Topology
    from opfs.topology.plan import Spot


class Placement:
    """The settings of one process, worked out once for this machine."""

    def __init__(
        self,
        placement: str,
        policy: str,
        *,
        topology: Topology | None = None,
        allowed: Allowed | None = None,
    ) -> None:
        self.topology = topology or load_topology()
        self._settings = f"placement {placement}, memory policy {policy}"
        self._plan = plan_placement(self.topology, allowed or load_allowed(), placement, policy, calls.current_cpu())
        self._turns = itertools.count()
        self._here = threading.local()
        self._refusals: dict[str, str] = {}
        """By kind of call, why it is no longer made."""

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Be in the next spot; afterwards this thread is as it was. Within another of these it changes nothing."""
        if not self._plan.spots or getattr(self._here, "is_placed", False):
            yield
            return
        spot = self._plan.spots[next(self._turns) % len(self._plan.spots)]
        self._here.is_placed = True
        cpus = self._move(spot)
        policy = self._set_policy(spot)
        try:
            yield
        finally:
            self._here.is_placed = False
            # What was allowed before may have gone since: a processor, a node of the control group.
            with suppress(OSError):
                if policy is not None:
                    calls.set_memory_policy(policy)
            with suppress(OSError):
                if cpus is not None:
                    os.sched_setaffinity(0, cpus)

    def report(self) -> list[str]:
        """The nodes, what is asked for, and what of it is done or why it is not; one line each."""
        nodes = self.topology.nodes
        lines = [
            f"{len(nodes)} NUMA {'node' if len(nodes) == 1 else 'nodes'}"
            + (f", as far as can be told: {self.topology.doubt}" if self.topology.doubt else "")
        ]
        if len(nodes) > 1:
            lines += [
                f"node {node.number}: processors {format_list(node.cpus)}, {node.total_bytes / 2**30:.1f} GiB, "
                f"{node.free_bytes / 2**30:.1f} GiB free" + (f", distances {' '.join(map(str, node.distances))}")
                for node in nodes
            ]
        return [*lines, f"{self._settings}: {self._outcome()}"]

    @property
    def trouble(self) -> str:
        """What was asked for and the kernel refused; empty where nothing was."""
        return "; ".join(f"{call}: {reason}" for call, reason in self._refusals.items())

    def _outcome(self) -> str:
        if not self._plan.spots:
            return f"nothing is done, {self._plan.reason}"
        spots = "; ".join(map(str, self._plan.spots))
        return "; ".join(filter(None, [f"workers on {spots}", self._plan.reason, self.trouble]))

    def _move(self, spot: Spot) -> set[int] | None:
        """The processors the thread had, None where it was left there."""
        if not spot.cpus or "affinity" in self._refusals:
            return None
        try:
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, spot.cpus)
        except OSError as error:
            self._refusals["affinity"] = f"sched_setaffinity: {error.strerror}"
            return None
        return before

    def _set_policy(self, spot: Spot) -> calls.MemoryPolicy | None:
        if spot.policy == DEFAULT or "memory policy" in self._refusals:
            return None
        try:
            before = calls.memory_policy()
            calls.set_memory_policy(calls.MemoryPolicy(calls.MODES[spot.policy], spot.memory_nodes))
        except OSError as error:
            self._refusals["memory policy"] = f"set_mempolicy: {error.strerror}"
            return None
        return before
