"""Vectors of texts by the hash of the text: what a query needs that somebody asked before.

Not for the texts of events, whose vectors are in the index. Concurrency: thread-safe; a hit takes microseconds.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from opfs.cache.packed import PackedFile


class EmbeddingCache:
    """`model_id` is `opfs.ports.Embedder.model_id`: weights, variant and token limit. Vectors are float32."""

    def __init__(self, file: PackedFile) -> None:
        self._file = file
        self._hashers: dict[str, hashlib._Hash] = {}

    def get(self, model_id: str, text: str) -> NDArray[np.float32] | None:
        """The vector that was put, read-only, shape (dimensions,); None where there is none, or it is damaged."""
        record = self._file.get(self._key(model_id, text))
        return None if record is None else np.frombuffer(record.payload, np.float32)

    def put(self, model_id: str, text: str, vector: NDArray[np.float32], cost_us: int = 0) -> None:
        """Keep a vector; `cost_us` is what it took to make, for the statistics."""
        self._file.put(self._key(model_id, text), np.ascontiguousarray(vector, np.float32).tobytes(), cost_us)

    def _key(self, model_id: str, text: str) -> bytes:
        """SHA-256 of the model and the text, with a length between, so that no two pairs have the same bytes."""
        hasher = self._hashers.get(model_id)
        if hasher is None:
            name = model_id.encode("utf-8", "surrogatepass")
            hasher = self._hashers[model_id] = hashlib.sha256(len(name).to_bytes(4, "little") + name)
        hasher = hasher.copy()
        hasher.update(text.encode("utf-8", "surrogatepass"))
        return hasher.digest()
