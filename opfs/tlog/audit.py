"""Check the files of a log against the headers it is made of: which tile, which entry, which signature is wrong.

Recomputes every tile and bundle from the headers' hashes and compares bytes; believes no file. Reads only, but for
`rebuild_tiles`. Blocking; while a daemon writes, what it adds meanwhile is not held against the log.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from opfs.core.audit import Finding
from opfs.core.merkle import HASH_BYTES, leaf_hash, root_of_hashes
from opfs.core.note import Checkpoint, parse_checkpoint, parse_note
from opfs.core.tiles import ENTRIES, WIDTH, Tile, decode_bundle, encode_bundle, read_entry, tiles_of
from opfs.errors import IntegrityError, NotFound, OpfsError
from opfs.tlog.files import CHECKPOINT, VERIFIER_KEYS, LogFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from opfs.core.note import Note
    from opfs.core.notekeys import Verifier
    from opfs.tlog.keys import KeyStore

PLACE = "@log/"
SIGNED = "keys/signed"
SETTLE_TRIES = 40
SETTLE_PAUSE_S = 0.05


@dataclass(slots=True)
class LogAudit:
    """One check of the log in `directory`; `keys` tells who signs it and what was signed."""

    directory: Path
    origin: str
    keys: KeyStore
    files: LogFiles = field(init=False)
    is_contradicted: bool = field(default=False, init=False)
    """Whether something was signed that these blocks do not lead to: no log may be made from them again."""

    def __post_init__(self) -> None:
        self.files = LogFiles(self.directory)

    def true_header(self, height: int) -> bytes | None:
        """The entry of a height, for whoever finds the block's own header damaged; None where there is none."""
        with suppress(OpfsError):
            checkpoint = parse_checkpoint(parse_note(self.files.read_checkpoint()).text)
            return read_entry(height, checkpoint.size, self.files.read_tile)
        return None

    def check(self, headers_up_to: Callable[[int], Sequence[bytes | None]], *, settled: int = 0) -> Iterator[Finding]:
        """Everything that is wrong.

        `headers_up_to(n)` gives the leaf hashes of all blocks there are now, of which those below n are wanted. A
        daemon at work signs a block just after it was made: it is waited for until the log has `settled` entries.
        """
        checkpoint, note, problem = self._read_checkpoint()
        for _ in range(SETTLE_TRIES if settled else 0):
            if checkpoint is None or checkpoint.size >= settled:
                break
            time.sleep(SETTLE_PAUSE_S)
            checkpoint, note, problem = self._read_checkpoint()
        signed, signed_problem = self._read_signed()
        leaves = headers_up_to(max(checkpoint.size if checkpoint else 0, signed[0] if signed else 0))
        filled = [leaf or self._entry_leaf(height) for height, leaf in enumerate(leaves)]
        if problem:
            if leaves:
                yield Finding(None, PLACE + CHECKPOINT, "log", problem)
        elif checkpoint is not None and note is not None:
            yield from self._check_checkpoint(checkpoint, note, filled, settled or len(filled))
        size = checkpoint.size if checkpoint is not None else len(leaves)
        yield from self._check_tiles(leaves, filled, min(size, len(leaves)))
        if signed_problem:
            yield Finding(None, SIGNED, "log", signed_problem)
        elif signed is not None:
            yield from self._check_promise(signed, checkpoint, filled)
        yield from self._check_verifier_keys()

    # --- the checkpoint --------------------------------------------------------------------------------

    def _read_checkpoint(self) -> tuple[Checkpoint | None, Note | None, str]:
        try:
            note = parse_note(self.files.read_checkpoint())
            return parse_checkpoint(note.text), note, ""
        except OpfsError as error:
            return None, None, error.reason

    def _check_checkpoint(
        self, checkpoint: Checkpoint, note: Note, leaves: Sequence[bytes | None], due: int
    ) -> Iterator[Finding]:
        good, bad = self._signatures(note)
        truth = self._root(leaves, checkpoint.size)
        is_true = checkpoint.origin == self.origin and (truth is None or truth == checkpoint.root)
        place = PLACE + CHECKPOINT
        if bad and not good and not (is_true and checkpoint.size == len(leaves)):
            yield Finding(None, place, "log", "its text was changed: no signature of this log fits it")
            return
        for verifier in bad:
            name = f"{verifier.name}+{verifier.key_id.hex()}"
            yield Finding(None, place, "signature", f"the {verifier.kind.name} signature of {name} does not fit")
        current = self.keys.load()
        for verifier in current.verifiers if current else ():
            if verifier not in good and verifier not in bad:
                yield Finding(None, place, "signature", f"the {verifier.kind.name} key of this log has not signed it")
        if checkpoint.origin != self.origin:
            yield Finding(None, place, "log", f"it is of the log {checkpoint.origin}")
        elif checkpoint.size > len(leaves):
            missing = checkpoint.size - len(leaves)
            problem = (
                f"it has signed {checkpoint.size} blocks, the chain has {len(leaves)}: the newest {missing} are missing"
            )
            yield Finding(None, place, "block", problem)
        elif not is_true:
            problem = (
                f"the root it has signed is not that of the {checkpoint.size} headers: the chain has another history"
            )
            yield Finding(None, place, "log", problem)
        elif checkpoint.size < due:
            problem = (
                f"it has {checkpoint.size} of {len(leaves)} blocks: it is an old one, or a crash came before a new one"
            )
            yield Finding(None, place, "log", problem)

    def _signatures(self, note: Note) -> tuple[list[Verifier], list[Verifier]]:
        """The keys of this log whose signature fits, and those whose does not."""
        good: list[Verifier] = []
        bad: list[Verifier] = []
        for verifier in self._verifiers():
            for line in note.signatures:
                if (line.name, line.key_id) == (verifier.name, verifier.key_id):
                    try:
                        verifier.check(note.text, line.signature)
                    except IntegrityError:
                        bad.append(verifier)
                    else:
                        good.append(verifier)
        return good, bad

    def _verifiers(self) -> Sequence[Verifier]:
        current = self.keys.load()
        return (*(current.verifiers if current else ()), *self.keys.retired())

    def _read_signed(self) -> tuple[tuple[int, bytes] | None, str]:
        try:
            return self.keys.signed(), ""
        except OpfsError as error:
            return None, error.reason

    def _check_promise(
        self, signed: tuple[int, bytes], checkpoint: Checkpoint | None, leaves: Sequence[bytes | None]
    ) -> Iterator[Finding]:
        """What is remembered outside the log: an old checkpoint put back does not make it forget."""
        size, root = signed
        truth = self._root(leaves, size)
        self.is_contradicted |= size > len(leaves) or truth not in (None, root)
        if size > len(leaves) and (checkpoint is None or checkpoint.size < size):
            problem = f"{size} blocks were signed, the chain has {len(leaves)}: the newest are missing"
            yield Finding(None, SIGNED, "block", problem)
        elif truth is not None and truth != root:
            yield Finding(None, SIGNED, "log", f"another history of {size} blocks was signed")

    def _check_verifier_keys(self) -> Iterator[Finding]:
        expected = "".join(f"{verifier.vkey}\n" for verifier in self._verifiers()).encode()
        try:
            found = self.files.read_verifier_keys()
        except NotFound:
            found = b""
        if found != expected:
            yield Finding(None, PLACE + VERIFIER_KEYS, "log", "it does not list the keys of this log")

    # --- tiles -----------------------------------------------------------------------------------------

    def _root(self, leaves: Sequence[bytes | None], size: int) -> bytes | None:
        """The root of the first headers; None where not all of them are known."""
        first = [leaf for leaf in islice(leaves, size) if leaf is not None]
        return root_of_hashes(first) if len(first) == size else None

    def _entry_leaf(self, height: int) -> bytes | None:
        entry = self.true_header(height)
        return None if entry is None else leaf_hash(entry)

    def _check_tiles(
        self, leaves: Sequence[bytes | None], filled: Sequence[bytes | None], size: int
    ) -> Iterator[Finding]:
        """Compare every tile with the headers; where a header is not known, with the entry that is in its place."""
        row = [leaf or bytes(HASH_BYTES) for leaf in filled[:size]]
        level = 0
        for tile in tiles_of(size):
            if tile.level == ENTRIES:
                yield from self._check_bundle(tile, leaves)
                continue
            if tile.level > level:
                row, level = _row_above(row), tile.level
            yield from self._check_hashes(tile, row[tile.index * WIDTH : tile.index * WIDTH + tile.width])

    def _check_bundle(self, tile: Tile, leaves: Sequence[bytes | None]) -> Iterator[Finding]:
        try:
            entries = decode_bundle(self.files.read_tile(tile))
        except OpfsError as error:
            yield Finding(None, PLACE + tile.path, "log", error.reason)
            return
        hashes = [leaf_hash(entry) for entry in entries]
        first = tile.index * WIDTH
        wrong = [first + i for i in range(tile.width) if i >= len(hashes) or leaves[first + i] not in (None, hashes[i])]
        if wrong:
            problem = f"entry {_listed(wrong)} is not the header of its block"
            yield Finding(None, PLACE + tile.path, "log", problem)
        else:
            yield from self._check_beginnings(tile, lambda width: encode_bundle(entries[:width]))

    def _check_hashes(self, tile: Tile, expected: Sequence[bytes]) -> Iterator[Finding]:
        try:
            data = self.files.read_tile(tile)
        except OpfsError as error:
            yield Finding(None, PLACE + tile.path, "log", error.reason)
            return
        if data[: len(expected) * HASH_BYTES] == b"".join(expected):
            yield from self._check_beginnings(tile, lambda width: b"".join(expected[:width]))
            return
        found = [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]
        first = tile.index * WIDTH
        wrong = [first + i for i, hash in enumerate(expected) if i >= len(found) or found[i] != hash]
        yield Finding(None, PLACE + tile.path, "log", f"hash {_listed(wrong)} is not the one of the headers below it")

    def _check_beginnings(self, tile: Tile, expected: Callable[[int], bytes]) -> Iterator[Finding]:
        """The narrower tiles that are still there: clients may have begun with them."""
        for width in _narrower(self.files, tile):
            narrower = Tile(tile.level, tile.index, width)
            with suppress(NotFound):  # it may go while we look
                if self.files.read_exactly(narrower) != expected(width):
                    yield Finding(None, PLACE + narrower.path, "log", f"it is not the beginning of {tile.path}")


