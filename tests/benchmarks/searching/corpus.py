"""A million vectors of event sentences, of which tens of thousands are real, and queries of every kind.

Embedding a million sentences takes hours on two cores. So real, distinct sentences are embedded, and the rest are made
of these: to a real vector is added the difference of two real near neighbours, which is what another container, number
or reason changes in a sentence, and the sum is made of length 1 again. Nearest neighbours come as near as those of so
many sentences would be, and a table says how near. What is embedded is kept in build/.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from retrieval.blocks import sentences
from retrieval.trial import questions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from opfs.ports import Embedder

_OFF_TOPIC = (
    "how do I bake sourdough bread",
    "the quick brown fox jumps over the lazy dog",
    "best holiday destinations in Italy",
    "who won the football world cup in 1998",
    "symptoms of a common cold in children",
    "a poem about the sea and the moon",
    "quantum entanglement explained simply",
    "share prices fell sharply on Tuesday",
    "cake with cherries and dark chocolate",
    "my cat sleeps all day",
    "the king signed a treaty with France",
    "how to learn to play the guitar",
    "asdf qwer zxcv",
    "Liebe Grüße aus Berlin",
    "0 1 2 3 4 5 6 7 8 9",
    "the",
    "?",
    "why is the sky blue",
    "a short history of the Roman empire",
    "which birds can swim",
)
_NEIGHBOURS = 8
_COMPARED = 2000
_AT_ONCE = 64
_EXTENDED_AT_ONCE = 20_000


def embed_all(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Two threads, texts of like length together, since a batch is padded to its longest."""
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    starts = range(0, len(order), _AT_ONCE)
    batches = [[texts[number] for number in order[start : start + _AT_ONCE]] for start in starts]
    embedder.embed(["the model is loaded once, not by two threads"])
    with ThreadPoolExecutor(2) as threads:
        vectors = np.concatenate(list(threads.map(embedder.embed, batches)))
    result = np.empty_like(vectors)
    result[order] = vectors
    return result


def real_vectors(embedder: Embedder, count: int, directory: Path) -> NDArray[np.float32]:
    """Vectors of real sentences, as the generator of the retrieval set writes them."""
    texts = list(sentences(count))
    key = hashlib.sha256("\n".join([embedder.model_id, *texts]).encode()).hexdigest()[:16]
    path = directory / f"sentences-{key}.npy"
    if not path.exists():
        np.save(path, embed_all(embedder, texts))
    return np.load(path)


def extend(real: NDArray[np.float32], count: int, path: Path) -> NDArray[np.float32]:
    """`count` vectors in a file of float32, the real ones first; the array is mapped."""
    random = np.random.default_rng(7)
    differences = _differences(real, random)
    rows = np.memmap(path, dtype="<f4", mode="w+", shape=(count, real.shape[1]))
    rows[: len(real)] = real[:count]
    for first in range(len(real), count, _EXTENDED_AT_ONCE):
        size = min(_EXTENDED_AT_ONCE, count - first)
        made = real[random.integers(0, len(real), size)] + differences[random.integers(0, len(differences), size)]
        rows[first : first + size] = made / np.linalg.norm(made, axis=1, keepdims=True)
    rows.flush()
    return rows


def _differences(real: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    some = random.choice(len(real), min(_COMPARED, len(real)), replace=False)
    near = np.argpartition(-(real[some] @ real.T), _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
    first, second = near[:, random.permutation(_NEIGHBOURS)[:2]].T
    return real[first] - real[second]


def nearness(rows: NDArray[np.float32]) -> list[float]:
    """Cosines to the nearest other vector: the 5th, 50th and 95th percentile of some rows."""
    some = np.random.default_rng(3).choice(len(rows), 300, replace=False)
    best = np.full(len(some), -1.0, dtype=np.float32)
    chosen = rows[some]
    for first in range(0, len(rows), _EXTENDED_AT_ONCE):
        products = chosen @ rows[first : first + _EXTENDED_AT_ONCE].T
        inside = np.flatnonzero((some >= first) & (some < first + _EXTENDED_AT_ONCE))
        products[inside, some[inside] - first] = -1
        best = np.maximum(best, products.max(axis=1))
    return np.quantile(best, [0.05, 0.5, 0.95]).tolist()


def make_queries(embedder: Embedder, rows: NDArray[np.float32], each: int) -> dict[str, NDArray[np.float32]]:
    """Unit vectors by kind; the first two kinds are in-domain."""
    random = np.random.default_rng(11)
    asked = [question.text for question in questions()]
    chosen = random.choice(len(asked), min(each, len(asked)), replace=False)
    unseen = list(sentences(each, seed=99))
    drawn = random.standard_normal((each // 2, rows.shape[1]))
    sample = rows[:: max(1, len(rows) // 20_000)].astype(np.float64)
    weights, directions = np.linalg.eigh(sample.T @ sample / len(sample))
    # Where the rows differ least and yet do: the model itself leaves a few directions empty.
    quietest = directions.T[weights > 1e-8][: each // 4]
    return {
        "questions about changes": embed_all(embedder, [asked[number] for number in chosen]),
        "sentences of events": embed_all(embedder, unseen),
        "questions about anything": embed_all(embedder, _OFF_TOPIC[:each]),
        "random directions": (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32),
        "orthogonal to nearly all": quietest.astype(np.float32),
    }
