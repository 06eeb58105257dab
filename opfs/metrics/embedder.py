"""An embedder whose work is timed. Thread-safe as the one it passes calls on to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from opfs.ports import Embedder


class TimedEmbedder:
    """Passes everything on to `embedder`; `embed` within what `timed` gives."""

    def __init__(self, embedder: Embedder, timed: Callable[[], AbstractContextManager[None]]) -> None:
        self._embedder = embedder
        self._timed = timed

    @property
    def model_id(self) -> str:
        return self._embedder.model_id

    @property
    def dimensions(self) -> int:
        return self._embedder.dimensions

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with self._timed():
            return self._embedder.embed(texts)
