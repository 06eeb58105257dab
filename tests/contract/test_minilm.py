"""The real model: its numbers against the reference implementation's, and how it is loaded."""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from opfs.core.settings import INT8, EmbeddingSettings
from opfs.embedding import graph, int8, weights
from opfs.embedding.embedders import Embedders
from opfs.embedding.model import MiniLmEmbedder
from opfs.errors import IntegrityError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

GOLDEN = Path(__file__).parents[1] / "golden" / "minilm.json"

INT8_SETTINGS = EmbeddingSettings(variant=INT8)

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


def test_eight_bits_give_nearly_the_reference_implementations_vectors(models_dir: Path):
    golden = json.loads(GOLDEN.read_text())["vectors"]
    texts = [entry["text"] for entry in golden]
    exact = MiniLmEmbedder(models_dir).embed(texts)
    rounded = MiniLmEmbedder(models_dir, INT8_SETTINGS).embed(texts)
    cosines = (exact.astype(np.float64) * rounded).sum(axis=1)
    assert cosines.mean() > 0.99
    assert cosines.min() > 0.98
    assert cosines.max() < 0.9999


def test_eight_bits_with_and_without_sign_give_the_same_vectors(models_dir: Path, monkeypatch: pytest.MonkeyPatch):
    texts = ["container web ran out of memory", "who opened port 22?"]
    found = []
    for signed in (True, False):
        monkeypatch.setattr(int8, "prefers_signed", lambda signed=signed: signed)
        found.append(MiniLmEmbedder(models_dir, INT8_SETTINGS).embed(texts))
    assert np.abs(found[0] - found[1]).max() < 1e-5


def test_rounded_weights_are_the_nearest_of_their_channel(models_dir: Path):
    path = models_dir / weights.MINILM.name / weights.WEIGHTS
    tensors = graph.load_tensors(path)
    name = "encoder.layer.3.intermediate.dense"
    place = tensors[f"{name}.weight"]
    content = path.read_bytes()[place.offset : place.offset + place.size_bytes]
    published = np.frombuffer(content, np.float32).reshape(place.shape).T
    signed, unsigned = (int8.rounded_weights(path, tensors, signed=signed) for signed in (True, False))
    matrix, scale = signed[f"{name}.rounded"], signed[f"{name}.scale"]
    assert (matrix.dtype, matrix.shape, scale.shape) == (np.int8, published.shape, (published.shape[1],))
    assert (np.abs(matrix * scale - published) <= 0.5001 * scale).all()
    assert (np.abs(matrix.astype(int)).max(axis=0) == 127).all()
    assert (unsigned[f"{name}.rounded"].astype(int) - 128 == matrix).all()


@pytest.mark.parametrize(
    ("flags", "signed"), [("fma avx2", False), ("avx2 avx512_vnni", True), ("avx2 avx_vnni", True), ("", False)]
)
def test_without_vnni_on_x86_the_weights_have_no_sign(tmp_path: Path, flags: str, signed: bool):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nflags : {flags}\n")
    if platform.machine() == "x86_64":
        assert int8.prefers_signed(cpuinfo) == signed
        assert not int8.prefers_signed(tmp_path / "none")
    else:
        assert int8.prefers_signed(cpuinfo)


def test_an_unknown_variant_is_refused(models_dir: Path):
    with pytest.raises(InvalidRequest, match="known: fp32, int8"):
        MiniLmEmbedder(models_dir, EmbeddingSettings(variant="int4"))


# --- queries beside bulk work, memory, several models


def test_a_query_is_answered_while_bulk_work_is_under_way(models_dir: Path, monkeypatch: pytest.MonkeyPatch):
    embedder = MiniLmEmbedder(models_dir, EmbeddingSettings(threads=1))
    session = embedder._load().session
    compute, begun, answered = session.run, threading.Event(), threading.Event()

    def run(output: str, inputs: dict) -> object:
        if len(inputs[graph.INPUT_IDS]) > 1:  # a batch: it does not end before the query is answered
            begun.set()
            assert answered.wait(30)
        return compute(output, inputs)

    monkeypatch.setattr(session, "run", run)
    with ThreadPoolExecutor(1) as pool:
        bulk = pool.submit(embedder.embed, [f"container {number} started" for number in range(16)])
        assert begun.wait(30)
        assert embedder.embed(["who opened port 22?"]).shape == (1, 384)
        answered.set()
        assert bulk.result(30).shape == (16, 384)


