"""The BERT encoder as an ONNX graph whose weights stay where they are: inside a safetensors file.

A safetensors file is a JSON header and raw tensors, and an ONNX initializer may point at a byte range of
another file. So the graph is some 25 KB, is built in milliseconds, needs no converter, and the 90 MB of
weights are neither copied nor re-encoded. Mean pooling over the mask and the L2 norm are part of the graph.
Does no inference and keeps no state; importing this module does not import onnx.

Sources: the safetensors format description; the ONNX operator reference, opset 20; Devlin et al., BERT (2019).
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opfs.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

BUILDER_VERSION = 2
"""Part of the saved graph's name: raise it whenever a built graph would differ."""

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
EMBEDDING = "embedding"

_OPSET = 20
_IR_VERSION = 10
_HEADER_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one float32 tensor lies: `offset` in bytes from the start of the file."""

    shape: tuple[int, ...]
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers of a BERT encoder that its weights alone do not tell."""

    layers: int
    heads: int
    layer_norm_eps: float

    @classmethod
    def load(cls, path: Path) -> Architecture:
        """Read a published config.json; raises IntegrityError."""
        try:
            config = json.loads(path.read_bytes())
            if (config["model_type"], config["hidden_act"]) != ("bert", "gelu"):
                raise ValueError(f"a {config['model_type']} model with {config['hidden_act']}")
            return cls(
                int(config["num_hidden_layers"]), int(config["num_attention_heads"]), float(config["layer_norm_eps"])
            )
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise IntegrityError(f"{path} does not describe a BERT encoder: {error}") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read the header of a safetensors file: float32 tensors by name; raises IntegrityError.

    Every range is checked to lie inside the file and to have the size that its shape says, because the
    runtime maps these bytes as they are.
    """
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            if not 2 <= header_bytes <= min(_HEADER_LIMIT_BYTES, file_bytes - 8):
                raise ValueError(f"a header of {header_bytes} bytes")
            header = json.loads(file.read(header_bytes))
        start = 8 + header_bytes
        return {
            name: _tensor(name, entry, start, file_bytes)
            for name, entry in header.items()
            if name != "__metadata__" and entry["dtype"] == "F32"
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error) as error:
        raise IntegrityError(f"{path} is not a whole safetensors file: {error}") from error


def _tensor(name: str, entry: Mapping[str, Any], start: int, file_bytes: int) -> Tensor:
    shape = tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if not all(type(number) is int for number in (*shape, begin, end)):
        raise TypeError(f"{name} with a shape or an offset that is no integer")
    if min(shape, default=1) < 1 or not 0 <= begin < end <= file_bytes - start or end - begin != 4 * math.prod(shape):
        raise ValueError(f"{name} with shape {list(shape)} at bytes {begin} to {end}")
    return Tensor(shape, start + begin, end - begin)


def external(name: str, data_type: int, shape: Sequence[int], location: str, offset: int, size_bytes: int) -> Any:
    """An initializer whose bytes are in another file."""
    import onnx

    proto = onnx.TensorProto(name=name, data_type=data_type, dims=shape, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": str(offset), "length": str(size_bytes)}.items():
        proto.external_data.add(key=key, value=value)
    return proto


class Encoder:
    """Builds the nodes in order of execution; each method appends nodes and returns an output's name.

    The graph takes (input_ids, attention_mask), both int64 (batch, tokens), to float32 (batch, hidden).
    `weights_name` is the bare name of the safetensors file, which the runtime looks for beside the graph.
    """

    def __init__(self, tensors: Mapping[str, Tensor], architecture: Architecture, weights_name: str) -> None:
        from onnx import helper

        self._onnx = helper
        self._tensors = tensors
        self._architecture = architecture
        self._weights_name = weights_name
        self._domains = [("", _OPSET)]
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}

    def serialise(self) -> bytes:
        """The graph as onnxruntime reads it; raises IntegrityError where a tensor is missing."""
        try:
            self._hidden = self._tensors["embeddings.word_embeddings.weight"].shape[1]
            return self._serialise()
        except KeyError as error:
            raise IntegrityError(
                f"{self._weights_name} has no tensor {error.args[0]!r}, so it is not the model expected"
            ) from error

    def _serialise(self) -> bytes:
        import onnx

        shape = self._node("Shape", INPUT_IDS)
        mask = self._node("Cast", ATTENTION_MASK, to=onnx.TensorProto.FLOAT)
        # Hidden states stay two-dimensional (batch * tokens, hidden): Gemm wants matrices, and takes the
        # weights transposed as published, so that the runtime packs them once instead of copying them twice.
        hidden = self._embeddings(shape)
        bias = self._attention_bias(mask)
        for layer in range(self._architecture.layers):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, shape, bias)
        self._pool(hidden, shape, mask)

        helper = self._onnx
        graph = helper.make_graph(
            self._nodes,
            "bert-encoder",
            [
                helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "tokens"])
                for name in (INPUT_IDS, ATTENTION_MASK)
            ],
            [helper.make_tensor_value_info(EMBEDDING, onnx.TensorProto.FLOAT, ["batch", self._hidden])],
            list(self._initializers.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(*domain) for domain in self._domains],
            ir_version=_IR_VERSION,
            producer_name="opfs",
        )
        serialised: bytes = model.SerializeToString()
        return serialised

    def _embeddings(self, shape: str) -> str:
        token_count = self._node("Slice", shape, self._ints(1), self._ints(2))
        words = self._node("Gather", self._weight("embeddings.word_embeddings.weight"), INPUT_IDS)
        positions = self._node(
            "Slice",
            self._weight("embeddings.position_embeddings.weight"),
            self._ints(0),
            token_count,
            self._ints(0),
        )
        # A text is one segment, so of the two token types only the first is ever used.
        segment = self._node("Gather", self._weight("embeddings.token_type_embeddings.weight"), self._ints(0))
        summed = self._node("Add", words, self._node("Add", positions, segment))
        return self._flat(self._layer_norm("embeddings.LayerNorm", summed))

    def _attention_bias(self, mask: str) -> str:
        """0 where there is a token and a very negative number where there is padding, (batch, 1, 1, tokens)."""
        absent = self._node("Sub", self._floats(1.0), mask)
        # -1e9 rather than -inf: a row of nothing but padding must not become NaN.
        return self._node("Unsqueeze", self._node("Mul", absent, self._floats(-1e9)), self._ints(1, 2))

    def _layer(self, name: str, hidden: str, shape: str, bias: str) -> str:
        attended = self._linear(f"{name}.attention.output.dense", self._attention(name, hidden, shape, bias))
        hidden = self._layer_norm(f"{name}.attention.output.LayerNorm", self._node("Add", attended, hidden))
        inner = self._node("Gelu", self._linear(f"{name}.intermediate.dense", hidden))
        outer = self._linear(f"{name}.output.dense", inner)
        return self._layer_norm(f"{name}.output.LayerNorm", self._node("Add", outer, hidden))

    def _attention(self, name: str, hidden: str, shape: str, bias: str) -> str:
        heads = self._architecture.heads
        head_size = self._hidden // heads
        split = self._node("Concat", shape, self._ints(heads, head_size), axis=0)

        def project(part: str, order: Sequence[int]) -> str:
            projected = self._linear(f"{name}.attention.self.{part}", hidden)
            return self._node("Transpose", self._node("Reshape", projected, split), perm=order)

        query, key, value = project("query", [0, 2, 1, 3]), project("key", [0, 2, 3, 1]), project("value", [0, 2, 1, 3])
        scores = self._node("Mul", self._node("MatMul", query, key), self._floats(1 / math.sqrt(head_size)))
        weights = self._node("Softmax", self._node("Add", scores, bias), axis=-1)
        return self._flat(self._node("Transpose", self._node("MatMul", weights, value), perm=[0, 2, 1, 3]))

    def _pool(self, hidden: str, shape: str, mask: str) -> None:
        by_text = self._node("Reshape", hidden, self._node("Concat", shape, self._ints(self._hidden), axis=0))
        present = self._node("Mul", by_text, self._node("Unsqueeze", mask, self._ints(2)))
        # The norm cancels any factor, so the sum does for the mean.
        summed = self._node("ReduceSum", present, self._ints(1), keepdims=0)
        norm = self._node("ReduceL2", summed, self._ints(1), keepdims=1)
        self._nodes.append(self._onnx.make_node("Div", [summed, norm], [EMBEDDING]))

    def _linear(self, name: str, rows: str) -> str:
        return self._node("Gemm", rows, self._weight(f"{name}.weight"), self._weight(f"{name}.bias"), transB=1)

    def _layer_norm(self, name: str, rows: str) -> str:
        return self._node(
            "LayerNormalization",
            rows,
            self._weight(f"{name}.weight"),
            self._weight(f"{name}.bias"),
            axis=-1,
            epsilon=self._architecture.layer_norm_eps,
        )

    def _flat(self, name: str) -> str:
        return self._node("Reshape", name, self._ints(-1, self._hidden))

    def _node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"{operator}_{len(self._nodes)}"
        self._nodes.append(self._onnx.make_node(operator, list(inputs), [output], **attributes))
        return output

    def _weight(self, name: str) -> str:
        if name not in self._initializers:
            import onnx

            tensor = self._tensors[name]
            place = (self._weights_name, tensor.offset, tensor.size_bytes)
            self._initializers[name] = external(name, onnx.TensorProto.FLOAT, tensor.shape, *place)
        return name

    def _ints(self, *values: int) -> str:
        return self._constant("ints", [len(values)], values)

    def _floats(self, value: float) -> str:
        return self._constant("float", [], [value])

    def _constant(self, kind: str, dims: list[int], values: Sequence[float]) -> str:
        import onnx

        name = f"{kind}({', '.join(map(str, values))})"
        data_type = onnx.TensorProto.INT64 if kind == "ints" else onnx.TensorProto.FLOAT
        self._initializers.setdefault(name, self._onnx.make_tensor(name, data_type, dims, values))
        return name
