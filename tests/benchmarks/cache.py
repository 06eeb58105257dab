"""What each layer of the cache is worth: a hit beside working it out, through the code that the daemon runs.

    scripts/bench cache [--vectors 100000] [--events 20000]

The embedder of the queries layer is a hash of words, so what a hit saves there is the search alone; the vector of the
query is the layer `embeddings`. Documents are read from an archive that is larger than what is kept of it in memory.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import numpy as np
from harness.table import VERDICT_HEADINGS, Sample, Verdict, format_table, step
from harness.workspace import Workspace
from indexing import events_of, fill, sentences

from opfs.archive.pack import ArchivedBlock
from opfs.archive.packs import Archive
from opfs.cache.cache import Cache
from opfs.cache.descriptions import remember_description
from opfs.cache.queries import CachedSearches
from opfs.core.difference import diff_documents
from opfs.core.filters import EVERYTHING
from opfs.core.names import BlockName, ElementId
from opfs.core.narrative import sentence, summarize
from opfs.index.store import SqliteIndex
from opfs.ports import FileAttributes, StoredDocument
from opfs.testing.embedder import WordHashEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CACHE_BYTES = 1 << 30
COMPUTING_MS = 4.0
"""One text of 16 tokens on one free core: docs/design/cache.md."""
WEB = ElementId("lxc", "100")


def timed(work: Callable[[int], object], rounds: int) -> Sample:
    sample = Sample()
    for number in range(rounds):
        sample.measure(lambda number=number: work(number))
    return sample


def embeddings(place: Path, count: int) -> tuple[list[str], Sample]:
    """Of vectors of `count` texts, in a cache that was opened anew: opening, a hit, a miss."""
    vectors = np.random.default_rng(1).standard_normal((count, 384)).astype(np.float32)
    texts = [f"container {number} on the second node ran out of memory" for number in range(count)]
    with closing(Cache(place, CACHE_BYTES, ["embeddings"])) as cache:
        for text, vector in zip(texts, vectors, strict=True):
            cache.embeddings.put("model/fp32/256/0123456789abcdef", text, vector)
        size = cache.disk_bytes
    start = time.perf_counter()
    with closing(Cache(place, CACHE_BYTES, ["embeddings"])) as cache:
        opened_s = time.perf_counter() - start
        chosen = random.Random(1).choices(texts, k=20_000)
        hits = timed(lambda number: cache.embeddings.get("model/fp32/256/0123456789abcdef", chosen[number]), 20_000)
        misses = timed(lambda number: cache.embeddings.get("another", chosen[number]), 5000)
    print(f"{count:,} vectors: {size / 2**20:.0f} MiB on disk, opened in {opened_s * 1000:.0f} ms", file=sys.stderr)
    print(f"a miss: p50 {misses.p50_ms * 1000:.1f} µs", file=sys.stderr)
    return ["embeddings: a vector, 4 ms to make", f"{COMPUTING_MS * 1000:.0f}", f"{hits.p50_ms * 1000:.1f}"], hits


def queries(place: Path, directory: Path, count: int) -> list[str]:
    directory.mkdir()
    with ExitStack() as resources:
        index = resources.enter_context(closing(SqliteIndex(directory, WordHashEmbedder())))
        with step(f"{count:,} events"):
            fill(index, events_of(sentences(count)))
        cache = resources.enter_context(closing(Cache(place, CACHE_BYTES, ["queries"])))
        searches = CachedSearches(index, cache.queries, "1", count, "head")

        def ask(number: int) -> object:
            return searches.similar(f"web memory {number}", limit=20, uid=0, gids=[], where=EVERYTHING)

        first, again = timed(ask, 300), timed(ask, 300)
    return [f"queries: similar over {count:,} events", f"{first.p50_ms * 1000:.0f}", f"{again.p50_ms * 1000:.0f}"]


def blocks(place: Path, directory: Path) -> list[list[str]]:
    """Documents of an archive of 12 MB, most of it not in memory; and one of which the frame is."""
    chance = random.Random(1)
    archive = Archive(directory)
    names = [BlockName(height, f"{height:012x}") for height in range(3000)]
    with step("3,000 blocks in the archive"):
        for start in range(0, len(names), 1000):
            archive.add([_block(name, chance) for name in names[start : start + 1000]])
    order = chance.choices(names, k=2000)
    without = timed(lambda number: archive.read_version(order[number], WEB), len(order))
    warm = timed(lambda _: archive.read_version(names[7], WEB), 2000)
    with closing(Cache(place, CACHE_BYTES, ["blocks"])) as cache:
        archive.kept = cache.blocks
        timed(lambda number: archive.read_version(order[number], WEB), len(order))
        hits = timed(lambda number: archive.read_version(order[number], WEB), len(order))
    return [
        ["blocks: a document of a pruned block", f"{without.p50_ms * 1000:.0f}", f"{hits.p50_ms * 1000:.1f}"],
        ["  where its frame is in memory, which goes first", f"{warm.p50_ms * 1000:.1f}", "not asked"],
    ]


def _block(name: BlockName, chance: random.Random) -> ArchivedBlock:
    document = json.dumps({"hostname": "web", "note": chance.randbytes(2000).hex()}).encode()
    stored = StoredDocument(WEB, document, FileAttributes(0o644, 0, 0, 0))
    return ArchivedBlock(name, b"{}", b"", (stored,))


def diffs(place: Path, directory: Path) -> list[list[str]]:
    """The difference of two documents that are at hand, and a whole description with both read from disk."""
    directory.mkdir()
    old = {"hostname": "web", "memory": 512, "network": {"bridge": "br0", "ip": "10.0.0.5/24"}, "features": ["nesting"]}
    new = old | {"memory": 1024}
    for name, document in (("old", old), ("new", new)):
        (directory / name).write_text(json.dumps(document))
    (event,) = events_of(["lxc 100: memory 512 → 1024"])

    def describe() -> object:
        before, after = (json.loads((directory / name).read_bytes()) for name in ("old", "new"))
        summarize(WEB, "update", diff_documents(before, after))
        sentence(WEB, "update", before, after, "alice", "")
        return event

    bare = timed(lambda _: diff_documents(old, new), 2000)
    whole = timed(lambda _: describe(), 2000)
    with closing(Cache(place, CACHE_BYTES, ["diffs"])) as cache:
        hits = timed(lambda _: remember_description(cache.diffs, "1", "aa", describe), 2000)
    return [
        ["diffs: two documents at hand", f"{bare.p50_ms * 1000:.0f}", f"{hits.p50_ms * 1000:.0f}"],
        ["diffs: an event in words, both read from the page cache", f"{whole.p50_ms * 1000:.0f}", ""],
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=20_000)
    options = parser.parse_args()
    with Workspace() as workspace, ExitStack() as resources:
        place = workspace.filesystem("pool", 4 << 30, resources)
        row, hits = embeddings(place / "embeddings", options.vectors)
        rows = [row, queries(place / "queries", place / "index", options.events)]
        rows += blocks(place / "blocks", place / "archive")
        rows += diffs(place / "diffs", place / "documents")
    print(format_table(["layer", "worked out, p50 µs", "hit, p50 µs"], rows))
    verdict = Verdict("a hit in the cache of embeddings, 1/500 of 4 ms", hits.p50_ms * 1000, COMPUTING_MS * 2, "µs")
    print()
    print(format_table(VERDICT_HEADINGS, [verdict.cells()]))
    return 0 if verdict.outcome == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
