"""Rows on disk to search, and the truth about them by scoring everything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from opfs.index.exact.mapped import MappedRows

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from opfs.index.exact.search import ExactSearch


DIMENSIONS = 384
PIECE = 256


class BaseFile:
    """A base file of its own, with a header in front."""

    def __init__(self, path: Path, dimensions: int = DIMENSIONS) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.rows = np.empty((0, dimensions), dtype=np.float32)
        os.pwrite(self.descriptor, b"h" * 64, 0)
        self.view = MappedRows.of(self.descriptor, count=0, width=dimensions, offset_bytes=64)

    def append(self, rows: NDArray[np.float32]) -> MappedRows:
        os.pwrite(self.descriptor, rows.tobytes(), 64 + self.rows.nbytes)
        self.rows = np.concatenate([self.rows, rows])
        self.view = self.view.grown(self.descriptor, len(self.rows))
        return self.view

    def close(self) -> None:
        os.close(self.descriptor)


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-30)).astype(np.float32)


def sentences(count: int, seed: int, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
    """Rows as a language model gives them: most of the weight in few directions, many nearly alike."""
    random = np.random.default_rng(seed)
    topics = random.standard_normal((12, dimensions)) @ np.diag(np.geomspace(1, 0.02, dimensions))
    rows = topics[random.integers(0, 12, count)]
    return unit(rows + random.standard_normal(rows.shape) @ np.diag(np.geomspace(0.4, 0.004, dimensions)))


def grow_until_done(engine: ExactSearch, view: MappedRows) -> None:
    steps = 0
    while engine.extend(view):
        steps += 1
        assert steps < 1000


def truth(
    rows: NDArray[np.float32], query: NDArray[np.float32], mask: NDArray[np.bool_] | None, limit: int
) -> tuple[list[int], list[float]]:
    scores = np.vecdot(rows.astype(np.float64), query.astype(np.float64))
    chosen = np.flatnonzero(np.isfinite(scores) if mask is None else mask & np.isfinite(scores))
    ranked = chosen[np.lexsort((chosen, -scores[chosen]))]
    best = ranked[scores[ranked] >= scores[ranked[min(limit, len(ranked)) - 1]]] if len(ranked) else ranked
    return best.tolist(), scores[best].tolist()


def check(engine: ExactSearch, view: MappedRows, rows: NDArray[np.float32], query, mask=None, limit: int = 10):
    found, scores = engine.nearest(view, query, mask=mask, limit=limit)
    assert (found.tolist(), scores.tolist()) == truth(rows[: view.count], query, mask, limit)


def queries(rows: NDArray[np.float32], engine: ExactSearch) -> dict[str, NDArray[np.float32]]:
    """In the middle of the rows, off them, along a row, and against the basis."""
    random = np.random.default_rng(5)
    assert engine._derived is not None
    rotation = engine._derived.basis.rotation
    return {
        "a row": rows[len(rows) // 2],
        "near a row": unit(rows[7] + 0.05 * random.standard_normal(rows.shape[1])),
        "anything": unit(random.standard_normal(rows.shape[1])),
        "the first direction": rotation[0].astype(np.float32),
        "the last direction": rotation[-1].astype(np.float32),
        "all directions alike": unit(rotation.sum(axis=0)),
        "away from all": unit(-rows.mean(axis=0)),
        "long": rows[3] * np.float32(1e6),
        "short": rows[3] * np.float32(1e-20),
    }
