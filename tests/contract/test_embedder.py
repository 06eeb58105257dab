"""What every Embedder keeps to, the real model in each of its variants and the fake that stands in for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from opfs.core.settings import VARIANTS, EmbeddingSettings
from opfs.embedding.model import MiniLmEmbedder
from opfs.testing.embedder import WordHashEmbedder

TEXTS = [
    "",
    "web",
    "container web ran out of memory",
    "Größe geändert 🚀 サーバー",
    "key changed " * 400,
    "nul \x00 and bell \x07",
    "\udcff no UTF-8",
    "x" * 100_000,
    "container web ran out of memory",
]


@pytest.fixture(
    scope="module", params=["fake", *(pytest.param(name, marks=pytest.mark.needs("model")) for name in VARIANTS)]
)
def embedder(request: pytest.FixtureRequest):
    if request.param == "fake":
        return WordHashEmbedder()
    return MiniLmEmbedder(request.getfixturevalue("models_dir"), EmbeddingSettings(variant=request.param))


def test_rows_are_unit_vectors(embedder):
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_nothing_gives_no_rows(embedder):
    assert embedder.embed([]).shape == (0, embedder.dimensions)


def test_a_text_means_the_same_in_any_batch(embedder):
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
    assert np.abs(alone - embedder.embed(TEXTS)).max() < 1e-6
    assert np.abs(alone[::-1] - embedder.embed(TEXTS[::-1])).max() < 1e-6


def test_repeats_are_equal_to_the_bit(embedder):
    assert embedder.embed(TEXTS).tobytes() == embedder.embed(TEXTS).tobytes()


def test_related_texts_are_nearer_than_unrelated_ones(embedder):
    query, near, far = embedder.embed(["web server memory", "memory of the web server set to 1024", "a red bicycle"])
    assert query @ near > query @ far + 0.3


def test_threads_do_not_disturb_each_other(embedder):
    expected = np.concatenate([embedder.embed([text]) for text in TEXTS])
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda number: embedder.embed([TEXTS[number % len(TEXTS)]]), range(36)))
    for number, vector in enumerate(results):
        assert np.abs(vector - expected[number % len(TEXTS)]).max() < 1e-6


def test_the_model_id_says_which_model(embedder):
    assert embedder.model_id
    assert embedder.model_id == embedder.model_id.strip()
