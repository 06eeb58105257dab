"""An embedder that knows again what it was asked before.

For queries: a single text is looked up and kept, by its hash and the model's id; many texts at once are events, whose
vectors the index keeps. A cache that fails is only slow. Concurrency: as the embedder and the cache, thread-safe.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from opfs.ports import Embedder


class VectorCache(Protocol):
    """opfs.cache.embeddings is one."""

    def get(self, model_id: str, text: str) -> NDArray[np.float32] | None: ...

    def put(self, model_id: str, text: str, vector: NDArray[np.float32], cost_us: int = 0) -> None: ...


class CachedEmbedder:
    """`embedder`, with single texts from `cache` where it has them."""

    def __init__(self, embedder: Embedder, cache: VectorCache) -> None:
        self._embedder = embedder
        self._cache = cache
        self._model_id = embedder.model_id
        self._dimensions = embedder.dimensions

    @property
    def model_id(self) -> str:
        return self._model_id

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if len(texts) != 1:
            return self._embedder.embed(texts)
        (text,) = texts
        kept = self._cache.get(self._model_id, text)
        if kept is not None and kept.shape == (self._dimensions,):
            return kept.reshape(1, -1).copy()
        start_ns = time.perf_counter_ns()
        vectors = self._embedder.embed(texts)
        self._cache.put(self._model_id, text, vectors[0], (time.perf_counter_ns() - start_ns) // 1000)
        return vectors
