"""`similar` through the kernel: a daemon and a mount whose index holds as many events as there are vectors.

The index is written by its own `append` and `embed`, with vectors that are there already; the daemon is opfs with two
lines of its own (tests/benchmarks/searching/unchained.py), since its chain has no such events. Query texts are new
each time and are embedded by the real model.
"""

from __future__ import annotations

import gc
import os
import subprocess
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from harness.pools import ORIGIN, Daemon
from harness.table import Sample, Verdict, format_table, number, progress, step
from retrieval.trial import questions

from opfs.btrfs.pool import Pool
from opfs.core.names import ElementId
from opfs.index.store import SqliteIndex
from opfs.ports import IndexedEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from harness.workspace import Workspace
    from numpy.typing import NDArray

    from opfs.ports import Embedder

_GB = 1e9
_POOL_BYTES = 12 << 30
_APPENDED_AT_ONCE = 1000
_ADDED = 200
_UNCHAINED = Path(__file__).parent / "unchained.py"
_SUBJECTS = ("web", "mail", "database", "backup", "monitor", "proxy", "build", "wiki")
_CHANGES = ("memory from 512 to 1024 MB", "bridge from vmbr0 to vmbr1", "state from running to stopped", "MTU to 9000")


class Prepared:
    """Gives the vectors that are there already, in order, under the name of the real model."""

    def __init__(self, embedder: Embedder, rows: NDArray[np.float32]) -> None:
        self.model_id = embedder.model_id
        self.dimensions = embedder.dimensions
        self._rows = rows

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._rows[[int(text.rpartition(" ")[2]) % len(self._rows) for text in texts]]


def _events(first: int, count: int) -> list[IndexedEvent]:
    return [
        IndexedEvent(
            seq=seq,
            height=seq,
            id=ElementId("lxc", str(100 + seq % 5000)),
            op="update",
            time=f"2026-{1 + seq // 80_000 % 12:02}-03T14:00:12.000000001Z",
            actor="root",
            summary=f"{_CHANGES[seq % 4]}",
            text=f"Changed lxc container {100 + seq % 5000} ({_SUBJECTS[seq % 8]}): {_CHANGES[seq % 4]}. Ticket {seq}",
            uid=seq % 5,
            gid=seq % 3,
            mode=(0o644, 0o640, 0o600)[seq % 3],
            event_hash=f"{seq:064x}",
        )
        for seq in range(first, first + count)
    ]


def _fill(directory: Path, embedder: Prepared, count: int) -> Sample:
    """Write the index, as the daemon would; the time that each of the last events took, alone."""
    with closing(SqliteIndex(directory, embedder)) as index:
        for first in range(0, count - _ADDED, _APPENDED_AT_ONCE):
            index.append(_events(first, min(_APPENDED_AT_ONCE, count - _ADDED - first)))
            while index.embed(_APPENDED_AT_ONCE):
                pass
            if first % 100_000 == 0:
                progress(f"{first:,} events indexed")
        while index.settle():
            pass
        sample = Sample()
        for seq in range(count - _ADDED, count):
            events = _events(seq, 1)

            def add(events: Sequence[IndexedEvent] = events) -> None:
                index.append(events)
                index.embed(1)

            sample.measure(add)
    return sample


def measure_served(
    workspace: Workspace, rows: NDArray[np.float32], embedder: Embedder, models: Path, queries: int
) -> list[Verdict]:
    """Fill an index, open it, search it through a mount."""
    count = len(rows)
    with ExitStack() as resources:
        btrfs = workspace.filesystem("served", _POOL_BYTES, resources)
        pool = btrfs / "pool"
        pool.mkdir()
        Pool.create(pool, origin=ORIGIN, created_ns=1_700_000_000_000_000_000).close()
        directory = pool / "@index"
        prepared = Prepared(embedder, rows)
        with step(f"{count:,} events into an index"):
            added = _fill(directory, prepared, count)
        size = sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())
        opened = Sample()
        for _ in range(3):
            start = time.perf_counter()
            index = SqliteIndex(directory, prepared)
            opened.add([time.perf_counter() - start], 0)
            index.close()
            # Its maps keep the file system busy for as long as anything refers to them.
            del index
            gc.collect()
        settings = {
            "OPFS_MODELS": str(models),
            "OPFS_BENCH_EVENTS_END": str(int(0.3 * count)),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        daemon = Daemon(
            pool, workspace.path / "mnt", workspace.path / "daemon.log", settings, program=[str(_UNCHAINED)]
        )
        resources.callback(daemon.stop)
        daemon.start()
        samples = _search(daemon, queries)
        anonymous = daemon.memory_mb("RssAnon")
        shown = [[what, number(sample.p50_ms), number(sample.p99_ms)] for what, sample in samples.items()]
        print(f"\n{count:,} events, through the kernel, by cat, texts never seen before; the daemon believes an index")
        print("that is not of its chain, and is told which event at: means\n")
        print(format_table(("", "p50 ms", "p99 ms"), shown), flush=True)
    whole, past = samples["similar"], samples["at:…/similar"]
    return [
        Verdict("similar, end to end, p50", whole.p50_ms, 60, "ms"),
        Verdict("similar, end to end, p99", whole.p99_ms, 150, "ms"),
        Verdict("with at:, p50, without = 1", past.p50_ms / whole.p50_ms, 1, "x"),
        Verdict("adding an event: index work, p50", added.p50_ms, 2, "ms"),
        Verdict("opening the index", opened.p50_ms, 300, "ms"),
        Verdict("anonymous memory of the daemon, model and all", anonymous, 300, "MB"),
        Verdict("disk of the index", size / _GB, 3.3, "GB"),
    ]


def _search(daemon: Daemon, queries: int) -> dict[str, Sample]:
    texts = _unseen()
    kinds = {"similar": "search/similar", "at:…/similar": "search/at:1/similar", "hybrid": "search/hybrid"}
    samples = {kind: Sample() for kind in kinds}
    for turn in range(-3, queries):
        for kind, place in kinds.items():
            path = daemon.mount / place / next(texts)
            start = time.perf_counter()
            subprocess.run(["cat", "--", path], stdout=subprocess.DEVNULL, check=True)
            if turn >= 0:
                elapsed = time.perf_counter() - start
                samples[kind].add([elapsed], elapsed)
    return samples


def _unseen() -> Iterator[str]:
    while True:
        for question in questions():
            yield f"{question.text.replace('/', ' ')} {time.monotonic_ns() % 100_000}"