def rebuild_tiles(directory: Path, headers: Sequence[bytes]) -> None:
    """Write every tile and bundle of the log over these headers; raises NoSpace or PoolError."""
    files = LogFiles(directory)
    row, level = [leaf_hash(header) for header in headers], 0
    for tile in tiles_of(len(headers)):
        if tile.level > level:
            row, level = _row_above(row), tile.level
        first = tile.index * WIDTH
        for width in {tile.width, *_narrower(files, tile)}:
            if tile.level == ENTRIES:
                data = encode_bundle(headers[first : first + width])
            else:
                data = b"".join(row[first : first + width])
            files.write_tile(Tile(tile.level, tile.index, width), data)


def _narrower(files: LogFiles, tile: Tile) -> list[int]:
    """The widths of the beginnings of a tile that are still there."""
    try:
        found = files.list_directory(f"{tile.full.path}.p")
    except NotFound:
        return []
    return [int(name) for name in found if int(name) < tile.width]


def _row_above(row: Sequence[bytes]) -> list[bytes]:
    """The hashes over each full tile of a row."""
    return [root_of_hashes(row[i : i + WIDTH]) for i in range(0, len(row) - WIDTH + 1, WIDTH)]


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:3]))
    return shown if len(numbers) <= 3 else f"{shown} and {len(numbers) - 3} more"
