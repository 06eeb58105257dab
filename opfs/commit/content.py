"""Contents by a key, so that reading back what was just written, or going on reading, costs no disk.

Bounded in bytes; trio thread only.
"""

from __future__ import annotations

from collections import OrderedDict

LIMIT_BYTES = 16 << 20


class ContentCache:
    """Least recently used bytes go first."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._contents: OrderedDict[bytes, bytes] = OrderedDict()

    def get(self, key: bytes) -> bytes | None:
        content = self._contents.get(key)
        if content is not None:
            self._contents.move_to_end(key)
        return content

    def put(self, key: bytes, content: bytes) -> None:
        """Keep `content`, unless there is one of that key already: a key stands for one content."""
        if key in self._contents:
            self._contents.move_to_end(key)
            return
        self._contents[key] = content
        self._size_bytes += len(content)
        while self._size_bytes > self._limit_bytes:
            _, dropped = self._contents.popitem(last=False)
            self._size_bytes -= len(dropped)

    def discard(self, key: bytes) -> None:
        content = self._contents.pop(key, None)
        if content is not None:
            self._size_bytes -= len(content)
