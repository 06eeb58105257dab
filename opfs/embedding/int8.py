"""The encoder with its matrices rounded to 8 bits: a quarter of the bytes and, with VNNI, a third of the time.

Weights: symmetric, one scale per output channel, made from the published float32 at every load; nothing rounded is
kept on disk, so there is nothing there to trust. Activations: rounded at run time by one scale for the whole input
(ONNX DynamicQuantizeLinear), which is why a text's vector depends on what shares its batch, and why each text is a
batch of its own, which needs no mask either. Same text, same machine: the same vector to the bit. Word embeddings,
norms, attention and pooling stay float32. Does no inference and keeps no state.

Sources: the ONNX operator reference, opset 20 (DynamicQuantizeLinear, MatMulInteger); onnxruntime's contributed
operators (MultiHeadAttention) and its documentation of quantization, on the saturation of unsigned-times-signed
products without VNNI.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opfs.embedding.graph import Encoder, external

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from opfs.embedding.graph import Architecture, Tensor

_ROUNDED = ".rounded"
_SCALE = ".scale"
_CONTRIBUTED = "com.microsoft"


class Int8Encoder(Encoder):
    """Builds the graph; its rounded matrices are external and come from `rounded_weights`."""

    def __init__(
        self, tensors: Mapping[str, Tensor], architecture: Architecture, weights_name: str, *, signed: bool
    ) -> None:
        super().__init__(tensors, architecture, weights_name)
        self._signed = signed
        self._rounded_inputs: dict[str, tuple[str, str, str]] = {}
        self._domains.append((_CONTRIBUTED, 1))

    def _attention(self, name: str, hidden: str, shape: str, bias: str) -> str:
        """Without a mask onnxruntime does it block by block: a tenth of a long text's time."""
        split = self._node("Concat", shape, self._ints(self._hidden), axis=0)
        parts = [
            self._node("Reshape", self._linear(f"{name}.attention.self.{part}", hidden), split)
            for part in ("query", "key", "value")
        ]
        attended = f"{name}.attended"
        heads = self._architecture.heads
        self._nodes.append(
            self._onnx.make_node("MultiHeadAttention", parts, [attended], domain=_CONTRIBUTED, num_heads=heads)
        )
        return self._flat(attended)

    def _linear(self, name: str, rows: str) -> str:
        import onnx

        kind = onnx.TensorProto.INT8 if self._signed else onnx.TensorProto.UINT8
        outputs, inputs = self._tensors[f"{name}.weight"].shape
        matrix, scale = f"{name}{_ROUNDED}", f"{name}{_SCALE}"
        # Where they lie is never looked at: the session is given both.
        self._initializers[matrix] = external(matrix, kind, (inputs, outputs), self._weights_name, 0, inputs * outputs)
        floats = onnx.TensorProto.FLOAT
        self._initializers[scale] = external(scale, floats, (outputs,), self._weights_name, 0, 4 * outputs)
        zero = "zero of the weights"
        self._initializers.setdefault(zero, self._onnx.make_tensor(zero, kind, [], [0 if self._signed else 128]))

        rounded, input_scale, input_zero = self._rounded(rows)
        product = self._node("Cast", self._node("MatMulInteger", rounded, matrix, input_zero, zero), to=floats)
        scaled = self._node("Mul", product, self._node("Mul", input_scale, scale))
        return self._node("Add", scaled, self._weight(f"{name}.bias"))

    def _rounded(self, rows: str) -> tuple[str, str, str]:
        """Query, key and value are made of one input: it is rounded once."""
        if rows not in self._rounded_inputs:
            outputs = (f"{rows}_rounded", f"{rows}_scale", f"{rows}_zero")
            self._nodes.append(self._onnx.make_node("DynamicQuantizeLinear", [rows], list(outputs)))
            self._rounded_inputs[rows] = outputs
        return self._rounded_inputs[rows]


def rounded_weights(path: Path, tensors: Mapping[str, Tensor], *, signed: bool) -> dict[str, NDArray[Any]]:
    """What the graph's external matrices hold, by name: each of shape (inputs, outputs), and their scales.

    Signed or not, they stand for the same numbers: unsigned ones are 128 more, and so is their zero.
    """
    content = np.memmap(path, mode="r")
    given: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        if not name.startswith("encoder.") or len(tensor.shape) != 2:
            continue
        end = tensor.offset + tensor.size_bytes
        weights = np.frombuffer(content[tensor.offset : end].tobytes(), dtype="<f4").reshape(tensor.shape)
        # A channel of zeros stays one, whatever its scale.
        scale = np.maximum(np.abs(weights).max(axis=1), np.finfo(np.float32).tiny) / np.float32(127)
        rounded = np.rint(weights / scale[:, None]).clip(-127, 127).astype(np.int8)
        layer = name.removesuffix(".weight")
        matrix = rounded if signed else (rounded.view(np.uint8) ^ 0x80)
        given[f"{layer}{_ROUNDED}"] = np.ascontiguousarray(matrix.T)
        given[f"{layer}{_SCALE}"] = scale.astype(np.float32)
    return given


def prefers_signed(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor multiplies unsigned by signed bytes exactly, and so fastest with signed weights.

    An x86 without VNNI adds pairs of such products in 16 bits, where they saturate: there both are unsigned.
    """
    if platform.machine() not in ("x86_64", "i686"):
        return True
    try:
        words = cpuinfo.read_text(errors="replace").split()
    except OSError:
        return False
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(words)
