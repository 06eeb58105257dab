"""Memory of another node, and processors that are held fast: what either costs or brings."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from opfs.claims.claim import Finding, Table, Verdict
from opfs.claims.embedding import texts
from opfs.claims.samples import Sample, in_ms
from opfs.embedding.model import MiniLmEmbedder
from opfs.embedding.weights import list_models
from opfs.topology.calls import MODES, MemoryPolicy, set_memory_policy
from opfs.topology.nodes import load_allowed, load_topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opfs.claims.bench import Bench

CLAIMED_SPEEDUP = 2.0
CLAIMED_REMOTE = 10.0
_NOTICEABLE = 0.10
_CLAIMED_CPUS = frozenset(range(4))
_ROUNDS = 5


def measure(bench: Bench) -> Finding:
    nodes = [node for node in load_topology().nodes if node.total_bytes]
    free, pinned, cpus = _pinning(bench)
    remote = _remote(bench) if len(nodes) > 1 else None
    return judge(len(nodes), remote, free, pinned, cpus)


def judge(nodes: int, remote: tuple[float, float] | None, free: Sample, pinned: Sample, cpus: int) -> Finding:
    """`remote` is nanoseconds of a local and of a remote access, None on one node."""
    speedup = free.p50_s / pinned.p50_s
    pinning = (
        f"Holding the work to {'processor' if cpus == 1 else 'processors'} 0{f' to {cpus - 1}' if cpus > 1 else ''} "
        f"makes it {speedup:.2f} times as fast as the kernel's own choice, where the proposal says twice."
    )
    rows = [
        ("the kernel chooses", in_ms(free.p50_s), in_ms(free.p99_s)),
        ("held fast", in_ms(pinned.p50_s), in_ms(pinned.p99_s)),
    ]
    tables = [Table(("one text, or one sum", "p50", "p99"), tuple(rows))]
    is_placebo = speedup < 1 + _NOTICEABLE
    if remote is None:
        said = f"There is one node, so no memory is remote: not measurable here. {pinning}"
        said += " On one node that is a placebo." if is_placebo else ""
        return Finding(Verdict.PLACEBO if is_placebo else Verdict.UNKNOWN, said, tuple(tables))
    ratio = remote[1] / remote[0]
    tables.append(
        Table(("memory", "one random read"), (("local", f"{remote[0]:.1f} ns"), ("remote", f"{remote[1]:.1f} ns")))
    )
    verdict = Verdict.TRUE if ratio >= CLAIMED_REMOTE and speedup >= CLAIMED_SPEEDUP else Verdict.FALSE
    said = f"Of {nodes} nodes, remote memory takes {ratio:.1f} times as long as local memory, not 10 times. {pinning}"
    return Finding(verdict, said, tuple(tables))


def _pinning(bench: Bench) -> tuple[Sample, Sample, int]:
    """The same work with and without, in turns; and how many processors it was held to."""
    allowed = frozenset(os.sched_getaffinity(0))
    chosen = allowed & _CLAIMED_CPUS if len(allowed) > len(_CLAIMED_CPUS) else frozenset([min(allowed)])
    work = _work(bench)
    free, pinned = Sample(), Sample()
    rounds = bench.by_effort(20, 100)
    for number in range(rounds):
        with free.timed():
            work()
        with _held_to(chosen), pinned.timed():
            work()
        bench.progress(number, rounds)
    return free, pinned, len(chosen)


def _work(bench: Bench) -> Callable[[], object]:
    """Embedding a text, or without a model a product of matrices that takes about as long."""
    (model,) = list_models(bench.models)
    if model.problem:
        matrix = np.random.default_rng(1).standard_normal((600, 600)).astype(np.float32)
        return lambda: matrix @ matrix
    embedder = MiniLmEmbedder(bench.models)
    (text,) = texts(1)
    embedder.embed([text])
    return lambda: embedder.embed([text])


@contextmanager
def _held_to(cpus: frozenset[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _remote(bench: Bench) -> tuple[float, float]:
    """Nanoseconds of a random read in memory of the own node, and of the node farthest away."""
    nodes, allowed = load_topology().nodes, load_allowed()
    near = next(node for node in nodes if node.cpus & allowed.cpus and node.total_bytes)
    others = [
        (near.distances[place], node) for place, node in enumerate(nodes) if node is not near and node.total_bytes
    ]
    far = max(others, key=lambda pair: pair[0])[1]
    size = bench.by_effort(1 << 24, 1 << 26)
    found: dict[int, float] = {}

    def read(node: int) -> None:
        # in a thread of its own: policy and affinity are a thread's, and end with it
        os.sched_setaffinity(0, near.cpus & allowed.cpus)
        set_memory_policy(MemoryPolicy(MODES["bind"], frozenset([node])))
        array = np.zeros(size, np.float32)
        array += 1
        places = np.random.default_rng(1).integers(0, size, 1 << 20)
        times = []
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            array[places].sum()
            times.append(time.perf_counter() - start)
        found[node] = min(times) / len(places) * 1e9

    for node in (near, far):
        thread = threading.Thread(target=read, args=(node.number,))
        thread.start()
        thread.join()
    return found[near.number], found[far.number]
