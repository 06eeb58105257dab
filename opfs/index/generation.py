"""The vectors that one model made of the texts, in order, and the search over them.

Two files below a directory of the model's own: the vectors, and for each the digest of its text and the checksum of
its bytes, so that a vector can be told from any other and be used again when the index is begun anew. What else lies
there is the search engine's, and can be made again. Does not embed.

Concurrency: one thread at a time opens, appends and extends; `nearest` runs in any thread on a view that never
changes.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from opfs.core.ranking import cosines_of
from opfs.errors import IntegrityError
from opfs.index.exact.search import ExactSearch
from opfs.index.layout import LABELS_NAME, ROWS_NAME, VECTORS_PREFIX, labels_of, model_digest, vectors_of
from opfs.index.packed import PackedFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from opfs.index.exact.mapped import MappedRows

FLOAT = np.dtype("<f4")
LABEL = np.dtype([("digest", "V32"), ("crc32", "<u4")])
_CHECKED_AT_ONCE = 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of the first texts as they were at one moment. Immutable."""

    model_id: str
    rows: MappedRows
    _engine: ExactSearch

    @property
    def count(self) -> int:
        return self.rows.count

    def nearest(
        self, query: NDArray[np.float32], *, mask: NDArray[np.bool_] | None, before: int, limit: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows below `before` and their cosines: the `limit` best, best first, and all that tie with the last.

        `mask` leaves out rows where it is False; it may be longer than there are vectors. Raises OSError.
        """
        base = self.rows.prefix(min(before, self.count))
        return self._engine.nearest(base, query, mask=None if mask is None else mask[: base.count], limit=limit)

    def cosines(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of the query and the given rows, which are ascending; 0 where there is no vector yet. Raises OSError."""
        result = np.zeros(len(rows), dtype=np.float64)
        there = rows < self.count
        result[there] = cosines_of(self.rows.take(rows[there]), query)
        return result


class Generation:
    """One model's vectors below `parent`."""

    def __init__(self, directory: Path, model_id: str, rows: PackedFile, labels: PackedFile, count: int) -> None:
        self.directory = directory
        self.model_id = model_id
        self._rows = rows
        self._labels = labels
        self._view = rows.rows(count)
        self._engine = ExactSearch(directory, self._view)

    @classmethod
    def create(cls, parent: Path, model_id: str, dimensions: int) -> Generation:
        """An empty one in place of whatever is there; raises OSError."""
        directory = directory_of(parent, model_id)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        rows = PackedFile.create(directory / ROWS_NAME, FLOAT, (dimensions,), vectors_of(model_id))
        labels = PackedFile.create(directory / LABELS_NAME, LABEL, (), labels_of(model_id))
        return cls(directory, model_id, rows, labels, 0)

    @classmethod
    def open(cls, parent: Path, model_id: str, dimensions: int, digests: Sequence[bytes], synced: int) -> Generation:
        """The one that is there; what is torn at its end is cut.

        `digests` are those of the texts from number `synced` on; vectors before it are known to be on the disk. Raises
        IntegrityError where the files are not this model's, or shorter than that.
        """
        directory = directory_of(parent, model_id)
        with contextlib.ExitStack() as undo:
            rows = PackedFile.open(directory / ROWS_NAME, FLOAT, (dimensions,), vectors_of(model_id))
            undo.callback(rows.close)
            labels = PackedFile.open(directory / LABELS_NAME, LABEL, (), labels_of(model_id))
            undo.callback(labels.close)
            written = min(rows.count, labels.count)
            if written < synced:
                raise IntegrityError(f"{directory} has {written} vectors, and had {synced}")
            whole = synced + _whole(rows, labels, synced, min(written, synced + len(digests)), digests)
            if whole < written:
                log.info("%d vectors of %s at the end did not reach the disk", written - whole, model_id)
            rows.truncate(whole)
            labels.truncate(whole)
            opened = cls(directory, model_id, rows, labels, whole)
            undo.pop_all()
        return opened

    @property
    def count(self) -> int:
        return self._view.count

    @property
    def vectors(self) -> Vectors:
        return Vectors(self.model_id, self._view, self._engine)

    def append(self, vectors: NDArray[np.float32], digests: Sequence[bytes]) -> None:
        """Add the vectors of the next texts; raises OSError, and then none is added."""
        content = np.ascontiguousarray(vectors, dtype=FLOAT)
        labels = np.empty(len(content), LABEL)
        labels["digest"] = [np.void(digest) for digest in digests]
        labels["crc32"] = [zlib.crc32(row.tobytes()) for row in content]
        self._rows.write(self.count, content)
        self._labels.write(self.count, labels)
        self._view = self._rows.rows(self.count + len(content), self._view)

    def extend(self) -> bool:
        """Bring the engine a step nearer to all vectors; whether more is left to do."""
        return self._engine.extend(self._view)

    def sync(self) -> None:
        self._rows.sync()
        self._labels.sync()

    @property
    def size_bytes(self) -> int:
        """Of everything in the directory."""
        return sum(path.stat().st_size for path in self.directory.iterdir())

    def close(self) -> None:
        """Close the files; views stay valid."""
        self._engine.close()
        self._rows.close()
        self._labels.close()


def directory_of(parent: Path, model_id: str) -> Path:
    return parent / (VECTORS_PREFIX + model_digest(model_id))


def _whole(rows: PackedFile, labels: PackedFile, first: int, end: int, digests: Sequence[bytes]) -> int:
    """How many vectors from `first` to `end` are as they were written, and of these texts.

    What rots on a disk that kept it once is for the file system's checksums to find.
    """
    if end == first:
        return 0
    found = labels.view(end)[first:]
    vectors = rows.rows(end)
    for start in range(first, end, _CHECKED_AT_ONCE):
        part = vectors.take(np.arange(start, min(start + _CHECKED_AT_ONCE, end)))
        for number, vector in enumerate(part, start - first):
            label = found[number]
            if label["crc32"] != zlib.crc32(vector.tobytes()) or label["digest"].tobytes() != digests[number]:
                return number
    return end - first
