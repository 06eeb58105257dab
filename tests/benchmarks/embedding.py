"""How fast texts get their meaning, beside sentence-transformers on torch, and how near to its vectors.

Every length is measured in turns, a text each of every row, so that the noise of the machine hits all rows alike; one
thread each for single texts, two for many. Run by scripts/bench embedding; see docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from harness.table import VERDICT_HEADINGS, Sample, Verdict, format_table, number, progress
from tokenizers import Tokenizer

from opfs.cache.cache import Cache
from opfs.core.settings import FP32, INT8, VARIANTS, EmbeddingSettings
from opfs.embedding.cached import CachedEmbedder
from opfs.embedding.model import MiniLmEmbedder
from opfs.embedding.weights import DEFAULT_DIRECTORY, MINILM, TOKENIZER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
SERVER = Path(__file__).parent / "peers" / "sentence_transformers_server.py"
PEER = "sentence-transformers"
LENGTHS = (16, 64, 128, 256)
SENTENCES = "sentences"
EVENT = "lxc/{0} updated: memory changed from {1} to {2}, hostname from web to web-{0}, state running"


class Peer:
    """sentence-transformers in its own environment, one or more threads."""

    def __init__(self, python: Path, model: Path, threads: int) -> None:
        variables = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [str(python), str(SERVER), str(model), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=variables,
        )
        self.torch = self._answer()["torch"]

    def ask(self, singly: Sequence[str] = (), together: Sequence[str] = ()) -> dict[str, Any]:
        self._process.stdin.write(json.dumps({"singly": list(singly), "together": list(together)}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{PEER} ended with {self._process.wait()}")
        return json.loads(line)

    @property
    def anonymous_mib(self) -> float:
        return anonymous_mib(self._process.pid)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def anonymous_mib(process: int | str = "self") -> float:
    (kib,) = re.findall(r"^RssAnon:\s+(\d+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return int(kib) / 1024


def words_of_the_documentation() -> list[str]:
    pages = sorted((ROOT / "docs").glob("*.md"))
    return re.sub(r"[`*|#>\[\]()]|\S*/\S*", " ", " ".join(page.read_text() for page in pages)).split()


def texts_of(length: int, count: int, model: Path) -> list[str]:
    """Different texts of exactly so many tokens, the two at the ends included, of words of the documentation."""
    tokenizer = Tokenizer.from_file(str(model / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    words, random = words_of_the_documentation(), np.random.default_rng(length)
    found: list[str] = []
    while len(found) < count:
        start = int(random.integers(0, len(words) - length))
        chosen: list[str] = []
        tokens = 2
        for word in words[start : start + length]:
            tokens += len(tokenizer.encode(word, add_special_tokens=False).ids)
            if tokens > length:
                break
            chosen.append(word)
        text = " ".join([*chosen, *(["so"] * length)])
        while len(tokenizer.encode(text).ids) > length:
            text = text.rpartition(" ")[0]
        if len(tokenizer.encode(text).ids) == length:
            found.append(text)
    return found


def sentences(count: int) -> list[str]:
    """Sentences of the documentation, and of events."""
    pages = sorted((ROOT / "docs").glob("*.md"))
    text = re.sub(r"[`*|#]", "", " ".join(page.read_text() for page in pages))
    found = [piece.strip() for piece in re.split(r"(?<=[.!?])\s+", text) if 20 < len(piece.strip()) < 400]
    order = np.random.default_rng(1).permutation(len(found))[: count - count // 3]
    return [found[place] for place in order] + [EVENT.format(n, 512 * n, 640 * n) for n in range(1, count // 3 + 1)]


class Timed:
    """One row at one length: by the clock, and by the processor, which does not count what others do meanwhile."""

    def __init__(self) -> None:
        self.clock, self.processor = Sample(), Sample()

    def measure(self, work: Callable[[], object]) -> None:
        start, start_cpu = time.perf_counter(), time.thread_time()
        work()
        cpu_s, clock_s = time.thread_time() - start_cpu, time.perf_counter() - start
        self.add([clock_s], [cpu_s])

    def add(self, clock_s: Sequence[float], processor_s: Sequence[float]) -> None:
        self.clock.add(clock_s, 0)
        self.processor.add(processor_s, 0)


def bench_single(
    embedders: dict[str, MiniLmEmbedder], peer: Peer, model: Path, count: int
) -> dict[str, dict[str, Timed]]:
    found: dict[str, dict[str, Timed]] = {}
    for length in LENGTHS:
        progress(f"single texts of {length} tokens")
        rows = {name: Timed() for name in (*embedders, PEER)}
        for text in texts_of(length, count, model):
            for name, embedder in embedders.items():
                rows[name].measure(lambda embedder=embedder, text=text: embedder.embed([text]))
            answer = peer.ask([text])
            rows[PEER].add(answer["singly_s"], answer["processor_s"])
        found[str(length)] = rows
    return found


def bench_sentences(
    embedders: dict[str, MiniLmEmbedder], peer: Peer, texts: Sequence[str]
) -> tuple[dict[str, Timed], dict[str, NDArray[np.float64]]]:
    """Times, and of each variant the cosine of every sentence to the vector of sentence-transformers."""
    rows = {name: Timed() for name in (*embedders, PEER)}
    cosines: dict[str, list[float]] = {name: [] for name in embedders}
    progress(f"{len(texts)} sentences")
    for text in texts:
        answer = peer.ask([text])
        rows[PEER].add(answer["singly_s"], answer["processor_s"])
        for name, embedder in embedders.items():
            found: list[NDArray[np.float32]] = []
            rows[name].measure(lambda embedder=embedder, text=text, found=found: found.append(embedder.embed([text])))
            cosines[name].append(float(found[0][0].astype(np.float64) @ np.array(answer["vectors"][0])))
    return rows, {name: np.array(values) for name, values in cosines.items()}


def times_as_fast(rows: dict[str, Timed], name: str) -> float:
    """By the processor's time: one thread on a machine of its own takes just that."""
    return rows[PEER].processor.p50_ms / rows[name].processor.p50_ms


