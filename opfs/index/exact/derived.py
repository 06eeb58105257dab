"""The derived files of the exact search: the layers of the base file's rows, in one basis.

A generation is the files `exact.<n>.basis`, `.layer0` and so on, and `.state`. They grow by whole pieces of
PIECE_ROWS rows. All of it can be made again from the base file, so nothing is repaired: a generation that is torn,
of another version or of another base file does not load, and its owner makes a new one.

Order of an append: the layers, synced; then the state, which is replaced as a whole and says how many
pieces there are, with the CRC-32 of each and of the base rows it was made of. A piece that is not in the state is
not there, and the next append overwrites it. Loading checks the first piece and the last; `check` checks all.

Concurrency: one thread appends; `Derived` is immutable, and what it maps is never written again nor cut.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from opfs.errors import IntegrityError
from opfs.index.exact.basis import LAYER_WIDTH, Basis, layer_count, tail_share
from opfs.index.exact.mapped import PIECE_ROWS, MappedRows
from opfs.index.exact.state import Piece, State, parse_state

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

_ENCODED_ROWS = 1024
_NAME = re.compile(r"exact\.([0-9]{1,9})\.(?:basis|layer[0-9]|state)(?:\.new)?")


@dataclass(frozen=True, slots=True)
class Derived:
    """What a search uses: the layers of the first `count` rows."""

    basis: Basis
    layers: tuple[MappedRows, ...]

    @property
    def count(self) -> int:
        return self.layers[0].count


class Generation:
    """One generation, open for appending."""

    def __init__(self, stem: Path, state: State, basis: Basis, *, create: bool = False) -> None:
        """Open the layers, which must have the pieces of `state`; raises IntegrityError, OSError."""
        self._stem = stem
        self._state = state
        self._descriptors: list[int] = []
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if create else 0)
        try:
            for number in range(state.layer_count):
                self._descriptors.append(os.open(_path(stem, f"layer{number}"), flags, 0o600))
            layers = tuple(MappedRows.of(file, count=0, width=LAYER_WIDTH) for file in self._descriptors)
            self._view = self._grown(Derived(basis, layers), len(state.pieces))
        except ValueError as error:
            self.close()
            raise IntegrityError(f"{stem} is shorter than its state says") from error
        except OSError:
            self.close()
            raise

    @classmethod
    def begin(cls, directory: Path, number: int, basis: Basis, trained_rows: int, trained_share: float) -> Generation:
        """Make an empty one; raises OSError."""
        remove_files(directory, number)
        stem = directory / f"exact.{number}"
        content = basis.rotation.astype("<f8").tobytes()
        d = len(basis.rotation)
        state = State(d, layer_count(d), hashlib.sha256(content).digest(), trained_rows, trained_share)
        _replace(_path(stem, "basis"), content)
        self = cls(stem, state, basis, create=True)
        try:
            _replace(_path(stem, "state"), state.encode())
        except OSError:
            self.close()
            raise
        return self

    @classmethod
    def load(cls, directory: Path, number: int, base: MappedRows) -> Generation:
        """Open one that is there; raises IntegrityError unless it is whole and made of `base`, OSError.

        Pieces that `base` no longer has whole are forgotten.
        """
        stem = directory / f"exact.{number}"
        try:
            state = parse_state(_path(stem, "state").read_bytes())
            content = _path(stem, "basis").read_bytes()
        except FileNotFoundError as error:
            raise IntegrityError(f"{stem} is not complete") from error
        d = base.width
        is_of_base = (state.dimensions, state.layer_count, len(content)) == (d, layer_count(d), 8 * d**2)
        if not is_of_base or hashlib.sha256(content).digest() != state.basis_sha256:
            raise IntegrityError(f"the basis of {stem} is damaged or of other vectors")
        basis = Basis(np.frombuffer(content, dtype="<f8").reshape(d, d))
        state = state.with_pieces(state.pieces[: base.count // PIECE_ROWS])
        try:
            self = cls(stem, state, basis)
        except FileNotFoundError as error:
            raise IntegrityError(f"{stem} is not complete") from error
        try:
            self._require_same(base, sorted({0, len(state.pieces) - 1}) if state.pieces else ())
        except (IntegrityError, OSError):
            self.close()
            raise
        return self

    @property
    def number(self) -> int:
        return int(self._stem.suffix[1:])

    @property
    def state(self) -> State:
        return self._state

    @property
    def view(self) -> Derived:
        return self._view

    def append(self, base: MappedRows) -> None:
        """Take in the next piece, which `base` must have whole; raises OSError, and then nothing has changed."""
        number = len(self._state.pieces)
        rows = base.rows(number * PIECE_ROWS, (number + 1) * PIECE_ROWS)
        starts = range(0, PIECE_ROWS, _ENCODED_ROWS)
        parts = [self._view.basis.encode(rows[first : first + _ENCODED_ROWS]) for first in starts]
        layers = [np.concatenate(layer) for layer in zip(*parts, strict=True)]
        for descriptor, layer in zip(self._descriptors, layers, strict=True):
            _write(descriptor, layer.tobytes(), number * layer.nbytes)
            os.fdatasync(descriptor)
        piece = Piece(tail_share(layers[0]), tuple(map(_checksum, (rows, *layers))))
        state = self._state.with_pieces([*self._state.pieces, piece])
        view = self._grown(self._view, len(state.pieces))
        _replace(_path(self._stem, "state"), state.encode())
        self._state, self._view = state, view

    def check(self, base: MappedRows) -> None:
        """Read everything; raises IntegrityError for what is not as it was written or not of `base`, OSError."""
        self._require_same(base, range(min(len(self._state.pieces), base.count // PIECE_ROWS)))

    def close(self) -> None:
        """Close the files; views stay valid."""
        descriptors, self._descriptors = self._descriptors, []
        for descriptor in descriptors:
            os.close(descriptor)

    def remove(self) -> None:
        """Close, and take the files away; views stay valid."""
        self.close()
        remove_files(self._stem.parent, self.number)

    def _grown(self, view: Derived, pieces: int) -> Derived:
        count = pieces * PIECE_ROWS
        files = zip(view.layers, self._descriptors, strict=True)
        return Derived(view.basis, tuple(layer.grown(descriptor, count) for layer, descriptor in files))

    def _require_same(self, base: MappedRows, numbers: Iterable[int]) -> None:
        for number in numbers:
            first, end = number * PIECE_ROWS, (number + 1) * PIECE_ROWS
            crcs = tuple(_checksum(file.rows(first, end)) for file in (base, *self._view.layers))
            if crcs != self._state.pieces[number].crcs:
                raise IntegrityError(
                    f"{self._stem}: rows {first} to {end} are not as they were written, or not of this base"
                )


def generations(directory: Path) -> list[int]:
    """The numbers of the generations of which anything is there, newest first; raises OSError."""
    matches = (_NAME.fullmatch(name) for name in os.listdir(directory))
    return sorted({int(match[1]) for match in matches if match}, reverse=True)


def remove_files(directory: Path, number: int) -> None:
    """Take away whatever is there of a generation; raises OSError."""
    for name in os.listdir(directory):
        match = _NAME.fullmatch(name)
        if match and int(match[1]) == number:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(directory / name)


def _checksum(rows: NDArray[Any]) -> int:
    return zlib.crc32(rows.view(np.uint8).data)


def _path(stem: Path, what: str) -> Path:
    return stem.with_name(f"{stem.name}.{what}")


def _replace(path: Path, content: bytes) -> None:
    """Put a whole file in place of what is there, so that a power cut leaves one or the other."""
    new = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _write(descriptor, content, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(new, path)


def _write(descriptor: int, content: bytes, offset: int) -> None:
    left = memoryview(content)
    while left:
        # A full disk shows as a short write first and as an error on the next call.
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written
