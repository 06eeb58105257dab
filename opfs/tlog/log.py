"""The transparency log as plain files: appends headers, signs checkpoints, proves from tiles.

It knows no blocks and no chain: whoever calls it appends the headers in order and decides what to do about a refusal.
What was signed once is a promise: nothing is signed that is smaller or has another history (format.md, "Log").

Appending changes what is in memory, and full tiles; `store` brings the other files up to it. So a commit does not
pay for them, and many commits in a row pay once. What is read here is always the newest: whoever reads a file has it
stored first.

Concurrency: `foresee` and `append` are called by one caller, in turns; the rest may run at any time, in any thread.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.merkle import consistency_proof, inclusion_proof, leaf_hash, root_at
from opfs.core.note import Checkpoint, Note, SignatureLine, open_note, parse_checkpoint
from opfs.core.notekeys import sign_checkpoint
from opfs.core.tiles import WIDTH, Tile, nodes_from_tiles, read_entry, tiles_between
from opfs.errors import IntegrityError, InvalidRequest, NoSpace, NotFound, PoolError
from opfs.ports import LogFileInfo
from opfs.tlog.checked import CheckedTiles, check_unchanged
from opfs.tlog.edge import Edge, load_edge
from opfs.tlog.files import CHECKPOINT, VERIFIER_KEYS, WITNESSED, LogFiles
from opfs.tlog.leftovers import drop_torn_partials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from opfs.core.notekeys import Verifier
    from opfs.tlog.keys import KeyPair, KeyStore

log = logging.getLogger(__name__)

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Foreseen:
    """A signed checkpoint that nobody has seen: of the tree that one more header makes, with that time and keys."""

    keys: KeyPair
    checkpoint: Checkpoint
    time_s: int
    note: Note


class FileLog:
    """The log in `directory`, signed with the keys of `store`; use `FileLog.open`."""

    def __init__(self, directory: Path, origin: str, store: KeyStore, keys: KeyPair) -> None:
        self.origin = origin
        self.files = LogFiles(directory)
        self._store = store
        self._keys = keys
        self._edge = Edge()
        self._tiles = CheckedTiles(self.files, lambda: self._edge)
        self._note: Note | None = None
        self._foreseen: _Foreseen | None = None
        self._promises: list[Checkpoint] = []
        self._stored: Note | None = None
        self._stored_size = 0
        self._failure: PoolError | None = None
        """Why the files could not be read at the start, so that nothing is signed until the next."""
        self._is_tidy = False
        """Whether what a crash left of the files has been looked at."""
        self._writing = threading.Lock()
        self._storing = threading.Lock()
        """Held while files change; taken before `_writing` by whoever needs both."""
        self._full_tiles = LogFiles(directory, ".new-full")

    @classmethod
    def open(cls, directory: Path, origin: str, store: KeyStore) -> FileLog:
        """Read what is there; makes the first keys where there are none. Raises PoolError where the keys are not
        to be had or what was signed is garbage; files that the disk does not give make every `append` raise it.

        Files that are damaged or missing count as not there: `size` is 0 then, and appending all headers again makes
        the same bytes. What they promised, if it was signed by these keys, must come true again.
        """
        keys = store.load()
        files = LogFiles(directory)
        if keys is None:
            with_checkpoint = _read_or_none(files.read_checkpoint) is not None or store.signed() is not None
            if with_checkpoint and store.load_next() is None:
                raise PoolError(
                    f"the keys of the log {origin} are missing",
                    hint="put keys/ of the pool back from a backup, or make new ones with opfs key rotate",
                )
            keys = store.load_next() or store.create()
        opened = cls(directory, origin, store, keys)
        try:
            opened._load()
        except PoolError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            # What was promised is not known now, so nothing may be signed; what can be read is served all the same.
            opened._failure = error
        return opened

    # --- reading ---------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Entries in the log."""
        return self._edge.size

    @property
    def root(self) -> bytes:
        return self._edge.frontier.root

    @property
    def verifiers(self) -> Sequence[Verifier]:
        """Of the keys that sign now, then of earlier ones."""
        return (*self._keys.verifiers, *self._store.retired())

    @property
    def promised_size(self) -> int:
        """The largest size that is known to have been signed."""
        return max((promise.size for promise in self._promises), default=0)

    def checkpoint(self) -> bytes:
        """The newest signed checkpoint; raises NotFound before the first."""
        note = self._note
        if note is None:
            raise NotFound("the log has no checkpoint yet")
        return note.encode()

    def witnessed(self) -> bytes:
        """The newest checkpoint that had a quorum; raises NotFound, or IntegrityError where it is not this log's."""
        data = self.files.read_witnessed()
        checkpoint = parse_checkpoint(open_note(data, self.verifiers).text)
        is_ours = checkpoint.origin == self.origin and checkpoint.size <= self.size
        if not is_ours or checkpoint.root != self.root_at(checkpoint.size):
            raise IntegrityError(f"{WITNESSED} is not of this log", hint="witnesses are asked again")
        return data

    def entry(self, index: int) -> bytes:
        """The bytes of one entry; raises NotFound, InvalidRequest or IntegrityError."""
        return read_entry(index, self.size, self._tiles.read)

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """The audit path of an entry in the tree of `size`; raises InvalidRequest, NotFound or IntegrityError."""
        return inclusion_proof(index, size, self._tiles.nodes(size))

    def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        """That the tree of `old_size` is a beginning of that of `new_size`; raises as `inclusion_proof`."""
        return consistency_proof(old_size, new_size, self._tiles.nodes(new_size))

    def root_at(self, size: int) -> bytes:
        """The root when the log had `size` entries; raises as `inclusion_proof`."""
        return root_at(size, self._tiles.nodes(size))

    # --- the files, checked --------------------------------------------------------------------------------

    def _store_for_reader(self) -> None:
        """As `store`; where the files cannot be written, what they were brought up to before is served."""
        with suppress(PoolError, NoSpace):
            self.store()

    def list_files(self, path: str) -> Mapping[str, LogFileInfo]:
        """What is in a directory of the log; raises NotFound."""
        self._store_for_reader()
        return self.files.list_directory(path)

    def file_info(self, path: str) -> LogFileInfo:
        """One file or directory of the log; raises NotFound."""
        self._store_for_reader()
        try:
            return self.files.info(path)
        except NotFound:
            return LogFileInfo(len(self._tiles.partial(_tile_of(path))), self.files.info(CHECKPOINT).time_ns)

    def read_file(self, path: str) -> bytes:
        """A file of the log; raises NotFound, or IntegrityError where it is not what this log put there."""
        self._store_for_reader()
        if path == CHECKPOINT:
            with self._storing:
                stored = self._stored.encode() if self._stored else b""
                return check_unchanged(path, self.files.read_checkpoint(), stored)
        if path == WITNESSED:
            return self.witnessed()
        if path == VERIFIER_KEYS:
            with self._storing:
                return check_unchanged(path, self.files.read_verifier_keys(), self._vkeys())
        return self._tiles.read_checked(_tile_of(path))

    # --- appending -------------------------------------------------------------------------------------

    def foresee(self, header: bytes, time_ns: int) -> None:
        """Sign the tree that appending just this header makes, and keep it from everybody until that is done."""
        frontier = self._edge.frontier.with_leaf(leaf_hash(header))
        checkpoint = Checkpoint(self.origin, frontier.size, frontier.root)
        if checkpoint.size >= self.promised_size:
            time_s = time_ns // NS_PER_S
            note = sign_checkpoint(checkpoint, self._keys.signers, time_s)
            self._foreseen = _Foreseen(self._keys, checkpoint, time_s, note)

    def append(self, headers: Iterable[bytes], time_ns: int) -> None:
        """Add entries and sign the tree that has them all, with that time; the checkpoint is the newest on return.

        Without entries it signs nothing, except a tree whose checkpoint is missing.

        Raises PoolError, having signed nothing, where that would break a promise; PoolError or NoSpace where a full
        tile cannot be written: the log has then its old size, and the same call may be made again.
        """
        if self._failure is not None:
            raise PoolError(self._failure.reason, hint=self._failure.hint)
        with self._writing:
            edge = self._edge.copy()
            old_size = edge.size
            for header in headers:
                for tile, data in edge.push(header):
                    self._full_tiles.write_tile(tile, data)
                self._check_promises(edge)
            if edge.size < self.promised_size:
                raise _broken(f"it signed {self.promised_size} blocks before, the chain has {edge.size}")
            if edge.size == old_size and self._note is not None:
                return
            self._sign(edge, time_ns)
            # After this line: a block in the log as everybody here sees it; a crash here leaves the files behind;
            # repaired by the next start, which appends the same headers and signs the same trees.
            self._edge = edge

    def _sign(self, edge: Edge, time_ns: int) -> None:
        time_s = time_ns // NS_PER_S
        checkpoint = Checkpoint(self.origin, edge.size, edge.frontier.root)
        foreseen, self._foreseen = self._foreseen, None
        if foreseen and (foreseen.keys, foreseen.checkpoint, foreseen.time_s) == (self._keys, checkpoint, time_s):
            self._note = foreseen.note
        else:
            self._note = sign_checkpoint(checkpoint, self._keys.signers, time_s)
        self._promises = [checkpoint]

    def store(self) -> None:
        """Bring the files up to the newest checkpoint; raises PoolError or NoSpace, and may then be called again."""
        if self._failure is not None:
            return
        with self._storing:
            with self._writing:
                edge, note, old_size = self._edge, self._note, self._stored_size
            if not self._is_tidy:
                drop_torn_partials(self.files, edge.size, self._tiles.partial)
                self._is_tidy = True
            if note is None or note is self._stored:
                return
            # A tree's tiles are in place before its checkpoint is, and `signed` says that it was signed before it
            # shows.
            for tile in tiles_between(old_size, edge.size):
                if tile.is_partial:
                    self.files.write_tile(tile, edge.data(tile))
            # After this line: tiles of a checkpoint that is not there; a crash here leaves any part of them;
            # repaired by the next start, which goes on from the checkpoint and writes the same tiles.
            self._store.set_signed(edge.size, edge.frontier.root)
            # After this line: a promise that no file shows; a crash here leaves a checkpoint behind it; repaired by the
            # next start, which appends the blocks it lacks and so keeps the promise.
            self.files.write_checkpoint(note.encode())
            self._stored, self._stored_size = note, edge.size
            self._drop_partials(old_size, edge.size)

    def _check_promises(self, edge: Edge) -> None:
        for promise in self._promises:
            if promise.size == edge.size and promise.root != edge.frontier.root:
                raise _broken(f"it signed another history of {promise.size} blocks before")

    def _drop_partials(self, old_size: int, new_size: int) -> None:
        """Each step drops from the tile before as many partial tiles as it has made: no step pays for 255 of them."""
        for tile in tiles_between(old_size, new_size):
            if tile.index:
                before = Tile(tile.level, tile.index - 1)
                first = 1 if tile.width == WIDTH else max(1, tile.width - (new_size - old_size) + 1)
                self.files.remove_partials(before, range(first, min(tile.width + 1, WIDTH)))

    def add_signatures(self, note: Note) -> bool:
        """Take over the lines that others put below our newest checkpoint; False where it is not our newest.

        The caller has verified them.
        """
        with self._writing:
            if self._note is None or note.text != self._note.text:
                return False
            ours = {(verifier.name, verifier.key_id) for verifier in self._keys.verifiers}
            lines: list[SignatureLine] = [line for line in note.signatures if (line.name, line.key_id) not in ours]
            self._note = self._note.with_signatures(lines)
        self.store()
        return True

    def keep_witnessed(self, note: Note) -> None:
        """Keep a checkpoint that had a quorum beside the newest, which may be ahead of it."""
        with self._storing:
            self.files.write_witnessed(note.encode())

    def use_keys(self, keys: KeyPair, time_ns: int) -> None:
        """Sign with other keys from now on, the newest checkpoint included: the tree is the same."""
        with self._storing, self._writing:
            self._keys = keys
            self._write_verifier_keys()
            if self._note is not None:
                self._sign(self._edge, time_ns)
        self.store()

    def _write_verifier_keys(self) -> None:
        self.files.write_verifier_keys(self._vkeys())

    def _vkeys(self) -> bytes:
        return "".join(f"{verifier.vkey}\n" for verifier in self.verifiers).encode()

    # --- starting --------------------------------------------------------------------------------------

    def _load(self) -> None:
        if _read_or_none(self.files.read_verifier_keys) != self._vkeys():
            self._write_verifier_keys()
        remembered = self._store.signed()
        if remembered is not None:
            self._promises.append(Checkpoint(self.origin, *remembered))
        data = _read_or_none(self.files.read_checkpoint)
        if data is None:
            return
        try:
            opened = open_note(data, self.verifiers)
            checkpoint = parse_checkpoint(opened.text)
            if checkpoint.origin != self.origin:
                raise IntegrityError(f"it is of the log {checkpoint.origin}")
        except IntegrityError as error:
            log.warning("the stored checkpoint is not this log's and is made again: %s", error)
            return
        self._promises.append(checkpoint)
        try:
            edge = load_edge(checkpoint.size, self.files.read_tile)
            if edge.frontier.root != checkpoint.root:
                raise IntegrityError("the tiles do not lead to the root of the checkpoint")
            nodes = nodes_from_tiles(edge.size, self.files.read_tile)
            for promise in self._promises:
                if promise.size <= edge.size and root_at(promise.size, nodes) != promise.root:
                    raise IntegrityError(f"the tiles do not lead to the root of {promise.size} blocks")
        except (IntegrityError, NotFound, InvalidRequest) as error:
            log.warning("the tiles of the log are damaged and are made again: %s", error)
            return
        self._edge, self._note = edge, opened.note
        self._stored, self._stored_size = opened.note, edge.size


def _tile_of(path: str) -> Tile:
    """The tile of that name; raises NotFound for what is none."""
    try:
        return Tile.parse(path)
    except InvalidRequest as error:
        raise NotFound(f"the log has no {path}") from error


def _broken(what: str) -> PoolError:
    return PoolError(
        f"the log refuses to sign: {what}, as after a restore from a backup",
        hint="bring the newer pool back, or see opfs key accept-size",
    )


def _read_or_none(read: Callable[[], bytes]) -> bytes | None:
    try:
        return read()
    except NotFound:
        return None
