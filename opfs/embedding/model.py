"""all-MiniLM-L6-v2 as an `Embedder`: tokenizers before, onnxruntime behind, nothing loaded until first use.

One text is a query and starts at once; more are bulk work, which is sorted by length, cut into batches, spread over
a few threads, and gives way to queries (opfs.embedding.lanes). The weights are checked by SHA-256 whenever they are
loaded (50 ms), because a silently different model would give silently different answers; what
nobody uses for a while is dropped again. The graph is built once and kept beside the weights. Does not fetch models.

Concurrency: every method may be called from any number of threads; the first callers wait for one load. `embed`
blocks for milliseconds to seconds, so it belongs in worker threads; the threads it starts end with the call and have
the caller's priority.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opfs.core.settings import FP32, VARIANTS, EmbeddingSettings
from opfs.embedding import graph, int8, weights
from opfs.embedding.idle import IdleTimer, return_free_memory
from opfs.embedding.lanes import Lanes
from opfs.embedding.session import CPU, ModelSource, Session, check_providers
from opfs.errors import IntegrityError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    Placed = Callable[[], AbstractContextManager[None]]
    """What a thread that computes runs in: the NUMA placement, where one is set."""

# Beyond eight texts a batch only costs memory, and beyond a thousand tokens it gains no speed either.
_BATCH_TEXTS = 8
_BATCH_TOKENS = 1024
# A device with thousands of lanes wants more at once.
_ACCELERATED_BATCH_TEXTS = 128
_ACCELERATED_BATCH_TOKENS = 16_384

# 256 tokens lie within this many characters of any text that people or plugins write; a megabyte of hostile
# text must not keep the tokenizer busy.
_TEXT_CHARS = 16_384


@dataclass(frozen=True, slots=True)
class _Loaded:
    tokenizer: Any
    session: Session


class MiniLmEmbedder:
    """Sentence embeddings of 384 floats, the first 256 tokens of each text.

    `directory` holds one directory per model. Raises InvalidRequest for settings that name what is not known.
    """

    def __init__(
        self,
        directory: Path = weights.DEFAULT_DIRECTORY,
        settings: EmbeddingSettings = EmbeddingSettings(),  # noqa: B008 - frozen
        *,
        placed: Placed = nullcontext,
    ) -> None:
        if settings.variant not in VARIANTS:
            raise InvalidRequest(
                f"there is no variant {settings.variant!r} of a model", hint=f"known: {', '.join(VARIANTS)}"
            )
        check_providers(settings.providers)
        self._model = weights.MINILM
        self._directory = directory / self._model.name
        self._settings = settings
        self._placed = placed
        self._lanes = Lanes(settings.threads)
        self._loading = threading.Lock()
        self._loaded: _Loaded | None = None
        self._idle = IdleTimer(self.unload, settings.idle_unload_s)

    @property
    def model_id(self) -> str:
        return model_id(self._model, self._settings.variant)

    @property
    def dimensions(self) -> int:
        return self._model.dimensions

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    @property
    def provider(self) -> str:
        """What computes, as the configuration names it; empty while nothing is loaded."""
        loaded = self._loaded
        return loaded.session.provider if loaded else ""

    @property
    def provider_note(self) -> str:
        """Why it is not what was asked for; empty where it is, and while nothing is loaded."""
        loaded = self._loaded
        notes = [self._variant_note(), loaded.session.note if loaded else ""]
        return "; ".join(note for note in notes if note)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One L2-normalised row per text; one text goes before any others that are under way.

        Raises NotFound where the model was not fetched, IntegrityError where it is not the published one, PoolError
        where there is no memory for it.
        """
        result = np.empty((len(texts), self.dimensions), dtype=np.float32)
        if not len(texts):
            return result
        self._idle.touch()
        loaded = self._load()
        if len(texts) == 1:
            tokens = [_tokens(loaded, texts[0])]
            with self._placed(), self._lanes.query():
                result[0] = _compute(loaded.session, tokens)[0]
        else:
            self._embed_many(loaded, texts, result)
        self._idle.touch()
        return result

    def unload(self) -> None:
        """Give the memory of the weights back; the next text loads them again. Work that is under way is finished."""
        with self._loading:
            self._loaded = None
        return_free_memory()

    def close(self) -> None:
        """Unload, and wait for nothing any more; the embedder can be used again all the same."""
        self._idle.stop()
        self.unload()

    # --- many texts ------------------------------------------------------------------------------------

    def _embed_many(self, loaded: _Loaded, texts: Sequence[str], result: NDArray[np.float32]) -> None:
        tokens = [_tokens(loaded, text) for text in texts]
        # The longest first: they decide how much memory is needed, and no thread is left alone with them at the end.
        batches = self._batches(loaded.session, tokens)[::-1]
        next_batch = _Shared(batches)
        failures: list[Exception] = []

        def work() -> None:
            try:
                with self._placed():
                    for batch in next_batch:
                        with self._lanes.bulk():
                            result[batch] = _compute(loaded.session, [tokens[position] for position in batch])
                        self._idle.touch()
            except Exception as error:
                next_batch.stop()
                failures.append(error)

        helpers = [
            threading.Thread(target=work, name="opfs-embed", daemon=True)
            for _ in range(min(self._settings.threads, len(batches)) - 1)
        ]
        for helper in helpers:
            helper.start()
        work()
        for helper in helpers:
            helper.join()
        if failures:
            raise failures[0]

    def _batches(self, session: Session, tokens: Sequence[Sequence[int]]) -> list[list[int]]:
        # Texts of one length share a batch, so that little of it is padding.
        order = sorted(range(len(tokens)), key=lambda position: len(tokens[position]))
        if self._settings.variant != FP32:
            return [[position] for position in order]  # see opfs.embedding.int8
        if session.provider == CPU:
            return _cut(order, tokens, _BATCH_TEXTS, _BATCH_TOKENS)
        return _cut(order, tokens, _ACCELERATED_BATCH_TEXTS, _ACCELERATED_BATCH_TOKENS)

    # --- loading ---------------------------------------------------------------------------------------

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

    def _load_session(self) -> Session:
        path = self._directory / weights.WEIGHTS
        tensors = graph.load_tensors(path)
        name = f"graph-{graph.BUILDER_VERSION}"
        given: dict[str, NDArray[Any]] = {}
        signed = True
        if self._settings.variant != FP32:
            signed = int8.prefers_signed()
            name += "-int8" if signed else "-uint8"
            given = int8.rounded_weights(path, tensors, signed=signed)
        providers = () if self._variant_note() else self._settings.providers
        saved = self._directory / f"{name}.onnx"
        with contextlib.suppress(OSError, IntegrityError):
            return Session(ModelSource(saved.read_bytes(), self._directory, given), providers)
        # Never built, or the saved one is damaged.
        architecture = graph.Architecture.load(self._directory / weights.CONFIG)
        encoder = (
            int8.Int8Encoder(tensors, architecture, weights.WEIGHTS, signed=signed)
            if given
            else graph.Encoder(tensors, architecture, weights.WEIGHTS)
        )
        built = encoder.serialise()
        session = Session(ModelSource(built, self._directory, given), providers)
        # A read-only directory costs a rebuild per start, nothing else.
        with contextlib.suppress(OSError):
            _write_atomically(saved, built)
        return session

    def _variant_note(self) -> str:
        """An accelerator has no kernels for what is rounded here, and would only pass it on."""
        asked = next((name for name in self._settings.providers if name != CPU), None)
        if self._settings.variant == FP32 or asked is None:
            return ""
        return f"{asked}: {self._settings.variant} runs on the CPU alone"