def bench_many(embedders: dict[str, MiniLmEmbedder], peer: Peer, texts: Sequence[str], rounds: int) -> dict[str, float]:
    """Texts per second, the best of some rounds."""
    best = dict.fromkeys((*embedders, PEER), 0.0)
    for turn in range(rounds):
        progress(f"{len(texts)} texts at once, round {turn + 1} of {rounds}")
        for name, embedder in embedders.items():
            start = time.perf_counter()
            embedder.embed(texts)
            best[name] = max(best[name], len(texts) / (time.perf_counter() - start))
        best[PEER] = max(best[PEER], len(texts) / peer.ask(together=texts)["together_s"])
    return best


@contextmanager
def bulk(embedder: MiniLmEmbedder, texts: Sequence[str]) -> Iterator[None]:
    """Long texts are embedded all the while."""
    ended = threading.Event()

    def work() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)  # as the daemon's
        while not ended.is_set():
            embedder.embed(texts)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.5)
    try:
        yield
    finally:
        ended.set()
        thread.join()


def bench_query_beside_bulk(embedder: MiniLmEmbedder, model: Path, count: int) -> tuple[Sample, Sample]:
    queries, long = texts_of(16, count, model), texts_of(256, 16, model)
    alone, beside = Sample(), Sample()
    for query in queries:
        alone.measure(lambda query=query: embedder.embed([query]))
    with bulk(embedder, long):
        for query in queries:
            beside.measure(lambda query=query: embedder.embed([query]))
            time.sleep(0.01)
    return alone, beside


def bench_cache(embedder: MiniLmEmbedder, count: int) -> tuple[Sample, Sample]:
    with tempfile.TemporaryDirectory(prefix="opfs-bench-") as name:
        cache = Cache(Path(name), 64 << 20)
        cached = CachedEmbedder(embedder, cache.embeddings)
        computed, hits = Sample(), Sample()
        for number_ in range(count):
            computed.measure(lambda n=number_: cached.embed([f"web server {n} out of memory"]))
        for _ in range(20):
            for number_ in range(count):
                hits.measure(lambda n=number_: cached.embed([f"web server {n} out of memory"]))
        cache.close()
    return computed, hits


