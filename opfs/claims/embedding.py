"""The cache of embeddings: what a hit costs beside computing, through the whole way in and out."""

from __future__ import annotations

import random
from contextlib import closing
from typing import TYPE_CHECKING

from opfs.cache.embeddings import EmbeddingCache
from opfs.cache.packed import PackedFile
from opfs.claims.claim import Bars, Finding, Table, Verdict, unknown
from opfs.claims.samples import Sample, in_ms
from opfs.embedding.model import MiniLmEmbedder
from opfs.embedding.weights import list_models

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from opfs.claims.bench import Bench

CLAIMED = 100.0
"""The proposal says 100 to 200 times."""
_SUBJECTS = (
    "web server",
    "database",
    "bridge br0",
    "container 104",
    "mail queue",
    "firewall",
    "time service",
    "backup",
)
_HAPPENINGS = (
    "ran out of memory",
    "lost its address",
    "was restarted",
    "refuses logins",
    "got another port",
    "is slow",
)
_WHEN = ("after the upgrade", "last night", "on the second node", "since alice changed it", "twice in an hour")


def texts(count: int, seed: int = 1) -> list[str]:
    """Sentences as people ask them, all different."""
    chance = random.Random(seed)
    return [
        f"{chance.choice(_SUBJECTS)} {chance.choice(_HAPPENINGS)} {chance.choice(_WHEN)}, case {number}"
        for number in range(count)
    ]


def measure(bench: Bench) -> Finding:
    (model,) = list_models(bench.models)
    if model.problem:
        return unknown(f"The model is not there ({model.problem}); `sudo opfs model fetch` gets it.")
    embedder = MiniLmEmbedder(bench.models)
    asked = texts(bench.by_effort(30, 200))
    embedder.embed(["the first call loads the model"])
    computing, hits = Sample(), Sample()
    vectors: list[NDArray[np.float32]] = []
    for number, text in enumerate(asked):
        with computing.timed():
            vectors.append(embedder.embed([text])[0])
        bench.progress(number, len(asked))
    with bench.filesystem(512 << 20) as place, closing(PackedFile(place / "cache", 64 << 20)) as file:
        cache = EmbeddingCache(file)
        for text, vector in zip(asked, vectors, strict=True):
            cache.put(embedder.model_id, text, vector)
        order = random.Random(2).choices(range(len(asked)), k=20 * len(asked))
        for number in order:
            with hits.timed():
                found = cache.get(embedder.model_id, asked[number])
            if found is None or not (found == vectors[number]).all():
                raise RuntimeError("the cache gave another vector than it got")
    return judge(computing, hits)


def judge(computing: Sample, hits: Sample) -> Finding:
    """True where a hit is at least `CLAIMED` times as fast at the median."""
    ratio = computing.p50_s / hits.p50_s
    table = Table(
        ("", "p50", "p99"),
        (
            ("computing one text", in_ms(computing.p50_s), in_ms(computing.p99_s)),
            ("a hit", in_ms(hits.p50_s), in_ms(hits.p99_s)),
            ("ratio", f"{ratio:.0f} to 1", f"{computing.p99_s / hits.p99_s:.0f} to 1"),
        ),
    )
    said = (
        f"A vector from the cache comes {ratio:.0f} times as fast as computing it, where the proposal says 100 to "
        "200 times. It helps only who asks the same text again: a search for a new text still has to compute, and "
        "any search does more than get a vector."
    )
    values = (("computing", computing.p50_s * 1e6), ("a hit", hits.p50_s * 1e6))
    bars = Bars("One vector, median", "µs", values, is_logarithmic=True)
    return Finding(Verdict.TRUE if ratio >= CLAIMED else Verdict.FALSE, said, (table,), (bars,))
