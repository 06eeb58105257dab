"""Events to fill an index with, and short ways to ask it; for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from opfs.core.names import ElementId
from opfs.ports import IndexedEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.index.store import SqliteIndex

WORDS = ("web", "memory", "bridge", "port", "hostname", "disk", "template", "mtu", "stopped", "deleted")


def event(seq: int, text: str, *, uid: int = 0, gid: int = 0, mode: int = 0o644) -> IndexedEvent:
    return IndexedEvent(
        seq=seq,
        height=seq // 3,
        id=ElementId("lxc", str(100 + seq % 7)),
        op="update",
        time="2026-11-03T14:00:12.000000001Z",
        actor="alice",
        summary=f"summary of {seq}",
        text=text,
        uid=uid,
        gid=gid,
        mode=mode,
        event_hash=f"{seq:064x}",
    )


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{' '.join(rng.choice(WORDS, 4))} {number % (count // 2 + 1)}" for number in range(count)]


def events_of(texts: Sequence[str], first: int = 0) -> list[IndexedEvent]:
    return [event(first + number, text) for number, text in enumerate(texts)]


def fill(index: SqliteIndex, events: Sequence[IndexedEvent]) -> None:
    index.append(events)
    while index.embed(100):
        pass


def search(index: SqliteIndex, text: str, limit: int = 10, uid: int = 0, gids: Sequence[int] = ()) -> list[int]:
    return [hit.event.seq for hit in index.similar(text, limit=limit, uid=uid, gids=gids)]
