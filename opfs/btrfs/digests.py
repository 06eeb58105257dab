"""Read whole blocks and hash every document in them, as fast as the machine can; writes nothing.

What takes less time than starting processes is done here; what takes longer goes to worker processes, in pieces
of some hundred documents. A worker reads into one buffer that it keeps, so a document costs an open, a read, a
close and its hash. Blocks come out in the order in which they were asked for.

Concurrency: one thread; the worker processes are ended by `close`. Not for use in the daemon with workers,
because they are forked.
"""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import random
import signal
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from blake3 import blake3

from opfs.btrfs.tree import EVENTS, HEADER, STATE, directory, load_file, open_directory
from opfs.core.audit import BlockBytes
from opfs.core.names import DOCUMENT_SUFFIX, ELEMENT_NAME, PLUGIN_NAME
from opfs.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from opfs.core.names import BlockName

PIECE_DOCUMENTS = 256
ALONE_S = 0.05
"""For so long it is worth trying without workers."""

_BUFFER_BYTES = 1 << 18  # fits the second-level cache of a core, so that the hash finds there what was read
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: a fifo would hang the open

Digests = tuple[bytes, dict[int, str]]
"""The hashes of some documents one after the other, and by position why one could not be read (its hash is zero)."""


def digest_files(chain_fd: int, block: str, plugin: str, names: Sequence[str], buffer: memoryview) -> Digests:
    """Hash the files `names` of a plugin in a block."""
    hashes, problems = [], {}
    try:
        with directory(block, chain_fd) as root, directory(STATE, root) as state, directory(plugin, state) as fd:
            for position, name in enumerate(names):
                try:
                    hashes.append(_digest_file(name, fd, buffer))
                except OSError as error:
                    hashes.append(bytes(blake3.digest_size))
                    problems[position] = why_unreadable(error)
    except OSError as error:
        return bytes(blake3.digest_size * len(names)), dict.fromkeys(range(len(names)), why_unreadable(error))
    return b"".join(hashes), problems


def _digest_file(name: str, dir_fd: int, buffer: memoryview) -> bytes:
    fd = os.open(name, _OPEN_FILE, dir_fd=dir_fd)
    try:
        count = os.readv(fd, [buffer])
        if count < len(buffer):
            return blake3(buffer[:count]).digest()
        hasher = blake3()
        while count:
            hasher.update(buffer[:count])
            count = os.readv(fd, [buffer])
        return hasher.digest()
    finally:
        os.close(fd)


def why_unreadable(error: OSError) -> str:
    """What the kernel says about a file that should be readable."""
    if error.errno == errno.EIO:  # what btrfs answers when a checksum fails and no second copy is good
        return "it cannot be read: the disk returned bytes that do not have the file system's checksum"
    return f"it cannot be read: {error.strerror}"


# --- in a worker process -------------------------------------------------------------------------------

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_worker_chain_fd = -1
_worker_buffer = memoryview(b"")


def _start_worker(chain_path: str) -> None:
    global _worker_chain_fd, _worker_buffer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a ctrl-C is for the process that asks, which then ends us
    # Workers hold each other's pipes open, so none of them would notice that the one who asks was killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _worker_chain_fd = open_directory(chain_path)
    _worker_buffer = memoryview(bytearray(_BUFFER_BYTES))


def _digest_in_worker(block: str, plugin: str, names: Sequence[str]) -> Digests:
    return digest_files(_worker_chain_fd, block, plugin, names, _worker_buffer)


# --- in the process that asks --------------------------------------------------------------------------


@dataclass(slots=True)
class _Piece:
    plugin: str
    names: Sequence[str]
    result: Digests | Future[Digests]


@dataclass(slots=True)
class _Reading:
    """A block on its way: its files are read, its documents are being hashed."""

    name: BlockName
    header: bytes = b""
    events: bytes = b""
    documents: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    pieces: list[_Piece] = field(default_factory=list)

    def finish(self) -> BlockBytes:
        contents: dict[str, bytes] = {}
        for piece in self.pieces:
            hashes, problems = piece.result if isinstance(piece.result, tuple) else piece.result.result()
            for position, name in enumerate(piece.names):
                if position in problems:
                    self.unreadable[f"{STATE}/{piece.plugin}/{name}"] = problems[position]
                else:
                    contents[f"{piece.plugin}/{name}"] = hashes[32 * position : 32 * position + 32]
        return BlockBytes(
            self.name,
            self.header,
            self.events,
            frozenset(self.documents),
            contents,
            self.unreadable,
            tuple(sorted(self.foreign)),
        )


