"""From one real variant of the model to another: old vectors answer by the model that made them until new ones do."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from indexing import events_of, fill, search

from opfs.core.settings import FP32, INT8, EmbeddingSettings
from opfs.embedding.embedders import Embedders
from opfs.index.store import SqliteIndex

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("model")

TEXTS = [
    "container web ran out of memory and was given more of it",
    "port 22 was opened to everybody by the firewall",
    "the bridge br0 got a new address",
    "a package was installed: nginx 1.22",
    "wireguard peer was removed",
]


def ask(index: SqliteIndex) -> tuple[list[int], float]:
    (hit,) = index.similar("who can log in over ssh?", limit=1, uid=0, gids=())
    return search(index, "who can log in over ssh?", limit=3), hit.score


def test_vectors_of_eight_bits_take_the_place_of_exact_ones_while_search_goes_on(models_dir: Path, tmp_path: Path):
    exact = Embedders(models_dir, EmbeddingSettings(variant=FP32))
    with closing(SqliteIndex(tmp_path, exact.current, other_embedder=exact.named)) as index:
        fill(index, events_of(TEXTS))
        before = ask(index)
        identity = index.identity

    rounded = Embedders(models_dir, EmbeddingSettings(variant=INT8))
    with closing(SqliteIndex(tmp_path, rounded.current, other_embedder=rounded.named)) as index:
        # asked by the old model, of the old vectors: the very same answer
        assert ask(index) == before
        old = rounded.named(exact.current.model_id)
        assert old is not None
        assert old.is_loaded
        assert not rounded.current.is_loaded
        while index.embed(2) or index.settle():
            assert ask(index)[0]
        hits, score = ask(index)
        assert index.identity != identity
        assert hits[0] == before[0][0]
        assert score != before[1]
        assert score == pytest.approx(before[1], abs=0.05)
    exact.close()
    rounded.close()
