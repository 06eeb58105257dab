"""What an event changed, in words, by the hash of the event: the cache's `diffs`.

It saves the index, when that is made again, the reading of both documents of an event; measured, and off unless asked
for: see docs/design/cache.md. Concurrency: as the layer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from opfs.core.names import ElementId
from opfs.ports import IndexedEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from opfs.cache.layer import Layer

_SHAPE = [field.name for field in fields(IndexedEvent)]


def remember_description(
    layer: Layer, version: str, event_hash: str, describe: Callable[[], IndexedEvent]
) -> IndexedEvent:
    """What `describe` says of the event with this hash; `version` names what its words depend on."""
    fresh: list[IndexedEvent] = []

    def compute() -> bytes:
        fresh.append(describe())
        return json.dumps(asdict(fresh[0]), separators=(",", ":")).encode()

    key = hashlib.sha256(json.dumps([_SHAPE, version, event_hash]).encode()).digest()
    payload = layer.remember(key, compute, accept=lambda payload: _decode(payload) is not None)
    return fresh[0] if fresh else _decode(payload) or describe()


def _decode(payload: bytes) -> IndexedEvent | None:
    try:
        said: dict[str, Any] = json.loads(payload)
        return IndexedEvent(**{**said, "id": ElementId(**said["id"])})
    except (ValueError, TypeError, KeyError):
        return None
