"""The packs of one pool, in a directory: which pruned blocks there are, and reading what they held.

A pack is written whole under a temporary name, synced, renamed, and the directory synced: it is there or it is
not. Packs may overlap in time, as survivors of one pruning go in a later one. One from which something
is erased is written anew before the old one goes. Contents of all packs are held in
memory, about 300 bytes a block; frames are read when they are asked for, and the last ones kept.

Concurrency: one thread adds and replaces; any thread reads meanwhile.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from opfs.archive.compression import decompress
from opfs.archive.pack import (
    HEAD_BYTES,
    ArchivedBlock,
    Contents,
    Place,
    Version,
    contents_length,
    decode_contents,
    encode_pack,
)
from opfs.core.canonical import hash_bytes, hash_hex
from opfs.core.names import BlockName
from opfs.errors import IntegrityError, NoSpace, NotFound, PoolError
from opfs.ports import Erasure, StoredDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from opfs.core.names import ElementId

_T = TypeVar("_T")

ARCHIVE = "archive"
"""The directory in @log."""
SUFFIX = ".pack"
_UNFINISHED = ".unfinished"
_KEPT_FRAMES = 16

log = logging.getLogger(__name__)


class Kept(Protocol):
    """Documents that were read before, by the hash of their content; anything may be gone at any time."""

    def remember(self, key: bytes, compute: Callable[[], bytes], accept: Callable[[bytes], bool]) -> bytes:
        """What is kept under the key, if accepted, else what is computed now."""
        ...


@dataclass(frozen=True, slots=True)
class _Pack:
    path: Path
    contents: Contents


class Archive:
    """The packs in `directory`, which is made if it is missing and closed to all but its owner."""

    def __init__(self, directory: Path) -> None:
        """Raises PoolError where the directory cannot be read; a damaged pack is left out, and named by `damage`."""
        self._directory = directory
        self._packs: dict[str, _Pack] = {}
        self._blocks: dict[BlockName, _Pack] = {}
        self._frames: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.kept: Kept | None = None
        """Where documents are looked for before a frame is decompressed for them."""
        self.damage: dict[str, str] = {}
        """Packs that cannot be read, by name, and why."""
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise PoolError(f"the archive {directory} cannot be made: {error.strerror}") from error
        self.load_new()

    def load_new(self) -> None:
        """Take in the packs that were added by another process since."""
        try:
            names = sorted(name for name in os.listdir(self._directory) if name.endswith(SUFFIX))
        except OSError as error:
            raise PoolError(f"the archive in {self._directory} cannot be read: {error.strerror}") from error
        for name in names:
            if name not in self._packs and name not in self.damage:
                self._load(self._directory / name)

    def sweep(self) -> None:
        """Remove what a writer that was killed left unfinished; only by the one who writes."""
        with suppress(OSError):
            for path in self._directory.glob(f"*{_UNFINISHED}"):
                path.unlink()

    def names(self) -> Collection[BlockName]:
        """Every block in the archive, in any order."""
        return self._blocks.keys()

    def __contains__(self, name: BlockName) -> bool:
        return name in self._blocks

    @property
    def size_bytes(self) -> int:
        """Of all packs, on disk."""
        return sum(pack.path.stat().st_size for pack in self._packs.values())

    def read_events(self, name: BlockName) -> bytes:
        """The block's `events.jsonl`; raises NotFound or IntegrityError."""
        return self._reading(name, lambda pack: self._read(pack, pack.contents.events[name]))

    def read_header(self, name: BlockName) -> bytes:
        """The block's header; raises NotFound or IntegrityError."""
        return self._reading(name, lambda pack: self._read(pack, pack.contents.headers[name]))

    def read_version(self, name: BlockName, id: ElementId) -> StoredDocument:
        """The document that the block's events set, perhaps erased; raises NotFound (none set) or IntegrityError."""
        return self._reading(name, lambda pack: self._load_version(pack, name, id))

    def erasure_of(self, name: BlockName, id: ElementId) -> Erasure | None:
        """Whether the document that the block's events set was erased, without reading anything."""
        pack = self._blocks.get(name)
        version = pack.contents.versions.get((name.height, id)) if pack is not None else None
        return version.erasure if version is not None else None

    def versions_of(self, name: BlockName) -> Sequence[ElementId]:
        """The elements whose documents the block's events set."""
        pack = self._pack_of(name)
        return [id for height, id in pack.contents.versions if height == name.height]

    def add(self, blocks: Sequence[ArchivedBlock]) -> None:
        """Write a pack of blocks, durably; raises NoSpace or PoolError, and then holds nothing of them."""
        if blocks:
            path = self._write(encode_pack(blocks))
            # After this line: a pack is durable; a crash here leaves blocks that are in the archive and have snapshots;
            # repaired by the next pruning, which finds them there.
            self._adopt(path)

    def erase(self, erasure: Erasure) -> None:
        """Write every pack that holds the content anew without it, durably, and remove the old one.

        Raises NoSpace, PoolError or IntegrityError (a damaged pack cannot be written anew); then call it again.
        """
        for pack in list(self._packs.values()):
            versions = pack.contents.versions.values()
            if any(version.content == erasure.content and version.erasure is None for version in versions):
                self._adopt(self._write(encode_pack(self._blocks_without(pack, erasure))))
                # After this line: two packs hold the same blocks, one of them what is to be erased; a crash here leaves
                # both; repaired by the next start, which goes on with erasures that were begun.
                self._drop(pack)

    # --- inside ------------------------------------------------------------------------------------------

    def _blocks_without(self, pack: _Pack, erasure: Erasure) -> list[ArchivedBlock]:
        contents = pack.contents
        documents: dict[int, list[StoredDocument]] = {}
        for (height, id), version in contents.versions.items():
            if version.content == erasure.content and version.erasure is None:
                document = StoredDocument(id, b"", version.attributes, erasure)
            else:
                document = self._stored(pack, id, version)
            documents.setdefault(height, []).append(document)
        return [
            ArchivedBlock(
                name,
                self._read(pack, contents.headers[name]),
                self._read(pack, contents.events[name]),
                tuple(documents.get(name.height, ())),
            )
            for name in contents.headers
        ]

    def _drop(self, pack: _Pack) -> None:
        try:
            pack.path.unlink(missing_ok=True)
            _sync_directory(self._directory)
        except OSError as error:
            raise PoolError(f"the pack {pack.path.name} cannot be removed: {error.strerror}") from error
        del self._packs[pack.path.name]
        with self._lock:
            for key in [key for key in self._frames if key[0] == pack.path.name]:
                del self._frames[key]

    def _reading(self, name: BlockName, read: Callable[[_Pack], _T]) -> _T:
        pack = self._pack_of(name)
        try:
            return read(pack)
        except IntegrityError:
            if pack.path.exists():
                raise
        self.load_new()  # it was written anew without something that was erased
        return read(self._pack_of(name))

    def _pack_of(self, name: BlockName) -> _Pack:
        pack = self._blocks.get(name)
        if pack is None:
            raise NotFound(f"block {name} is not in the archive")
        return pack

    def _load_version(self, pack: _Pack, name: BlockName, id: ElementId) -> StoredDocument:
        version = pack.contents.versions.get((name.height, id))
        if version is None:
            raise NotFound(f"block {name} did not set {id}")
        return self._stored(pack, id, version)

    def _stored(self, pack: _Pack, id: ElementId, version: Version) -> StoredDocument:
        if isinstance(version.place, BlockName):
            return StoredDocument(id, b"", version.attributes, version.erasure)
        place = version.place
        if self.kept is None or self._has_frame(pack, place.frame):
            content = self._read(pack, place)
        else:
            content = self.kept.remember(
                version.content, lambda: self._read(pack, place), lambda found: hash_bytes(found) == version.content
            )
        if hash_bytes(content) != version.content:
            raise IntegrityError(f"an archived document {id} is not what its pack says")
        return StoredDocument(id, content, version.attributes)

    def _read(self, pack: _Pack, place: Place) -> bytes:
        return pack.contents.cut(place, self._frame(pack, place.frame))

    def _has_frame(self, pack: _Pack, number: int) -> bool:
        with self._lock:
            return (pack.path.name, number) in self._frames

    def _frame(self, pack: _Pack, number: int) -> bytes:
        key = pack.path.name, number
        with self._lock:
            if key in self._frames:
                self._frames.move_to_end(key)
                return self._frames[key]
        frame = pack.contents.frames[number]
        data = decompress(frame.method, _pread(pack.path, frame.offset, frame.stored_length), frame.length)
        if hash_bytes(data) != frame.digest:
            raise IntegrityError(f"frame {number} of {pack.path.name} is not what was written")
        with self._lock:
            self._frames[key] = data
            while len(self._frames) > _KEPT_FRAMES:
                self._frames.popitem(last=False)
        return data

    def _write(self, data: bytes) -> Path:
        path = self._directory / f"{hash_hex(data)[:32]}{SUFFIX}"
        unfinished = path.with_suffix(_UNFINISHED)
        try:
            with os.fdopen(
                os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb"
            ) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
            _sync_directory(self._directory)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace("the pool has no room for the archive", hint="free space, then prune again") from error
            raise PoolError(f"the archive cannot be written: {error.strerror}") from error
        return path

    def _load(self, path: Path) -> None:
        try:
            self._adopt(path)
        except IntegrityError as error:
            log.error("the pack %s is damaged: %s", path.name, error)
            self.damage[path.name] = str(error)

    def _adopt(self, path: Path) -> None:
        head = _pread(path, 0, HEAD_BYTES)
        pack = _Pack(path, decode_contents(head, _pread(path, HEAD_BYTES, contents_length(head))))
        self._packs[path.name] = pack
        self._blocks.update(dict.fromkeys(pack.contents.headers, pack))


def _pread(path: Path, offset: int, length: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise IntegrityError(f"the pack {path.name} is gone") from None
    except OSError as error:
        raise PoolError(f"the pack {path.name} cannot be read: {error.strerror}") from error
    try:
        data = os.pread(descriptor, length, offset)
    except OSError as error:
        raise PoolError(f"the pack {path.name} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) != length:
        raise IntegrityError(f"the pack {path.name} ends too early")
    return data


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
