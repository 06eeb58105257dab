"""How fast meaning is: one text, many texts, and the ten best events of 10,000 and 100,000.

Run by hand: `python tests/benchmarks/search.py [--models DIR]`. Prints p50 and p99; judges nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from opfs.core.names import ElementId
from opfs.embedding.model import MiniLmEmbedder
from opfs.embedding.weights import DEFAULT_DIRECTORY
from opfs.index.store import SqliteIndex
from opfs.ports import IndexedEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from opfs.ports import Embedder

SENTENCE = "lxc/101 updated: memory changed from 512 to 1024, hostname from web to web-1, state running"
BATCH_EVENTS = 5000


class RandomVectors:
    """Random unit vectors for events, since only their number matters, and the real model for queries."""

    def __init__(self, model: Embedder) -> None:
        self._model = model
        self._random = np.random.default_rng(1)
        self.model_id = f"random/{model.model_id}"
        self.dimensions = model.dimensions

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if len(texts) == 1:
            return self._model.embed(texts)
        vectors = self._random.standard_normal((len(texts), self.dimensions)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def show(what: str, times_s: Sequence[float]) -> None:
    p50, p99 = np.percentile(np.array(times_s) * 1e3, [50, 99])
    print(f"{what:<48} p50 {p50:8.2f} ms   p99 {p99:8.2f} ms", flush=True)


def measure(what: str, work: Callable[[], object], count: int = 100) -> None:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    show(what, times)


def resident_mib() -> dict[str, int]:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {
        words[0].rstrip(":"): int(words[1]) >> 10 for words in lines if words[0] in ("VmRSS:", "RssAnon:", "VmHWM:")
    }


def events(first: int, count: int) -> list[IndexedEvent]:
    return [
        IndexedEvent(
            seq=seq,
            height=seq,
            id=ElementId("lxc", str(seq % 1000)),
            op="update",
            time="2026-11-03T14:00:12.000000001Z",
            actor="root",
            summary=SENTENCE,
            text=f"{SENTENCE} {seq}",
            uid=seq % 5,
            gid=seq % 3,
            mode=(0o644, 0o640, 0o600)[seq % 3],
            event_hash=f"{seq:064x}",
        )
        for seq in range(first, first + count)
    ]


def bench_model(model: Embedder) -> None:
    start = time.perf_counter()
    model.embed(["x"])
    show("load and embed the first text", [time.perf_counter() - start])
    for words in (8, 32, 128, 254):
        measure(f"embed one text of {words + 2} tokens", lambda words=words: model.embed(["memory " * words]), 40)
    measure("embed a query of 5 words", lambda: model.embed(["web server out of memory"]))
    texts = [f"{SENTENCE} {number}" for number in range(512)]
    start = time.perf_counter()
    model.embed(texts)
    print(f"{'embed sentences in bulk, one thread':<48} {len(texts) / (time.perf_counter() - start):8.0f} texts/s")


def bench_index(model: Embedder, count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="opfs-bench-") as name:
        embedder = RandomVectors(model)
        index = SqliteIndex(Path(name), embedder)
        start = time.perf_counter()
        for first in range(0, count, BATCH_EVENTS):
            index.append(events(first, BATCH_EVENTS))
        print(f"{f'{count:,} events: append':<48} {(time.perf_counter() - start) / count * 1e6:8.0f} us/event")
        index.close()
        start = time.perf_counter()
        index = SqliteIndex(Path(name), embedder)
        show(f"{count:,} events: open", [time.perf_counter() - start])
        query = model.embed(["web server out of memory"])
        embedder.embed = lambda texts: query  # from here on, the search alone
        for user, uid in (("root", 0), ("a user", 2)):
            search = lambda uid=uid: index.similar("", limit=10, uid=uid, gids=[1])  # noqa: E731
            search()
            measure(f"{count:,} events: ten best for {user}", search, 200)
        index.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=DEFAULT_DIRECTORY, help="where the language model is")
    model = MiniLmEmbedder(parser.parse_args().models)
    bench_model(model)
    for count in (10_000, 100_000):
        bench_index(model, count)
    print(f"resident memory, MiB: {resident_mib()}")


if __name__ == "__main__":
    main()