class _Shared:
    """Items that several threads take turns in taking."""

    def __init__(self, items: Sequence[list[int]]) -> None:
        self._items = iter(items)
        self._taking = threading.Lock()

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            with self._taking:
                item = next(self._items, None)
            if item is None:
                return
            yield item

    def stop(self) -> None:
        with self._taking:
            self._items = iter(())


def model_id(model: weights.PublishedModel, variant: str) -> str:
    """Names the weights, how they are held, and how much of a text is read: whatever changes a vector."""
    return f"{model.name}/{variant}/{model.max_tokens}/{model.file(weights.WEIGHTS).sha256[:16]}"


def _tokens(loaded: _Loaded, text: str) -> Sequence[int]:
    """The text as the tokenizer sees it: bounded, and without the lone surrogates that UTF-8 cannot say."""
    ids: Sequence[int] = loaded.tokenizer.encode(text[:_TEXT_CHARS].encode("utf-8", "replace").decode("utf-8")).ids
    return ids


def _cut(order: Sequence[int], tokens: Sequence[Sequence[int]], max_texts: int, max_tokens: int) -> list[list[int]]:
    """Split positions, shortest text first, into batches bounded in texts and in tokens with padding."""
    batches: list[list[int]] = []
    for position in order:
        width = len(tokens[position])
        if batches and len(batches[-1]) < max_texts and width * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches


def _compute(session: Session, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    ids = np.zeros((len(tokens), max(map(len, tokens))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, text_tokens in enumerate(tokens):
        ids[row, : len(text_tokens)] = text_tokens
        mask[row, : len(text_tokens)] = 1
    return session.run(graph.EMBEDDING, {graph.INPUT_IDS: ids, graph.ATTENTION_MASK: mask})


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