def test_the_memory_is_given_back_when_idle_and_the_vectors_stay_the_same(models_dir: Path):
    embedder = MiniLmEmbedder(models_dir, EmbeddingSettings(idle_unload_s=0.05))
    first = embedder.embed(["who opened port 22?"])
    deadline = time.monotonic() + 120
    while embedder.is_loaded:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert (embedder.provider, embedder.provider_note) == ("", "")
    assert embedder.embed(["who opened port 22?"]).tobytes() == first.tobytes()
    embedder.close()
    assert not embedder.is_loaded


def test_unloading_under_work_disturbs_nobody(models_dir: Path):
    embedder = MiniLmEmbedder(models_dir)
    texts = [f"container {number} ran out of memory" for number in range(32)]
    expected = embedder.embed(texts)
    ended = threading.Event()

    def unload() -> None:
        while not ended.wait(0.02):
            embedder.unload()

    thread = threading.Thread(target=unload)
    thread.start()
    try:
        for _ in range(2):
            assert np.abs(embedder.embed(texts) - expected).max() < 1e-6
    finally:
        ended.set()
        thread.join()


def test_every_thread_that_computes_is_placed(models_dir: Path):
    placed: list[int] = []

    @contextlib.contextmanager
    def place() -> Iterator[None]:
        placed.append(threading.get_native_id())
        yield

    embedder = MiniLmEmbedder(models_dir, EmbeddingSettings(threads=3), placed=place)
    embedder.embed(["x"])
    assert placed == [threading.get_native_id()]
    embedder.embed([f"container {number}" for number in range(64)])
    assert len(placed) == 4
    assert placed.count(threading.get_native_id()) == 2


def test_a_model_is_found_by_the_id_of_its_vectors(models_dir: Path):
    embedders = Embedders(models_dir, INT8_SETTINGS)
    assert embedders.current.model_id == "all-MiniLM-L6-v2/int8/256/53aa51172d142c89"
    assert embedders.named(embedders.current.model_id) is embedders.current
    older = embedders.named("all-MiniLM-L6-v2/fp32/256/53aa51172d142c89")
    assert older is not None
    assert older is embedders.named(older.model_id)
    assert embedders.report() == [f"{embedders.current.model_id}, not loaded"]
    assert older.embed(["x"]).tobytes() == MiniLmEmbedder(models_dir).embed(["x"]).tobytes()
    assert embedders.report()[1] == f"{older.model_id}, loaded, on cpu"
    for unknown in ("", "word-hash/1", "all-MiniLM-L6-v2/fp32/256/0000000000000000", "all-MiniLM-L6-v2/int4/256/x"):
        assert embedders.named(unknown) is None
    embedders.close()
    assert not older.is_loaded


def test_eight_bits_run_on_the_processor_alone(models_dir: Path):
    embedder = MiniLmEmbedder(models_dir, EmbeddingSettings(variant=INT8, providers=("cuda", "cpu")))
    embedder.embed(["x"])
    assert (embedder.provider, embedder.provider_note) == ("cpu", "cuda: int8 runs on the CPU alone")


def test_more_threads_give_the_same_vectors(models_dir: Path):
    texts = ["container web ran out of memory", "who opened port 22?"]
    one, two = (MiniLmEmbedder(models_dir, EmbeddingSettings(threads=threads)).embed(texts) for threads in (1, 2))
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

    embedder = MiniLmEmbedder(models_dir, EmbeddingSettings(providers=("tensorrt", "cuda")))
    assert embedder.embed(["x"]).shape == (1, 384)
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        assert embedder.provider == "cuda" or "cuda: " in embedder.provider_note
    else:
        assert embedder.provider == "cpu"
        assert embedder.provider_note == (
            "tensorrt: this onnxruntime is built without it; cuda: this onnxruntime is built without it"
        )


def test_an_unknown_accelerator_is_refused(models_dir: Path):
    with pytest.raises(InvalidRequest, match="known: cpu, cuda, tensorrt"):
        MiniLmEmbedder(models_dir, EmbeddingSettings(providers=("gpu",)))
