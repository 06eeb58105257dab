"""The real model: its numbers against the reference implementation's, and how it is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from opfs.embedding import graph, weights
from opfs.embedding.model import MiniLmEmbedder
from opfs.errors import IntegrityError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

GOLDEN = Path(__file__).parents[1] / "golden" / "minilm.json"

pytestmark = pytest.mark.needs("model")


@pytest.fixture
def copied_models(models_dir: Path, tmp_path: Path) -> Iterator[Path]:
    """A models directory of the test's own, without a saved graph.

    Hard links where the file system allows: 90 MB are not copied for every test. Symbolic links that leave the
    directory are refused by onnxruntime.
    """
    target = tmp_path / weights.MINILM.name
    target.mkdir()
    for file in weights.MINILM.files:
        if file.required:
            _link(models_dir / weights.MINILM.name / file.name, target / file.name)
    yield tmp_path
    shutil.rmtree(target)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def test_it_gives_the_reference_implementations_vectors(models_dir: Path):
    golden = json.loads(GOLDEN.read_text())
    assert golden["weights_sha256"] == weights.MINILM.file(weights.WEIGHTS).sha256
    vectors = MiniLmEmbedder(models_dir).embed([entry["text"] for entry in golden["vectors"]])
    assert len(vectors) >= 20
    checksum_weights = np.cos(np.arange(golden["dimensions"]))
    for vector, entry in zip(vectors, golden["vectors"], strict=True):
        assert vector[:16] == pytest.approx(entry["first"], abs=2e-6)
        # A sum over 384 errors is allowed some more than one of them.
        assert vector.astype(np.float64) @ checksum_weights == pytest.approx(entry["checksum"], abs=1e-5)


def test_more_threads_give_the_same_vectors(models_dir: Path):
    texts = ["container web ran out of memory", "who opened port 22?"]
    one, two = (MiniLmEmbedder(models_dir, threads=threads).embed(texts) for threads in (1, 2))
    assert np.abs(one - two).max() < 1e-6


def test_nothing_is_loaded_before_the_first_text(models_dir: Path):
    embedder = MiniLmEmbedder(models_dir)
    assert (embedder.dimensions, embedder.model_id) == (384, "all-MiniLM-L6-v2/fp32/256/53aa51172d142c89")
    embedder.embed([])
    assert not embedder.is_loaded
    embedder.embed(["x"])
    assert embedder.is_loaded


def test_the_graph_is_saved_beside_the_weights_and_used_again(copied_models: Path):
    first = MiniLmEmbedder(copied_models).embed(["x"])
    saved = copied_models / weights.MINILM.name / f"graph-{graph.BUILDER_VERSION}.onnx"
    inode = saved.stat().st_ino
    assert saved.stat().st_size < 40_000
    assert MiniLmEmbedder(copied_models).embed(["x"]).tobytes() == first.tobytes()
    assert saved.stat().st_ino == inode


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\x08\x0a garbage"])
def test_a_damaged_graph_is_built_again(copied_models: Path, content: bytes):
    saved = copied_models / weights.MINILM.name / f"graph-{graph.BUILDER_VERSION}.onnx"
    saved.write_bytes(content)
    assert np.linalg.norm(MiniLmEmbedder(copied_models).embed(["x"])) == pytest.approx(1, abs=1e-5)
    assert saved.stat().st_size > 10_000


def test_changed_weights_are_refused(copied_models: Path):
    path = copied_models / weights.MINILM.name / weights.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    # A new file: the bytes of the old one are shared.
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"model\.safetensors .* is not the published file"):
        MiniLmEmbedder(copied_models).embed(["x"])


def test_a_model_fetched_later_is_found(models_dir: Path, tmp_path: Path):
    embedder = MiniLmEmbedder(tmp_path)
    with pytest.raises(NotFound, match="opfs model fetch"):
        embedder.embed(["x"])
    assert weights.fetch(weights.MINILM, tmp_path, source=models_dir / weights.MINILM.name)
    assert embedder.embed(["x"]).shape == (1, 384)
    shutil.rmtree(tmp_path / weights.MINILM.name)


def test_an_accelerator_that_is_not_there_falls_back_with_a_reason(models_dir: Path):
    import onnxruntime

    embedder = MiniLmEmbedder(models_dir, providers=["cuda"])
    assert embedder.embed(["x"]).shape == (1, 384)
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    assert embedder.provider_note == ("" if has_cuda else "this onnxruntime is built without cuda; using what it has")


def test_an_unknown_accelerator_is_refused(models_dir: Path):
    with pytest.raises(InvalidRequest, match="known: cpu, cuda, tensorrt"):
        MiniLmEmbedder(models_dir, providers=["gpu"])
