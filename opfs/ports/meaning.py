"""What happened, in words and vectors: the embedder and the search index.

Concurrency: methods block and belong in worker threads; each says whether it may be called concurrently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from opfs.core.filters import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from opfs.core.filters import EventFilter, FilterKind
    from opfs.core.names import ElementId


class Embedder(Protocol):
    """Text to meaning. Thread-safe; deterministic to 1e-6 whatever the batch."""

    @property
    def model_id(self) -> str:
        """Names the weights and variant; stored beside each vector."""
        ...

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One L2-normalised float32 row per text, shape (len(texts), dimensions)."""
        ...


@dataclass(frozen=True, slots=True)
class IndexedEvent:
    """One event as the index holds it.

    `text` is the readable sentence that is embedded; uid, gid and mode are those of the document after the
    change (before it, for a delete) and decide who may see the event in a search. `event_hash` (hex) is
    the event's own, so that an index can be told from one of another chain.
    """

    seq: int
    height: int
    id: ElementId
    op: str
    time: str
    actor: str
    summary: str
    text: str
    uid: int
    gid: int
    mode: int
    event_hash: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result.

    `score` is the cosine of query and event, in [-1, 1], for a search by meaning; BM25, more is better, by words;
    both as one, at most 1, for both; 0 where nothing is ranked.
    """

    score: float
    event: IndexedEvent


class Index(Protocol):
    """Events, their text and vectors: derived from the chain, rebuildable, never the truth.

    Events come in by `append` and can be found by words and filters at once; `embed` gives them meaning later, in the
    same order. `append` and `clear` are called from one task at a time, `embed` and `settle` from one other; searches
    run concurrently with all. Every search answers for one (uid, gids): what these may not read is not there for them.
    """

    @property
    def identity(self) -> str:
        """Another one each time the index is begun anew, or scores come from another model: what to keep answers by."""
        ...

    @property
    def notice(self) -> str | None:
        """What somebody who searches should know, e.g. that meaning is not to be had for now; None if nothing."""
        ...

    @property
    def indexed_count(self) -> int:
        """The number of events indexed: every event with seq below it can be found by words and filters."""
        ...

    @property
    def embedded_count(self) -> int:
        """Every event with seq below it can be found by meaning as well."""
        ...

    def tip(self) -> tuple[int, str] | None:
        """Seq and hash of the newest event indexed, None when empty.

        Where the chain has another event at that seq, or none, the index belongs to another chain: clear it.
        """
        ...

    def append(self, events: Sequence[IndexedEvent]) -> None:
        """Store; `events[0].seq == indexed_count`. Does not embed."""
        ...

    def embed(self, limit: int) -> int:
        """Make the vectors of at most `limit` texts that have none yet, oldest first; how many it made."""
        ...

    def similar(
        self, text: str, *, limit: int, uid: int, gids: Collection[int], where: EventFilter = EVERYTHING
    ) -> Sequence[Hit]:
        """The nearest events in meaning, best first; ties by newer first."""
        ...

    def matching(
        self, words: str, *, limit: int, uid: int, gids: Collection[int], where: EventFilter = EVERYTHING
    ) -> Sequence[Hit]:
        """The events whose text has the words, best first; raises InvalidRequest for what is no search for words."""
        ...

    def fused(
        self, text: str, *, limit: int, uid: int, gids: Collection[int], where: EventFilter = EVERYTHING
    ) -> Sequence[Hit]:
        """Meaning and words together, by the ranks an event has in both."""
        ...

    def changes(self, *, limit: int, uid: int, gids: Collection[int], where: EventFilter = EVERYTHING) -> Sequence[Hit]:
        """Events, newest first, unranked."""
        ...

    def values(self, kind: FilterKind, *, limit: int, uid: int, gids: Collection[int]) -> Sequence[str]:
        """What a filter can be set to: values of events that may be read, most frequent first."""
        ...

    def settle(self) -> bool:
        """Tidy up a little, once all events of the chain are there and embedded; whether more is left to do.

        What was kept of an index before, because texts that stay the same take their vectors from it, goes then.
        """
        ...

    def forget_spares(self) -> None:
        """Remove that at once: vectors of texts that nobody may ever find again must not wait for an embedder."""
        ...

    def clear(self) -> None:
        """Forget everything, so that it can be rebuilt."""
        ...

    def close(self) -> None: ...
