"""Vectors of an index that was begun anew: a text that stayed the same takes its vector from there.

So making an index again, after an erasure or because sentences read differently now, does not embed everything again.
A vector is used only if model, digest of the text and checksum all agree. When nothing is missing any more the
directories go, and with them what was made of texts that are gone.

Concurrency: as the index's writer, one thread at a time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import zlib
from typing import TYPE_CHECKING

import numpy as np

from opfs.errors import IntegrityError
from opfs.index.generation import FLOAT, LABEL
from opfs.index.layout import (
    DATABASE_NAME,
    HEADER_BYTES,
    LABELS_NAME,
    ROWS_NAME,
    SPARE_PREFIX,
    VECTORS_1_NAME,
    VECTORS_PREFIX,
    labels_of,
    model_digest,
    record_header,
    vector_header_1,
    vectors_of,
)
from opfs.index.packed import PackedFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from opfs.index.exact.mapped import MappedRows

log = logging.getLogger(__name__)


class SpareVectors:
    """What is left of one model's vectors, by the digest of the text."""

    def __init__(self, rows: MappedRows, labels: NDArray[np.void]) -> None:
        self._rows = rows
        self._labels = labels
        # Eight bytes find nearly always one; the whole digest decides.
        keys = np.ascontiguousarray(labels["digest"]).view("<u8").reshape(-1, 4)[:, 0] if len(labels) else np.empty(0)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    @classmethod
    def open(cls, parent: Path, model_id: str, dimensions: int) -> SpareVectors | None:
        """None where there are none of that model, or where they cannot be used."""
        directory = parent / (SPARE_PREFIX + model_digest(model_id))
        if not directory.is_dir():
            return None
        with contextlib.ExitStack() as files:
            try:
                rows = PackedFile.open(directory / ROWS_NAME, FLOAT, (dimensions,), vectors_of(model_id))
                files.callback(rows.close)
                labels = PackedFile.open(directory / LABELS_NAME, LABEL, (), labels_of(model_id))
                files.callback(labels.close)
                count = min(rows.count, labels.count)
                return cls(rows.rows(count), labels.view(count))
            except (OSError, IntegrityError) as error:
                log.warning("vectors that were kept in %s cannot be used: %s", directory, error)
                return None

    def find(self, digests: Sequence[bytes]) -> dict[int, NDArray[np.float32]]:
        """The vectors of texts that have one, by their position in `digests`; raises OSError."""
        found = {}
        for number, digest in enumerate(digests):
            key = int.from_bytes(digest[:8], "little")
            place = int(np.searchsorted(self._keys, np.uint64(key)))
            while place < len(self._keys) and int(self._keys[place]) == key:
                row = int(self._order[place])
                if self._labels[row]["digest"].tobytes() == digest:
                    (vector,) = self._rows.take(np.array([row]))
                    if zlib.crc32(vector.tobytes()) == self._labels[row]["crc32"]:
                        found[number] = vector
                    break
                place += 1
        return found


def keep_spare(parent: Path) -> None:
    """Make spares of all vectors below `parent`; of two of one model the larger stays. Raises OSError."""
    for directory in sorted(parent.glob(f"{VECTORS_PREFIX}*")):
        spare = parent / (SPARE_PREFIX + directory.name.removeprefix(VECTORS_PREFIX))
        if _vector_bytes(directory) <= HEADER_BYTES or _vector_bytes(spare) >= _vector_bytes(directory):
            shutil.rmtree(directory)
            continue
        shutil.rmtree(spare, ignore_errors=True)
        directory.rename(spare)
        for path in spare.iterdir():
            if path.name not in (ROWS_NAME, LABELS_NAME):
                path.unlink()


def forget_spares(parent: Path) -> None:
    """Remove them all."""
    for directory in parent.glob(f"{SPARE_PREFIX}*"):
        shutil.rmtree(directory, ignore_errors=True)


def has_spares(parent: Path) -> bool:
    return any(parent.glob(f"{SPARE_PREFIX}*"))


def _vector_bytes(directory: Path) -> int:
    try:
        return (directory / ROWS_NAME).stat().st_size
    except OSError:
        return -1


def keep_spare_of_version_1(parent: Path) -> None:
    """Make a spare of the vectors of a database of version 1, whose table of texts is their labels."""
    rows_path = parent / VECTORS_1_NAME
    uri = f"{(parent / DATABASE_NAME).absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as old:
        model = old.execute("SELECT model_id FROM meta").fetchone()
        labels = np.array(
            [(np.void(digest), crc) for digest, crc in old.execute("SELECT sha256, crc32 FROM texts ORDER BY row")],
            dtype=LABEL,
        )
    if model is None or not len(labels):
        return
    (model_id,) = model
    with os.fdopen(os.open(rows_path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b") as file:
        header = file.read(HEADER_BYTES)
        dimensions = int.from_bytes(header[12:16], "little")
        if header != vector_header_1(model_id, dimensions):
            raise IntegrityError(f"{rows_path} does not hold vectors of {model_id}")
        file.seek(0)
        file.write(record_header(vectors_of(model_id), dimensions * FLOAT.itemsize))
    spare = parent / (SPARE_PREFIX + model_digest(model_id))
    shutil.rmtree(spare, ignore_errors=True)
    spare.mkdir(mode=0o700)
    with contextlib.closing(PackedFile.create(spare / LABELS_NAME, LABEL, (), labels_of(model_id))) as file:
        file.write(0, labels)
    rows_path.rename(spare / ROWS_NAME)