def label_of(length: str) -> str:
    return length if length == SENTENCES else f"{length} tokens"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path(os.environ.get("OPFS_MODELS") or DEFAULT_DIRECTORY))
    parser.add_argument("--peer", type=Path, default=ROOT / "build/peers-embedding/bin/python")
    parser.add_argument("--quick", action="store_true", help="few repetitions: does it work at all?")
    arguments = parser.parse_args()
    model = arguments.models / MINILM.name
    count = 12 if arguments.quick else 80

    before_mib = anonymous_mib()
    embedders = {}
    memory = []
    for variant in VARIANTS:
        start = time.perf_counter()
        embedders[variant] = MiniLmEmbedder(arguments.models, EmbeddingSettings(variant=variant))
        embedders[variant].embed(["x"])
        loaded_s = time.perf_counter() - start
        loaded_mib = anonymous_mib()
        embedders[variant].unload()
        memory.append([f"{variant}, opfs", *map(number, (loaded_s * 1000, loaded_mib - before_mib))])
        memory[-1].append(number(anonymous_mib() - before_mib))
    peer = Peer(arguments.peer, model, 1)
    memory.append([PEER, "-", number(peer.anonymous_mib), "-"])
    print(f"{os.cpu_count()} CPUs, model {MINILM.name}, torch {peer.torch}\n")

    for embedder in embedders.values():
        embedder.embed(["x"])
    single = bench_single(embedders, peer, model, count)
    texts = sentences(60 if arguments.quick else 300)
    single[SENTENCES], cosines = bench_sentences(embedders, peer, texts)
    rows = []
    for length, samples in single.items():
        for name, sample in samples.items():
            label = name if name == PEER else f"{name}, opfs"
            figures = (sample.clock.p50_ms, sample.clock.p99_ms, sample.processor.p50_ms, times_as_fast(samples, name))
            rows.append([label, length, *map(number, figures)])
    print(format_table(["one text, one thread", "tokens", "p50 ms", "p99 ms", "CPU ms", "x as fast"], rows))

    rows = [
        [f"{name}, opfs", str(len(found)), *(f"{value:.6f}" for value in (found.min(), np.median(found), found.mean()))]
        for name, found in cosines.items()
    ]
    print("\n" + format_table(["cosine to " + PEER, "texts", "least", "median", "mean"], rows))
    peer.close()

    peer = Peer(arguments.peer, model, 2)
    events = [EVENT.format(n, 512 * n, 640 * n) for n in range(48 if arguments.quick else 128)]
    many = bench_many(embedders, peer, events, 1 if arguments.quick else 3)
    peer.close()
    rows = [
        [name if name == PEER else f"{name}, opfs", *map(number, (rate, rate / many[PEER]))]
        for name, rate in many.items()
    ]
    print("\n" + format_table(["sentences of events, two threads", "texts/s", "x as fast"], rows))

    print("\n" + format_table(["memory of its own, MiB", "load ms", "loaded", "unloaded again"], memory))
    alone, beside = bench_query_beside_bulk(embedders[FP32], model, count)
    computed, hits = bench_cache(embedders[FP32], count)
    rows = [
        ["alone", *map(number, (alone.p50_ms, alone.p99_ms))],
        ["while texts of 256 tokens are embedded", *map(number, (beside.p50_ms, beside.p99_ms))],
        ["first asked, with the cache", *map(number, (computed.p50_ms, computed.p99_ms))],
        ["asked again", *(f"{value:.4f}" for value in (hits.p50_ms, hits.p99_ms))],
    ]
    print("\n" + format_table(["a query of 16 tokens or less, fp32", "p50 ms", "p99 ms"], rows))

    verdicts = [
        *(
            Verdict(f"{name}, {label_of(length)}, times as fast", times_as_fast(rows, name), target, "x", at_most=False)
            for name, target in ((FP32, 2), (INT8, 4))
            for length, rows in single.items()
        ),
        Verdict("fp32, least cosine", float(cosines[FP32].min()), 0.9999, "", at_most=False),
        Verdict("int8, mean cosine", float(cosines[INT8].mean()), 0.99, "", at_most=False),
        Verdict(
            "cache hit, computing is so many times as long", computed.p50_ms / hits.p50_ms, 500, "x", at_most=False
        ),
    ]
    print("\n" + format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts]))


if __name__ == "__main__":
    main()
