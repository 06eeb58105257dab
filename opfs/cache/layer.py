"""One layer of the cache: what a computation gave, by the key of its question.

Concurrency: thread-safe; two threads that ask the same at once both compute.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from opfs.cache.packed import PackedFile


class Layer:
    """What was computed in less than `min_cost_us` is not worth keeping."""

    def __init__(self, file: PackedFile, min_cost_us: int = 0) -> None:
        self._file = file
        self._min_cost_us = min_cost_us

    def remember(
        self, key: bytes, compute: Callable[[], bytes], accept: Callable[[bytes], bool] = lambda _: True
    ) -> bytes:
        """What is kept under the key, if that is accepted; otherwise what is computed now, and kept.

        Where the cache is cleared meanwhile, nothing is kept: the computation may have seen what is being erased.
        """
        found = self._file.get(key)
        if found is not None:
            payload = bytes(found.payload)
            if accept(payload):
                return payload
        epoch = self._file.epoch
        start_ns = time.perf_counter_ns()
        payload = compute()
        cost_us = (time.perf_counter_ns() - start_ns) // 1000
        if cost_us >= self._min_cost_us:
            self._file.put(key, payload, cost_us, epoch=epoch)
        return payload
