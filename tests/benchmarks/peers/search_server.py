"""One of the libraries that the exact search is compared with, in the environment that scripts/bench makes for it.

Arguments: which, the file of float32 rows, how many, the number of threads. Says how long it took to build as a JSON
line; then answers each JSON line, a query with `prefix` or `share` of rows that count, with milliseconds and rows.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Search = Callable[[NDArray[np.float32], NDArray[np.bool_] | None], list[int]]

TEN = 10


def faiss_flat(rows: NDArray[np.float32], threads: int) -> Search:
    """One index a thread: faiss itself uses several threads for several queries, not for one."""
    import faiss

    bounds = np.linspace(0, len(rows), threads + 1).astype(int)
    parts = []
    for first, end in pairwise(bounds):
        index = faiss.IndexFlatIP(rows.shape[1])
        for start in range(first, end, 50_000):
            index.add(np.ascontiguousarray(rows[start : min(start + 50_000, end)]))
        parts.append((int(first), int(end), index))
    pool = ThreadPoolExecutor(threads)

    def search(query: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> list[int]:
        def one(part: tuple[int, int, Any]) -> list[tuple[float, int]]:
            first, end, index = part
            options = None
            if mask is not None:
                bits = np.packbits(mask[first:end], bitorder="little")
                options = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
            scores, found = index.search(query[None], TEN, params=options)
            return [
                (float(score), first + int(row)) for score, row in zip(scores[0], found[0], strict=True) if row >= 0
            ]

        best = sorted(chain.from_iterable(pool.map(one, parts)), reverse=True)
        return [row for _, row in best[:TEN]]

    return search


def faiss_made(description: str, k_factor: float = 0) -> Callable[[NDArray[np.float32], int], Search]:
    def build(rows: NDArray[np.float32], threads: int) -> Search:
        import faiss

        faiss.omp_set_num_threads(threads)
        index = faiss.index_factory(rows.shape[1], description, faiss.METRIC_INNER_PRODUCT)
        index.train(np.ascontiguousarray(rows[:50_000]))
        for start in range(0, len(rows), 50_000):
            index.add(np.ascontiguousarray(rows[start : start + 50_000]))
        if k_factor:
            index.k_factor = k_factor
        return lambda query, _: index.search(query[None], TEN)[1][0].tolist()

    return build


def usearch_exact(rows: NDArray[np.float32], threads: int) -> Search:
    from usearch.index import MetricKind
    from usearch.index import search as exact

    def search(query: NDArray[np.float32], _: NDArray[np.bool_] | None) -> list[int]:
        return exact(rows, query, TEN, MetricKind.IP, exact=True, threads=threads).keys.tolist()

    return search


def sqlite_vec(rows: NDArray[np.float32], _: int) -> Search:
    import sqlite_vec as extension

    # No clean-up: the file goes with the directory, and that with the process.
    directory = tempfile.TemporaryDirectory(prefix="opfs-bench-", dir=os.environ.get("TMPDIR"))
    connection = sqlite3.connect(os.path.join(directory.name, "vectors.db"))
    if not hasattr(connection, "enable_load_extension"):
        sys.exit("this Python's sqlite3 does not load extensions")
    connection.enable_load_extension(True)
    extension.load(connection)
    connection.execute(f"CREATE VIRTUAL TABLE v USING vec0(e float[{rows.shape[1]}] distance_metric=cosine)")
    connection.executemany(
        "INSERT INTO v(rowid, e) VALUES (?, ?)", ((i + 1, row.tobytes()) for i, row in enumerate(rows))
    )
    connection.commit()

    def search(query: NDArray[np.float32], _: NDArray[np.bool_] | None) -> list[int]:
        assert directory is not None
        select = f"SELECT rowid - 1 FROM v WHERE e MATCH ? AND k = {TEN} ORDER BY distance"
        return [row for (row,) in connection.execute(select, [query.tobytes()])]

    return search


KINDS: dict[str, Callable[[NDArray[np.float32], int], Search]] = {
    "faiss Flat": faiss_flat,
    "faiss SQ8 + rerank": faiss_made("SQ8,RFlat", 10),
    "faiss HNSW": faiss_made("HNSW32,Flat"),
    "usearch exact": usearch_exact,
    "sqlite-vec": sqlite_vec,
}


def main() -> None:
    kind, path, count, threads = sys.argv[1:]
    rows = np.memmap(path, dtype="<f4", mode="r").reshape(-1, 384)[: int(count)]
    start = time.perf_counter()
    search = KINDS[kind](rows, int(threads))
    print(json.dumps({"build_s": time.perf_counter() - start}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        query = np.array(asked["query"], dtype=np.float32)
        mask = None
        if asked["prefix"] is not None:
            mask = np.arange(len(rows)) < asked["prefix"]
        elif asked["share"] is not None:
            mask = np.random.default_rng(1).random(len(rows)) < asked["share"]
        start, start_cpu = time.perf_counter(), time.process_time()
        found = search(query, mask)
        elapsed, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        print(json.dumps({"s": elapsed, "cpu_s": cpu, "rows": found}), flush=True)


if __name__ == "__main__":
    main()
