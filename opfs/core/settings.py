"""The words that settings of the model, its workers and the cache are made of; pure.

They are here because the configuration reads them and must be light: whoever verifies a proof loads it too. What they
do is told where they are used: opfs.embedding, opfs.topology, opfs.cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FP32, INT8 = VARIANTS = ("fp32", "int8")
"""How the weights are held: as published, or rounded to 8 bits (opfs.embedding.int8)."""

PROVIDERS: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""What runs the model: names for the configuration, and onnxruntime's own."""

LOCAL_NODE, ROUND_ROBIN, MOST_MEMORY, DISABLED = PLACEMENTS = ("local_node", "round_robin", "most_memory", "disabled")
"""All workers on the node where the daemon started; each on the next; all where most memory is free; anywhere."""

BIND, PREFERRED, INTERLEAVED, DEFAULT = POLICIES = ("bind", "preferred", "interleaved", "default")
"""Memory of the worker's node only; of that first; of all nodes in turns; as the kernel likes."""

LAYERS = ("embeddings", "queries", "blocks", "diffs")
DEFAULT_LAYERS = ("embeddings", "queries", "blocks")
"""What the cache of a pool holds unless told otherwise; docs/design/cache.md has what each is worth."""


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """`providers` are tried in order, and the CPU after them.

    `threads` is how many texts or batches are computed at once in each lane (opfs.embedding.lanes), one thread each.
    The weights are dropped from memory after `idle_unload_s` seconds without a text; 0: never.
    """

    variant: str = FP32
    providers: tuple[str, ...] = ("cpu",)
    threads: int = 2
    idle_unload_s: float = 0.0