class BlockDigester:
    """Reads the blocks below `chain_path`; with `workers` above zero, in so many processes."""

    def __init__(self, chain_path: Path, workers: int = 0) -> None:
        """Raises OSError."""
        self._path = str(chain_path)
        self._chain_fd = open_directory(self._path)
        self._worker_count = workers
        self._workers: ProcessPoolExecutor | None = None
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._alone_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._workers is not None:
            self._workers.shutdown(cancel_futures=True)
        os.close(self._chain_fd)

    def read(self, requests: Iterable[tuple[BlockName, int | None]]) -> Iterator[BlockBytes]:
        """Every block asked for, with all documents hashed or as many of them, chosen at random, as is asked."""
        waiting: deque[_Reading] = deque()
        for name, sample in requests:
            waiting.append(self._begin(name, sample))
            # enough for every worker to have something to do while the oldest is waited for
            while sum(len(reading.pieces) for reading in waiting) > 4 * self._worker_count:
                yield waiting.popleft().finish()
        while waiting:
            yield waiting.popleft().finish()

    def _begin(self, name: BlockName, sample: int | None) -> _Reading:
        reading = _Reading(name)
        try:
            with directory(str(name), self._chain_fd) as root:
                reading.header = _load(HEADER, root, reading.unreadable)
                reading.events = _load(EVENTS, root, reading.unreadable)
                found = _list_documents(root, reading.foreign)
        except OSError as error:
            reading.unreadable |= dict.fromkeys((HEADER, EVENTS), why_unreadable(error))
            return reading
        reading.documents = [f"{plugin}/{name}" for plugin, names in found.items() for name in names]
        if sample is not None and sample < len(reading.documents):
            chosen = random.sample(reading.documents, sample)
            found = {plugin: [] for plugin in found}
            for path in chosen:
                plugin, _, file_name = path.partition("/")
                found[plugin].append(file_name)
        for plugin, names in found.items():
            for first in range(0, len(names), PIECE_DOCUMENTS):
                piece = names[first : first + PIECE_DOCUMENTS]
                reading.pieces.append(_Piece(plugin, piece, self._digest(str(name), plugin, piece)))
        return reading

    def _digest(self, block: str, plugin: str, names: Sequence[str]) -> Digests | Future[Digests]:
        if not self._worker_count or self._alone_s < ALONE_S:
            start = time.monotonic()
            digests = digest_files(self._chain_fd, block, plugin, names, self._buffer)
            self._alone_s += time.monotonic() - start
            return digests
        if self._workers is None:
            self._workers = ProcessPoolExecutor(
                self._worker_count,
                mp_context=multiprocessing.get_context("fork"),
                initializer=_start_worker,
                initargs=(self._path,),
            )
        return self._workers.submit(_digest_in_worker, block, plugin, names)


def _load(name: str, root_fd: int, unreadable: dict[str, str]) -> bytes:
    try:
        return load_file(name, root_fd)[0]
    except FileNotFoundError:
        unreadable[name] = "it is missing"
    except OSError as error:
        unreadable[name] = why_unreadable(error)
    except IntegrityError as error:
        unreadable[name] = error.reason
    return b""


def _list_documents(root_fd: int, foreign: list[str]) -> dict[str, list[str]]:
    """The documents' file names by plugin; everything else in the block goes to `foreign`."""
    found: dict[str, list[str]] = {}
    with _entries(".", root_fd) as entries:
        foreign += [entry.name for entry in entries if entry.name not in (HEADER, EVENTS, STATE)]
    try:
        with directory(STATE, root_fd) as state:
            with _entries(".", state) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) and PLUGIN_NAME.match(entry.name):
                        found[entry.name] = []
                    else:
                        foreign.append(f"{STATE}/{entry.name}")
            for plugin, names in found.items():
                with _entries(plugin, state) as entries:
                    for entry in entries:
                        element = entry.name.removesuffix(DOCUMENT_SUFFIX)
                        if (
                            element != entry.name
                            and ELEMENT_NAME.match(element)
                            and entry.is_file(follow_symlinks=False)
                        ):
                            names.append(entry.name)
                        else:
                            foreign.append(f"{STATE}/{plugin}/{entry.name}")
    except NotADirectoryError:
        foreign.append(STATE)
    except FileNotFoundError:
        pass  # every document is missing then, which shows
    return found


@contextmanager
def _entries(name: str, dir_fd: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """The entries of a directory, through a description of its own (see opfs.btrfs.tree.list_names)."""
    with directory(name, dir_fd) as fd, os.scandir(fd) as entries:
        yield entries
