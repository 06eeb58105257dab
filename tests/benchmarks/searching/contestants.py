"""Who finds the ten nearest vectors: the exact search, numpy, and libraries in processes of their own.

Each answers one query at a time with rows and the time it took, by the clock and of the processors.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from opfs.index.exact.mapped import PIECE_ROWS, MappedRows
from opfs.index.exact.search import ExactSearch

if TYPE_CHECKING:
    from contextlib import ExitStack

    from numpy.typing import NDArray

    from opfs.index.exact.workers import Workers

TEN = 10
FLAT = "faiss Flat"
_SERVER = Path(__file__).parents[1] / "peers" / "search_server.py"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows count: all, the first ones, or a share of them, drawn as every contestant draws it."""

    prefix: int | None = None
    share: float | None = None

    def mask(self, count: int) -> NDArray[np.bool_] | None:
        if self.prefix is not None:
            return np.arange(count) < self.prefix
        return None if self.share is None else np.random.default_rng(1).random(count) < self.share


@dataclass(frozen=True, slots=True)
class Answer:
    rows: list[int]
    s: float
    cpu_s: float


class Contestant(Protocol):
    name: str

    def search(self, query: NDArray[np.float32], selection: Selection) -> Answer: ...


class Ours:
    name = "opfs"

    def __init__(self, engine: ExactSearch, base: MappedRows) -> None:
        self._engine = engine
        self._base = base

    def search(self, query: NDArray[np.float32], selection: Selection) -> Answer:
        base, mask = self._base, None
        if selection.prefix is not None:
            base = base.prefix(selection.prefix)
        else:
            mask = selection.mask(base.count)
        start, start_cpu = time.perf_counter(), time.process_time()
        rows, _ = self._engine.nearest(base, query, mask=mask, limit=TEN)
        return Answer(rows[:TEN].tolist(), time.perf_counter() - start, time.process_time() - start_cpu)


class Numpy:
    """All rows in float32, as fast as numpy does that with the threads."""

    name = "numpy, all rows"

    def __init__(self, rows: NDArray[np.float32], workers: Workers) -> None:
        self._rows = rows
        self._workers = workers

    def search(self, query: NDArray[np.float32], selection: Selection) -> Answer:
        mask = selection.mask(len(self._rows))
        start, start_cpu = time.perf_counter(), time.process_time()
        scores = np.empty(len(self._rows), dtype=np.float32)

        def work(first: int) -> None:
            np.vecdot(self._rows[first : first + PIECE_ROWS], query, out=scores[first : first + PIECE_ROWS])

        self._workers.run(lambda: work, range(0, len(scores), PIECE_ROWS))
        if mask is not None:
            scores[~mask] = -np.inf
        best = np.argpartition(scores, -TEN)[-TEN:]
        rows = best[np.argsort(-scores[best])].tolist()
        return Answer(rows, time.perf_counter() - start, time.process_time() - start_cpu)


class Peer:
    """A library in its own environment and process; idle while others are measured."""

    def __init__(self, python: Path, name: str, rows: Path, count: int, threads: int) -> None:
        self.name = name
        # For faiss Flat the server itself makes the threads, since OpenMP would start more in each.
        inner = 1 if name == FLAT else threads
        variables = {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(inner)}
        command = [str(python), str(_SERVER), name, str(rows), str(count), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
        )
        self.build_s: float = json.loads(self._line())["build_s"]

    def search(self, query: NDArray[np.float32], selection: Selection) -> Answer:
        assert self._process.stdin is not None
        asked = {"query": query.tolist(), "prefix": selection.prefix, "share": selection.share}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return Answer(**json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self._process.wait()}")
        return line

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def begin_ours(directory: Path, rows: Path, count: int, threads: int, resources: ExitStack) -> tuple[Ours, float]:
    """The exact search over the file, all of it derived; and the seconds that took."""
    descriptor = os.open(rows, os.O_RDONLY | os.O_CLOEXEC)
    resources.callback(os.close, descriptor)
    base = MappedRows.of(descriptor, count=count, width=384)
    engine = resources.enter_context(closing(ExactSearch(directory, base, threads=threads)))
    start = time.perf_counter()
    while engine.extend(base):
        pass
    return Ours(engine, base), time.perf_counter() - start


def tenth_scores(
    rows: NDArray[np.float32], queries: NDArray[np.float32], mask: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """The tenth best score of each query in float64.

    To be asked for before anything is timed: BLAS' threads go on turning for a while after a matrix product.
    """
    best = np.full((len(queries), TEN), -np.inf)
    wide = queries.astype(np.float64)
    for first in range(0, len(rows), PIECE_ROWS):
        scores = wide @ rows[first : first + PIECE_ROWS].astype(np.float64).T
        if mask is not None:
            scores[:, ~mask[first : first + PIECE_ROWS]] = -np.inf
        best = -np.partition(-np.concatenate([best, scores], axis=1), TEN, axis=1)[:, :TEN]
    return best.min(axis=1)


def recall(found: list[int], rows: NDArray[np.float32], query: NDArray[np.float32], tenth: float) -> float:
    """The share of the ten best that was found; of rows that tie with the tenth, any will do."""
    scores = np.vecdot(rows[sorted(set(found))].astype(np.float64), query.astype(np.float64))
    return float(np.count_nonzero(scores >= tenth - 1e-12)) / TEN
