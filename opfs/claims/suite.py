"""The claims, in the order of the page, and what measures each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.claims import embedding, growth, lookup, memory, pagecache, rollback, sending, vectors

if TYPE_CHECKING:
    from collections.abc import Callable

    from opfs.claims.bench import Bench
    from opfs.claims.claim import Finding


@dataclass(frozen=True, slots=True)
class Claim:
    """`title` is the claim in the words of the proposal, `protocol` how it is measured."""

    id: str
    title: str
    protocol: str
    measure: Callable[[Bench], Finding]


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "embedding-cache",
        "The cache makes embeddings 100 to 200 times as fast (10 ms → 0.1 ms)",
        "sentences that are all different are embedded one by one on the processor, then asked of a reopened cache "
        "on the scratch pool twenty times each, in random order; each vector is compared.",
        embedding.measure,
    ),
    Claim(
        "page-cache",
        "Separate subvolumes have separate page caches, so block writes don't evict the embedding cache",
        "a process in a memory cgroup of three times a hot file reads that file until its pages count as in use, "
        "writes five times as much beside it or in another subvolume, and asks mincore(2) what is left of it.",
        pagecache.measure,
    ),
    Claim(
        "zstd-vectors",
        "zstd saves 60 % on float32 vectors; level 3 is best; one file per vector is fine",
        "vectors of sentences are compressed as one run of bytes at each level; then a compressed file for each and "
        "one packed file are written to the scratch pool, the space it uses is compared, and both are read from "
        "warm caches.",
        vectors.measure,
    ),
    Claim(
        "snapshot-time",
        "A snapshot takes 1 ms (or 100 µs), 100 times faster than a traditional block",
        f"blocks of one changed document of {growth.DOCUMENTS:,} are made by the daemon's own store on the scratch "
        "pool; the last forty before each count are timed, the snapshot by itself and the whole until it is durable.",
        growth.measure_snapshots,
    ),
    Claim(
        "copy-on-write",
        "90 to 95 % of storage is saved by copy-on-write",
        "the space that btrfs says is used, metadata in both copies, before and after blocks of one changed "
        f"document of about {growth.SIZE_BYTES} bytes, against the same for the whole tree.",
        growth.measure_saving,
    ),
    Claim(
        "sqlite-lookup",
        "A SQLite lookup takes less than 0.1 ms",
        "rows with a 64-digit key, in a table without rowid on the scratch pool; 5,000 random keys that are there.",
        lookup.measure,
    ),
    Claim(
        "numa",
        "NUMA: local memory takes 10 ns and remote memory 100 ns; pinning to processors 0 to 3 doubles the speed",
        "where there are two nodes, independent random reads of a large array bound to either, which overlap as the "
        "processor likes; everywhere one text is embedded with and without holding the thread fast, in turns.",
        memory.measure,
    ),
    Claim(
        "send-deltas",
        "A snapshot's sender saves 89 % with deltas",
        f"bytes of `btrfs send` of a block of {growth.DOCUMENTS:,} documents, whole and with its parent.",
        sending.measure,
    ),
    Claim(
        "rollback",
        "A rollback takes a second",
        "a daemon of its own serves the scratch pool; files are written twice, then one line in ctl takes all of "
        "them back, and their content is compared.",
        rollback.measure,
    ),
    Claim(
        "many-snapshots",
        "Thousands of snapshots cost next to nothing, in time and in metadata",
        "as for the snapshot's time; and the space used between the counts, by the number of blocks.",
        growth.measure_cost,
    ),
)
