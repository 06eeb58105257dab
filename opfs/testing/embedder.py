"""A fake `Embedder` that needs no model: words hashed to directions, summed, normalised.

It passes the contract of the real one. Texts that share words are near each other, and nothing else is: it
knows no meaning. Polices its callers: a text that is no str is refused at once.

Concurrency: no state but a counter behind a lock; safe from any thread.
"""

from __future__ import annotations

import hashlib
import re
import threading
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class WordHashEmbedder:
    """Deterministic unit vectors; `embedded_count` counts the texts it was asked for."""

    def __init__(self, *, model_id: str = "word-hash/1", dimensions: int = 384) -> None:
        self._model_id = model_id
        self._dimensions = dimensions
        self._counting = threading.Lock()
        self.embedded_count = 0

    @property
    def model_id(self) -> str:
        return self._model_id

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("embed takes a sequence of str")
        with self._counting:
            self.embedded_count += len(texts)
        vectors = np.zeros((len(texts), self._dimensions), dtype=np.float64)
        for row, text in enumerate(texts):
            # The empty word is in every text, so that no text is the zero vector.
            for word in ("", *re.findall(r"\w+", text.lower())):
                vectors[row] += _direction(word, self._dimensions)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32)


class OneEmbedder:
    """In place of opfs.embedding.embedders.Embedders: one embedder, whatever the configuration says."""

    def __init__(self, embedder: WordHashEmbedder) -> None:
        self.current = embedder

    def named(self, model_id: str) -> WordHashEmbedder | None:
        return self.current if model_id == self.current.model_id else None

    def report(self) -> list[str]:
        return [self.current.model_id]

    def close(self) -> None:
        """It holds nothing."""


def _direction(word: str, dimensions: int) -> NDArray[np.float64]:
    seed = hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(seed[:8], "big")).standard_normal(dimensions)
