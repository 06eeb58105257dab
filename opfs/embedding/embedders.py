"""Every embedder of one daemon, by the id of its model: the configured one, and those that older vectors were made by.

While an index is made again by another model or variant, its old vectors go on answering, and their queries need the
model that made them. Each is loaded when it is first asked and dropped when idle, as opfs.embedding.model has it.

Concurrency: safe from any thread.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from opfs.core.settings import VARIANTS
from opfs.embedding.model import MiniLmEmbedder, model_id
from opfs.embedding.weights import MODELS

if TYPE_CHECKING:
    from pathlib import Path

    from opfs.core.settings import EmbeddingSettings
    from opfs.embedding.model import Placed


class Embedders:
    """One embedder for each model id, made when first asked for; `current` is the one of the settings."""

    def __init__(self, directory: Path, settings: EmbeddingSettings, *, placed: Placed = nullcontext) -> None:
        self._directory = directory
        self._settings = settings
        self._placed = placed
        self._making = threading.Lock()
        self.current = MiniLmEmbedder(directory, settings, placed=placed)
        self._by_id = {self.current.model_id: self.current}

    def named(self, model_id: str) -> MiniLmEmbedder | None:
        """The embedder whose vectors carry `model_id`, None where this opfs does not know it (any more)."""
        with self._making:
            if model_id not in self._by_id:
                variant = _VARIANT_OF.get(model_id)
                if variant is None:
                    return None
                settings = replace(self._settings, variant=variant)
                self._by_id[model_id] = MiniLmEmbedder(self._directory, settings, placed=self._placed)
            return self._by_id[model_id]

    def report(self) -> list[str]:
        """A line for each model that is in use, the configured one first: whether it is loaded, on what, and why."""
        with self._making:
            embedders = list(self._by_id.values())
        return [_describe(embedder) for embedder in embedders if embedder is self.current or embedder.is_loaded]

    def close(self) -> None:
        """Give back what is loaded."""
        with self._making:
            for embedder in self._by_id.values():
                embedder.close()


def _describe(embedder: MiniLmEmbedder) -> str:
    place = f"loaded, on {embedder.provider}" if embedder.is_loaded else "not loaded"
    note = embedder.provider_note
    return f"{embedder.model_id}, {place}" + (f"; {note}" if note else "")


_VARIANT_OF = {model_id(model, variant): variant for model in MODELS.values() for variant in VARIANTS}
