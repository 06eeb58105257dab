"""The vectors of the model that searches use, and of the one that is to replace it.

When the configured model is another than the one whose vectors there are, a second generation is made beside the first;
searches go on with the first, by its own embedder, and in one transaction the second takes over when it has every
text. Where the embedder of the first is gone, there is none to search with until then.

Concurrency: `next_work` and `extend` belong to the thread that embeds; everything else to whoever holds the writer's
lock. `Work.make` uses nothing of this object.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from opfs.errors import IntegrityError
from opfs.index.generation import Generation, directory_of
from opfs.index.layout import VECTORS_PREFIX
from opfs.index.rows import load_texts, text_digest
from opfs.index.spare import SpareVectors, forget_spares, has_spares

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from sqlite_utils import Database

    from opfs.ports import Embedder

SYNC_ROWS = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """The next texts of one generation."""

    generation: Generation
    first: int
    texts: Sequence[str]
    embedder: Embedder
    spare: SpareVectors | None

    @property
    def digests(self) -> list[bytes]:
        return [text_digest(text) for text in self.texts]

    def make(self) -> NDArray[np.float32]:
        """Their vectors, found or embedded; raises IntegrityError for an embedder that gives none."""
        found = {}
        # What the disk does not give is made again.
        with contextlib.suppress(OSError):
            found = self.spare.find(self.digests) if self.spare else {}
        missing = [text for number, text in enumerate(self.texts) if number not in found]
        made = iter(self._embed(missing))
        rows = [found[number] if number in found else next(made) for number in range(len(self.texts))]
        return np.array(rows, dtype=np.float32).reshape(len(rows), self.embedder.dimensions)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, self.embedder.dimensions), dtype=np.float32)
        vectors = np.asarray(self.embedder.embed(texts), dtype=np.float32)
        if vectors.shape != (len(texts), self.embedder.dimensions) or not np.isfinite(vectors).all():
            raise IntegrityError(f"{self.embedder.model_id} did not give one finite vector for each text")
        return vectors


class Generations:
    """Those below `directory`; which there are is in the table of the database."""

    def __init__(
        self, directory: Path, database: Database, active: Generation, embedder: Embedder | None, wanted: Embedder
    ) -> None:
        self._directory = directory
        self._database = database
        self.active = active
        self.embedder = embedder
        """That of the active generation, None where it cannot be had."""
        self.next: Generation | None = None
        self._wanted = wanted
        self._spares: dict[str, SpareVectors | None] = {}
        self._synced: dict[str, int] = {}

    @classmethod
    def open(
        cls,
        directory: Path,
        database: Database,
        wanted: Embedder,
        other_embedder: Callable[[str], Embedder | None],
        text_count: int,
    ) -> Generations:
        """What there is, with a generation of the wanted model among it; raises OSError, sqlite3.Error."""
        known = {row[0]: row[1:] for row in database.execute("SELECT * FROM generations")}
        active_id = next((model_id for model_id, (_, is_active, _) in known.items() if is_active), wanted.model_id)
        if not text_count:
            active_id = wanted.model_id
        kept = {active_id, wanted.model_id}
        _remove_others(directory, database, kept)
        opened = {}
        for model_id in (active_id, wanted.model_id):
            if model_id not in opened:
                dimensions = known[model_id][0] if model_id in known else wanted.dimensions
                synced = known[model_id][2] if model_id in known else None
                opened[model_id] = _open_or_create(directory, database, model_id, dimensions, synced, text_count)
        active = opened[active_id]
        if active_id not in known:
            with database.atomic():
                database.execute("UPDATE generations SET is_active = 1 WHERE model_id = ?", [active_id])
        embedder = wanted if active_id == wanted.model_id else other_embedder(active_id)
        self = cls(directory, database, active, embedder, wanted)
        if active_id != wanted.model_id:
            self.next = opened[wanted.model_id]
            if self.next.count >= text_count:
                self._take_over()
        return self

    def notice(self, text_count: int) -> str | None:
        """What somebody who searches should know; None where all is as it should be."""
        if self.next is None:
            return None
        share = f"{self.next.count} of {text_count} texts are done"
        if self.embedder is None:
            return (
                f"the model is now {self._wanted.model_id}, {share}; until then a search by meaning is one by words, "
                f"because the model before, {self.active.model_id}, is gone"
            )
        return f"the model is now {self._wanted.model_id}, {share}; until then {self.active.model_id} answers"

    # --- the thread that embeds ---------------------------------------------------------------------------

    def next_work(self, connection: sqlite3.Connection, text_count: int, limit: int) -> Work | None:
        """What is to be embedded next: what searches use comes first."""
        todo = [(self.active, self.embedder)] if self.next is None else [
            (self.active, self.embedder), (self.next, self._wanted)
        ]  # fmt: skip
        for generation, embedder in todo:
            first, end = generation.count, min(generation.count + limit, text_count)
            if embedder is not None and first < end:
                texts = load_texts(connection, range(first, end))
                return Work(generation, first, texts, embedder, self._spare(embedder))
        return None

    def _spare(self, embedder: Embedder) -> SpareVectors | None:
        if embedder.model_id not in self._spares:
            spare = SpareVectors.open(self._directory, embedder.model_id, embedder.dimensions)
            self._spares[embedder.model_id] = spare
        return self._spares[embedder.model_id]

    def extend(self) -> bool:
        """Bring the search engine a step nearer to all vectors; whether more is left to do."""
        return self.active.extend()

    # --- whoever holds the lock ---------------------------------------------------------------------------

    def settle(self, text_count: int) -> None:
        """Forget what was kept, where no text can still want it."""
        if self.next is None and self.active.count >= text_count and has_spares(self._directory):
            self.forget_spares()

    def forget_spares(self) -> None:
        self._spares.clear()
        forget_spares(self._directory)

    def finish(self, work: Work, vectors: NDArray[np.float32], text_count: int) -> None:
        """Store what was made; the next generation takes over when it has every text."""
        if work.first != work.generation.count:
            raise ValueError("another thread embeds as well")
        work.generation.append(vectors, work.digests)
        # After this line: vectors that are not known to have reached the disk; a crash here leaves them, or their end
        # torn; repaired by the next start, which keeps those whose own checksum holds.
        is_complete = self.next is not None and self.next.count >= text_count
        if is_complete or work.generation.count - self._synced.get(work.generation.model_id, 0) >= SYNC_ROWS:
            self._sync(work.generation)
        if is_complete:
            self._take_over()

    def sync(self) -> None:
        self._sync(self.active)
        if self.next is not None:
            self._sync(self.next)

    def _sync(self, generation: Generation) -> None:
        generation.sync()
        with self._database.atomic():
            update = "UPDATE generations SET synced_rows = ? WHERE model_id = ?"
            self._database.execute(update, [generation.count, generation.model_id])
        self._synced[generation.model_id] = generation.count

    def _take_over(self) -> None:
        old, new = self.active, self.next
        if new is None:
            return
        with self._database.atomic():
            self._database.execute("DELETE FROM generations WHERE model_id = ?", [old.model_id])
            self._database.execute("UPDATE generations SET is_active = 1 WHERE model_id = ?", [new.model_id])
        # A crash here leaves the old vectors, which no row names: the next start removes them.
        self.active, self.next, self.embedder = new, None, self._wanted
        old.close()
        shutil.rmtree(old.directory, ignore_errors=True)
        log.info("searches use the model %s from now on", new.model_id)

    def close(self) -> None:
        self.active.close()
        if self.next is not None:
            self.next.close()


def _open_or_create(
    directory: Path, database: Database, model_id: str, dimensions: int, synced: int | None, text_count: int
) -> Generation:
    if synced is not None:
        synced = min(synced, text_count)
        # No more than these can have been written since.
        select = "SELECT text FROM texts WHERE row >= ? AND row < ? ORDER BY row"
        tail = database.execute(select, [synced, min(synced + 2 * SYNC_ROWS, text_count)])
        digests = [text_digest(text) for (text,) in tail]
        try:
            return Generation.open(directory, model_id, dimensions, digests, synced)
        except IntegrityError as error:
            log.warning("the vectors of %s are made again: %s", model_id, error)
    generation = Generation.create(directory, model_id, dimensions)
    with database.atomic():
        database.execute("INSERT OR REPLACE INTO generations VALUES (?, ?, coalesce("
                         "(SELECT is_active FROM generations WHERE model_id = ?), 0), 0)",
                         [model_id, dimensions, model_id])  # fmt: skip
    return generation


def _remove_others(directory: Path, database: Database, kept: set[str]) -> None:
    names = {directory_of(directory, model_id).name for model_id in kept}
    for path in directory.glob(f"{VECTORS_PREFIX}*"):
        if path.name not in names:
            shutil.rmtree(path, ignore_errors=True)
    with database.atomic():
        marks = ", ".join("?" * len(kept))
        database.execute(f"DELETE FROM generations WHERE model_id NOT IN ({marks})", sorted(kept))
