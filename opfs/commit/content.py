"""Recently committed documents by content hash, so that reading back what was just written costs no disk.

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

    def get(self, content_hash: bytes) -> bytes | None:
        content = self._contents.get(content_hash)
        if content is not None:
            self._contents.move_to_end(content_hash)
        return content

    def put(self, content_hash: bytes, content: bytes) -> None:
        if content_hash in self._contents:
            self._contents.move_to_end(content_hash)
            return
        self._contents[content_hash] = content
        self._size_bytes += len(content)
        while self._size_bytes > self._limit_bytes:
            _, dropped = self._contents.popitem(last=False)
            self._size_bytes -= len(dropped)
