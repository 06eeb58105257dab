"""The ten most similar of a million events: the vector search beside others, and the whole way through a mount.

Vectors: tests/benchmarks/searching/corpus.py says how a million is made of tens of thousands of real sentences. All
contestants take turns, query by query, so that the noise of the machine hits all alike. Run by scripts/bench search;
see docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import math
import os
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from harness.table import VERDICT_HEADINGS, Sample, Verdict, format_table, number, progress, step
from harness.workspace import Workspace
from searching.contestants import FLAT, Numpy, Peer, Selection, begin_ours, recall, tenth_scores
from searching.corpus import extend, make_queries, nearness, real_vectors
from searching.lag import measure_lag
from searching.served import measure_served

from opfs.embedding.model import MiniLmEmbedder
from opfs.embedding.weights import DEFAULT_DIRECTORY
from opfs.index.exact.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from searching.contestants import Contestant

ROOT = Path(__file__).parents[2]
THREADS = 2
OTHERS = ("faiss SQ8 + rerank", "usearch exact", "sqlite-vec", "faiss HNSW")
OTHERS_QUERIES = 20
IN_DOMAIN = ("questions about changes", "sentences of events")
HEADINGS = ("", "p50 ms", "p99 ms", "CPU ms", "recall@10", "opfs is faster by")


class Results:
    """What each contestant did with one kind of queries."""

    def __init__(self, names: Sequence[str]) -> None:
        self.samples = {name: Sample() for name in names}
        self.cpu_s: dict[str, list[float]] = {name: [] for name in names}
        self.recalls: dict[str, list[float]] = {name: [] for name in names}

    def p50_ratio(self, name: str) -> float:
        """How many times longer than ours: the middle of the ratios of the turns, each of one query."""
        ours, theirs = self.samples["opfs"].durations_s, self.samples[name].durations_s
        return float(np.median(np.array(theirs) / np.array(ours)))

    def rows(self) -> list[list[str]]:
        return [
            [
                name,
                number(sample.p50_ms),
                number(sample.p99_ms),
                number(float(np.median(self.cpu_s[name])) * 1000),
                f"{np.mean(self.recalls[name]):.4f}",
                "" if name == "opfs" else f"{self.p50_ratio(name):.2f}",
            ]
            for name, sample in self.samples.items()
        ]


def compete(
    contestants: Sequence[Contestant],
    rows: NDArray[np.float32],
    queries: NDArray[np.float32],
    selection: Selection = Selection(),  # noqa: B008 it never changes
) -> Results:
    results = Results([contestant.name for contestant in contestants])
    tenths = tenth_scores(rows, queries, selection.mask(len(rows)))
    for contestant in contestants:
        contestant.search(queries[0], selection)
    for query, tenth in zip(queries, tenths, strict=True):
        for contestant in contestants:
            answer = contestant.search(query, selection)
            results.samples[contestant.name].add([answer.s], answer.s)
            results.cpu_s[contestant.name].append(answer.cpu_s)
            results.recalls[contestant.name].append(recall(answer.rows, rows, query, tenth))
    return results


def show(what: str, results: Results) -> None:
    print(f"\n{what}\n\n{format_table(HEADINGS, results.rows())}", flush=True)


def bench_vectors(
    rows_path: Path, rows: NDArray[np.float32], queries: Mapping[str, NDArray[np.float32]], directory: Path, quick: bool
) -> list[Verdict]:
    python, count = ROOT / "build" / "peers-search" / "bin" / "python", len(rows)
    verdicts: list[Verdict] = []
    with ExitStack() as resources:
        with step("deriving what the exact search needs"):
            ours, derived_s = begin_ours(directory, rows_path, count, THREADS, resources)
        with step(f"building {FLAT}"):
            flat = resources.enter_context(closing(Peer(python, FLAT, rows_path, count, THREADS)))
        workers = resources.enter_context(closing(Workers(THREADS)))
        numpy = Numpy(rows, workers)
        recalls = []
        for kind, vectors in queries.items():
            progress(f"{kind}: {len(vectors)} queries")
            results = compete([ours, numpy, flat], rows, vectors)
            show(f"{count:,} vectors, {kind}, {THREADS} threads", results)
            ratio = results.p50_ratio(FLAT)
            recalls += results.recalls["opfs"]
            if kind in IN_DOMAIN:
                verdicts.append(Verdict(f"{kind}: speed, {FLAT} = 1", ratio, 2, "x", at_most=False))
            else:
                verdicts.append(Verdict(f"{kind}: time, {FLAT} = 1", 1 / ratio, 1.3, "x"))
        about = queries[IN_DOMAIN[0]][: max(10, len(queries[IN_DOMAIN[0]]) // 4)]
        whole = compete([ours, flat], rows, about).samples["opfs"]
        for what, selection in (
            ("the first 30 %", Selection(prefix=int(0.3 * count))),
            ("half of them, scattered", Selection(share=0.5)),
            ("one in a hundred", Selection(share=0.01)),
        ):
            results = compete([ours, numpy, flat], rows, about, selection)
            show(f"{count:,} vectors, {IN_DOMAIN[0]}, {what}", results)
            recalls += results.recalls["opfs"]
            if selection.prefix:
                times = results.samples["opfs"].p50_ms / whole.p50_ms
                verdicts.append(Verdict("a prefix: time, all rows = 1", times, 1, "x"))
            verdicts.append(Verdict(f"{what}: time, {FLAT} = 1", 1 / results.p50_ratio(FLAT), 1.3, "x"))
        verdicts.insert(0, Verdict("recall@10 against float64, least of any query", min(recalls), 1, "", at_most=False))
        flat.close()
        built = [["opfs, derived files", number(derived_s), f"{_size_mb(directory):.0f}"]]
        for name in () if quick else OTHERS:
            try:
                with step(f"building {name}"):
                    peer = Peer(python, name, rows_path, count, THREADS)
            except SystemExit as ended:
                # sqlite-vec needs a Python whose sqlite3 loads extensions, which not every build does.
                print(f"\n{name} does not run here: {ended}", flush=True)
                continue
            with closing(peer):
                results = compete([ours, peer], rows, queries[IN_DOMAIN[0]][:OTHERS_QUERIES])
                show(f"{count:,} vectors, {IN_DOMAIN[0]}: {name}", results)
            built.append([name, number(peer.build_s), ""])
        print("\n" + format_table(("built in", "s", "MB on disk"), built), flush=True)
    return verdicts


def _size_mb(directory: Path) -> float:
    return sum(path.stat().st_size for path in directory.glob("exact.*")) / 1e6


def bench_many(workspace: Workspace, options: argparse.Namespace) -> list[Verdict]:
    """The vectors, and what is measured with them."""
    count = 100_000 if options.quick else 1_000_000
    kept = ROOT / "build" / "search"
    kept.mkdir(parents=True, exist_ok=True)
    embedder = MiniLmEmbedder(options.models)
    verdicts: list[Verdict] = []
    with step(f"{options.sentences:,} real sentences"):
        real = real_vectors(embedder, options.sentences, kept)
    rows_path = workspace.path / "rows.f32"
    with step(f"{count:,} vectors made of them"):
        rows = extend(real, count, rows_path)
    near = [[what, str(len(some)), *(f"{each:.3f}" for each in nearness(some))] for what, some in
            (("half of the real", real[: len(real) // 2]), ("all real", real), ("extended", rows))]  # fmt: skip
    print(f"{len(real):,} vectors are of real sentences, the others each one of these plus the difference of two")
    print("real near neighbours. Cosine to the nearest other vector, of some:\n")
    print(format_table(("", "vectors", "5 %", "50 %", "95 %"), near), flush=True)
    queries = make_queries(embedder, rows, options.queries)
    if options.only != "mount":
        derived = workspace.path / "derived"
        derived.mkdir()
        verdicts += bench_vectors(rows_path, rows, queries, derived, options.quick)
    if options.only != "vectors":
        verdicts += measure_served(workspace, rows, embedder, options.models, options.queries)
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=DEFAULT_DIRECTORY, help="where the language model is")
    parser.add_argument("--quick", action="store_true", help="100,000 vectors, and the slow contestants left out")
    parser.add_argument("--sentences", type=int, default=20_000, help="how many real sentences are embedded")
    parser.add_argument("--queries", type=int, default=100, help="of each kind")
    parser.add_argument("--only", choices=("vectors", "mount", "lag"), help="leave the others out")
    options = parser.parse_args()
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}", flush=True)
    verdicts: list[Verdict] = []
    with Workspace() as workspace:
        if options.only in (None, "lag"):
            verdicts += measure_lag(workspace, options.models, rounds=2 if options.quick else 4)
        if options.only != "lag":
            verdicts += bench_many(workspace, options)
    print("\n" + format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts]))
    missed = sum(verdict.outcome != "ok" and not math.isnan(verdict.measured) for verdict in verdicts)
    print(f"\n{missed} missed; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
