"""all-MiniLM-L6-v2 as an `Embedder`: tokenizers before, onnxruntime behind, nothing loaded until first use.

The weights are checked by SHA-256 whenever they are loaded (50 ms), because a silently different model would
give silently different answers. The graph is built once and kept beside the weights. Does not fetch models.

Concurrency: `embed` may be called from any number of threads; the first callers wait for one load. Calls
block for milliseconds to seconds, so they belong in worker threads.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opfs.embedding import graph, weights
from opfs.errors import IntegrityError, InvalidRequest, PoolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Names for the configuration, and onnxruntime's own."""

# Beyond eight texts a batch only costs memory, and beyond a thousand tokens it gains no speed either.
_BATCH_TEXTS = 8
_BATCH_TOKENS = 1024

# 256 tokens lie within this many characters of any text that people or plugins write; a megabyte of hostile
# text must not keep the tokenizer busy.
_TEXT_CHARS = 16_384

_ERRORS_ONLY = 3


@dataclass(frozen=True, slots=True)
class _Loaded:
    tokenizer: Any
    session: Any


class MiniLmEmbedder:
    """Sentence embeddings of 384 floats, the first 256 tokens of each text.

    `directory` holds one directory per model. `threads` is per call: several threads calling at once scale
    better than several threads within one call. `providers` are tried in order, and the CPU after them;
    `provider_note` says why one that was asked for is not used.
    """

    def __init__(
        self,
        directory: Path = weights.DEFAULT_DIRECTORY,
        *,
        threads: int = 1,
        providers: Sequence[str] = ("cpu",),
    ) -> None:
        self._model = weights.MINILM
        self._directory = directory / self._model.name
        self._threads = threads
        self._providers, self.provider_note = _choose_providers(providers)
        self._loading = threading.Lock()
        self._loaded: _Loaded | None = None

    @property
    def model_id(self) -> str:
        file = self._model.file(weights.WEIGHTS)
        return f"{self._model.name}/fp32/{self._model.max_tokens}/{file.sha256[:16]}"

    @property
    def dimensions(self) -> int:
        return self._model.dimensions

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One L2-normalised row per text.

        Raises NotFound where the model was not fetched, IntegrityError where it is not the published one.
        """
        result = np.empty((len(texts), self.dimensions), dtype=np.float32)
        if not len(texts):
            return result
        loaded = self._load()
        tokens = [loaded.tokenizer.encode(_encodable(text)).ids for text in texts]
        # Texts of one length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda position: len(tokens[position]))
        for batch in _batches(order, tokens):
            result[batch] = _run(loaded.session, [tokens[position] for position in batch])
        return result

    def _load(self) -> _Loaded:
        with self._loading:
            if self._loaded is None:
                for name in (weights.WEIGHTS, weights.TOKENIZER, weights.CONFIG):
                    weights.check_file(self._directory / name, self._model.file(name))
                self._loaded = _Loaded(self._load_tokenizer(), self._load_session())
            return self._loaded

    def _load_tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._directory / weights.TOKENIZER))
        # The published file pads and cuts at 128 tokens, the published model at 256.
        tokenizer.no_padding()
        tokenizer.enable_truncation(self._model.max_tokens)
        return tokenizer

    def _load_session(self) -> Any:
        saved = self._directory / f"graph-{graph.BUILDER_VERSION}.onnx"
        with contextlib.suppress(OSError, IntegrityError):
            return self._start(saved.read_bytes())
        # Never built, or the saved one is damaged.
        built = graph.build(
            graph.load_tensors(self._directory / weights.WEIGHTS),
            graph.Architecture.load(self._directory / weights.CONFIG),
            weights.WEIGHTS,
        )
        session = self._start(built)
        # A read-only directory costs a rebuild per start, nothing else.
        with contextlib.suppress(OSError):
            _write_atomically(saved, built)
        return session

    def _start(self, model: bytes) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # A daemon that waits for writes must not spin for work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(self._directory.resolve())
        )
        try:
            return onnxruntime.InferenceSession(model, options, providers=self._providers)
        except Exception as error:
            # onnxruntime's exceptions share no base class of their own.
            raise IntegrityError(f"onnxruntime does not load the model in {self._directory}: {error}") from error


def _choose_providers(names: Sequence[str]) -> tuple[list[str], str]:
    """onnxruntime's providers for the names of the configuration, the CPU last, and why one is missing."""
    unknown = [name for name in names if name not in PROVIDERS]
    if unknown:
        raise InvalidRequest(f"there is no execution provider {unknown[0]!r}", hint=f"known: {', '.join(PROVIDERS)}")
    wanted = [PROVIDERS[name] for name in dict.fromkeys((*names, "cpu"))]
    if len(wanted) == 1:
        return wanted, ""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    missing = [name for name in names if PROVIDERS[name] not in available]
    note = f"this onnxruntime is built without {', '.join(missing)}; using what it has" if missing else ""
    return [provider for provider in wanted if provider in available], note


def _encodable(text: str) -> str:
    """The text the tokenizer sees: bounded, and without the lone surrogates that UTF-8 cannot say."""
    return text[:_TEXT_CHARS].encode("utf-8", "replace").decode("utf-8")


def _batches(order: Sequence[int], tokens: Sequence[Sequence[int]]) -> list[list[int]]:
    """Split positions, shortest text first, into batches bounded in texts and in tokens with padding."""
    batches: list[list[int]] = []
    for position in order:
        width = len(tokens[position])
        if batches and len(batches[-1]) < _BATCH_TEXTS and width * (len(batches[-1]) + 1) <= _BATCH_TOKENS:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches


def _run(session: Any, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    ids = np.zeros((len(tokens), max(map(len, tokens))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, text_tokens in enumerate(tokens):
        ids[row, : len(text_tokens)] = text_tokens
        mask[row, : len(text_tokens)] = 1
    try:
        (embeddings,) = session.run([graph.EMBEDDING], {graph.INPUT_IDS: ids, graph.ATTENTION_MASK: mask})
    except Exception as error:
        # As above; here it is memory or a device that failed, not the model.
        raise PoolError(f"onnxruntime could not run the model: {error}") from error
    vectors: NDArray[np.float32] = embeddings
    return vectors


def _write_atomically(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".graph-", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
