"""One model in onnxruntime, on the best of the devices that the configuration names, and why not on a better one.

An accelerator can fail three ways: this onnxruntime was built without it, its driver or its libraries do not load, or
it fails at work (memory, a lost device). In each the model runs on the CPU, and `note` says which and why.
Knows nothing of texts.

Concurrency: `run` may be called from any number of threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opfs.core.settings import PROVIDERS
from opfs.errors import IntegrityError, InvalidRequest, PoolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

CPU = "cpu"
_ERRORS_ONLY = 3
_NOTE_CHARS = 300


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A serialised graph, the directory of its external data, and what is given from memory instead.

    `given` stays referenced while a session lives: onnxruntime may read the arrays where they are.
    """

    graph: bytes
    directory: Path
    given: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Session:
    """Opens on the first of `providers` that works, else on the CPU; raises IntegrityError where the graph is bad."""

    def __init__(self, source: ModelSource, providers: Sequence[str]) -> None:
        self._source = source
        self._replacing = threading.Lock()
        self.provider = CPU
        """The name, as in the configuration, of what computes."""
        self.note = ""
        """Why it is not what was asked for, or empty."""
        self._session: Any = None
        notes = []
        for name in dict.fromkeys(providers):
            if name == CPU:
                break
            self._session, reason = _open_accelerator(source, name)
            if self._session is not None:
                self.provider = name
                break
            notes.append(f"{name}: {reason}")
        if self._session is None:
            self._session = _open(source, [PROVIDERS[CPU]])
        self.note = "; ".join(notes)

    def run(self, output: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Compute; raises PoolError. Where an accelerator fails at it, the CPU does this and all that follows."""
        session = self._session
        try:
            return _run(session, output, inputs)
        except PoolError as error:
            if self.provider == CPU and session is self._session:
                raise
            self._fall_back(session, str(error))
            return _run(self._session, output, inputs)

    def _fall_back(self, failed: Any, reason: str) -> None:
        with self._replacing:
            if self._session is not failed:
                return  # another thread's run failed first
            self._session = _open(self._source, [PROVIDERS[CPU]])
            note = f"{self.provider} failed at work: {_one_line(reason)}"
            self.note = f"{self.note}; {note}" if self.note else note
            self.provider = CPU


def check_providers(names: Sequence[str]) -> None:
    """Raise InvalidRequest for a name that is none."""
    unknown = [name for name in names if name not in PROVIDERS]
    if unknown:
        raise InvalidRequest(f"there is no execution provider {unknown[0]!r}", hint=f"known: {', '.join(PROVIDERS)}")


def _open_accelerator(source: ModelSource, name: str) -> tuple[Any, str]:
    """A session that has the accelerator, or None and why not."""
    import onnxruntime

    if PROVIDERS[name] not in onnxruntime.get_available_providers():
        return None, "this onnxruntime is built without it"
    try:
        if hasattr(onnxruntime, "preload_dlls"):
            # CUDA and cuDNN installed as Python packages are on no library path. It prints what it misses.
            with contextlib.redirect_stdout(sys.stderr):
                onnxruntime.preload_dlls()
        session = _open(source, [(PROVIDERS[name], _options(source, name)), PROVIDERS[CPU]])
    except Exception as error:
        # onnxruntime's exceptions share no base class of their own.
        return None, _missing_library(name) or _one_line(str(error))
    if PROVIDERS[name] in session.get_providers():
        return session, ""
    return None, _missing_library(name) or "there is no such device here, or its driver does not answer"


def _options(source: ModelSource, name: str) -> dict[str, str]:
    if name == "cuda":
        # TF32 rounds every product's operands to 10 bits: the vectors would no longer be the CPU's.
        return {"use_tf32": "0"}
    # TensorRT compiles for minutes; what it made is kept.
    return {
        "trt_fp16_enable": "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(source.directory / "tensorrt"),
    }


def _missing_library(name: str) -> str:
    """Why the provider's library does not load, empty where it does: onnxruntime only logs it, the loader tells."""
    import onnxruntime

    directory = Path(onnxruntime.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(directory / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(directory / f"libonnxruntime_providers_{name}.so"))
    except OSError as error:
        return _one_line(str(error))
    return ""


def _open(source: ModelSource, providers: Sequence[Any]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Several threads calling at once scale better than several threads within one call.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # A daemon that waits for writes must not spin for work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(source.directory.resolve())
    )
    if source.given:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in source.given.values()]
        options.add_external_initializers(list(source.given), values)
    try:
        return onnxruntime.InferenceSession(source.graph, options, providers=list(providers), enable_fallback=0)
    except Exception as error:
        raise IntegrityError(f"onnxruntime does not load the model in {source.directory}: {error}") from error


def _run(session: Any, output: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    try:
        (result,) = session.run([output], dict(inputs))
    except Exception as error:
        # Here it is memory or a device that failed, not the model.
        raise PoolError(f"onnxruntime could not run the model: {error}") from error
    array: NDArray[Any] = result
    return array


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_NOTE_CHARS]
