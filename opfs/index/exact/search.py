"""`ExactSearch`: the rows of a base file that are nearest to a query, exactly, and fast for a million of them.

The base file belongs to the caller, who passes a view of it (opfs.index.exact.mapped) with every call: a prefix for
a search in the past. Beside it this keeps derived files (opfs.index.exact.derived), which make a search several
times faster and never change what it finds; what they do not cover yet is searched without. They are made step by
step by `extend`, and remade in another basis when the rows have outgrown the old one.

Concurrency: `nearest` takes no lock and may be called by any number of threads; it works on one immutable view.
`extend`, `clear`, `check` and `close` exclude each other.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING

import numpy as np

from opfs.errors import IntegrityError
from opfs.index.exact.basis import LENGTH_LIMIT, layer_count, train
from opfs.index.exact.derived import Generation, generations, remove_files
from opfs.index.exact.mapped import PIECE_ROWS
from opfs.index.exact.scan import FEWEST_LAYERED, nearest
from opfs.index.exact.workers import Workers

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from opfs.index.exact.basis import Basis
    from opfs.index.exact.derived import Derived
    from opfs.index.exact.mapped import MappedRows


_TRAINING_ROWS = 32_768
_TRAINING_STEP = 2048
# A basis is remade when there are so many times more rows than it was made for, or, when the rows since then fit it
# so much worse, somewhat earlier. Each factor is above one, so a basis is remade a logarithmic number of times.
_OUTGROWN = 8.0
_OUTGROWN_BADLY = 1.25
_BAD_FIT = 1.3

logger = logging.getLogger(__name__)


class ExactSearch:
    """Exact nearest rows of the base file that `base` is a view of; its own files are in `directory`.

    Derived files that cannot be used are removed, and made again by `extend`. `threads` is per search, the caller's
    included. Raises OSError where the directory cannot be read.
    """

    def __init__(self, directory: Path, base: MappedRows, *, threads: int = 2) -> None:
        self._directory = directory
        self._workers = Workers(threads)
        self._lock = threading.Lock()
        self._is_closed = False
        self._current: Generation | None = None
        self._successor: Generation | None = None
        self._rows_at_failure: int | None = None
        self._derived: Derived | None = None
        self._load(base)

    @property
    def derived_count(self) -> int:
        """How many rows the derived files cover."""
        derived = self._derived
        return derived.count if derived else 0

    def nearest(
        self, base: MappedRows, query: NDArray[np.float32], *, mask: NDArray[np.bool_] | None = None, limit: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The `limit` rows of `base` with the greatest dot product with the query, of those where `mask` holds.

        Rows are of length 1 or shorter, so for unit vectors this is the cosine. Every further row that ties with
        the last one is there as well. Best first, of equal ones the lower row; the scores are float64, and equal
        rows have equal ones. Raises ValueError for a query of another shape or with a number that is not finite,
        OSError where the disk does not give a row.
        """
        return nearest(base, self._derived, query, mask=mask, limit=limit, workers=self._workers)

    def extend(self, base: MappedRows) -> bool:
        """Do one step, of about 0.1 s, to cover more of `base`; True where another step would do more.

        `base` never has fewer rows than in an earlier call. Trouble with the disk is logged, and tried again when
        there is another piece; searches go on without what could not be made.
        """
        with self._lock:
            if self._is_closed or not layer_count(base.width):
                return False
            failed_at = self._rows_at_failure
            if failed_at is not None and base.count < failed_at + PIECE_ROWS:
                return False
            self._rows_at_failure = None
            try:
                return self._step(base)
            except OSError as error:
                self._rows_at_failure = base.count
                logger.warning("search will be slower: %s cannot be extended: %s", self._directory, error.strerror)
                return False

    def check(self, base: MappedRows) -> None:
        """Read all derived files; raises IntegrityError where they are not as they were written, OSError."""
        with self._lock:
            for generation in self._open_generations():
                generation.check(base)

    def clear(self) -> None:
        """Forget what was derived, for another base file; raises OSError."""
        with self._lock:
            self._derived = None
            for generation in self._open_generations():
                generation.close()
            self._current = self._successor = None
            self._rows_at_failure = None
            for number in generations(self._directory):
                remove_files(self._directory, number)

    def close(self) -> None:
        """Close the files; searches under way finish."""
        with self._lock:
            self._is_closed = True
            for generation in self._open_generations():
                generation.close()
            self._workers.close()

    def _open_generations(self) -> list[Generation]:
        return [generation for generation in (self._current, self._successor) if generation]

    def _load(self, base: MappedRows) -> None:
        """Take up the newest two generations that can be used: the newest may be unfinished."""
        usable: list[Generation] = []
        for number in generations(self._directory):
            try:
                if len(usable) == 2:
                    remove_files(self._directory, number)
                else:
                    usable.append(Generation.load(self._directory, number, base))
            except IntegrityError as error:
                logger.info("derived vectors are made again: %s", error)
                remove_files(self._directory, number)
            except OSError as error:
                logger.warning("search will be slower: %s: exact.%d: %s", self._directory, number, error.strerror)
        if len(usable) == 2:
            self._successor = usable[0]
        if usable:
            self._current = usable[-1]
            self._derived = self._current.view

    def _step(self, base: MappedRows) -> bool:
        whole = base.count // PIECE_ROWS
        for generation in self._open_generations():
            if len(generation.state.pieces) < whole:
                generation.append(base)
                break
        else:
            if not self._is_outgrown(base):
                return False
            number = max((generation.number for generation in self._open_generations()), default=0) + 1
            started = Generation.begin(self._directory, number, *_trained(base))
            if self._current is None:
                self._current = started
            else:
                self._successor = started
        self._switch()
        self._derived = self._current.view if self._current else None
        return True

    def _switch(self) -> None:
        """Let the successor take over once it covers as much."""
        old, new = self._current, self._successor
        if old is None or new is None or len(new.state.pieces) < len(old.state.pieces):
            return
        self._current, self._successor = new, None
        self._derived = new.view
        # Searches under way go on with the maps of the old files, whose names go.
        with contextlib.suppress(OSError):
            old.remove()

    def _is_outgrown(self, base: MappedRows) -> bool:
        if base.count < FEWEST_LAYERED or self._successor is not None:
            return False
        if self._current is None:
            return True
        state = self._current.state
        is_bad_fit = state.tail_share_since(state.trained_rows // PIECE_ROWS) > _BAD_FIT * state.trained_share
        return base.count >= (_OUTGROWN_BADLY if is_bad_fit else _OUTGROWN) * state.trained_rows


def _trained(base: MappedRows) -> tuple[Basis, int, float]:
    """A basis for rows taken evenly from all, their number, and their share in the tails."""
    sample = np.linspace(0, base.count - 1, num=min(base.count, _TRAINING_ROWS)).astype(np.int64)
    moment = np.zeros((base.width, base.width))
    count = 0
    for first in range(0, len(sample), _TRAINING_STEP):
        rows = base.take(sample[first : first + _TRAINING_STEP]).astype(np.float64)
        rows = rows[np.linalg.norm(rows, axis=1) <= LENGTH_LIMIT]
        moment += rows.T @ rows
        count += len(rows)
    moment /= max(count, 1)
    basis = train(moment)
    tail = basis.rotation[basis.splits[0] :]
    return basis, base.count, float(np.vecdot(tail @ moment, tail).sum())
