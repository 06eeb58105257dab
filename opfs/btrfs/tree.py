"""Read the documents below the root of a subvolume, the layer's and a block's alike; writes nothing.

Every step down is one openat without following links, so that a symlink planted in a tampered pool leads
nowhere, and everything opened must be a regular file.

Concurrency: stateless; any thread, at any time. A document of the layer is replaced by rename only, so a
reader sees an old or a new one, never a mix.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opfs.core.names import DOCUMENT_SUFFIX, ELEMENT_NAME, PLUGIN_NAME, ElementId
from opfs.errors import IntegrityError, NotFound, PoolError
from opfs.ports import FileAttributes, StoredDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STATE = "state"
HEADER = "block.json"
EVENTS = "events.jsonl"

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: a fifo would hang the open


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Translate what the kernel says about reading `what`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFound(f"there is no {what}") from error
        if error.errno == errno.EIO:  # what btrfs answers when a checksum fails and no second copy is good
            raise IntegrityError(
                f"{what} cannot be read: {error.strerror}", hint="btrfs scrub names the cause"
            ) from error
        raise PoolError(f"{what} cannot be read: {error.strerror}") from error


def open_directory(name: str, dir_fd: int | None = None) -> int:
    """Open a directory that is no symlink; raises OSError."""
    return os.open(name, _OPEN_DIRECTORY, dir_fd=dir_fd)


@contextmanager
def directory(name: str, dir_fd: int) -> Iterator[int]:
    """`open_directory` for the length of a block."""
    fd = open_directory(name, dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def list_names(dir_fd: int, name: str = ".") -> list[str]:
    """The names in a directory, or in the directory `name` of it; raises OSError.

    Through a description of its own: readdir on btrfs ends at the last name there was when the description
    was opened, and its position would be shared by all threads.
    """
    with directory(name, dir_fd) as own_fd:
        return os.listdir(own_fd)


def load_file(name: str, dir_fd: int) -> tuple[bytes, FileAttributes]:
    """The content and attributes of a regular file; raises OSError, or IntegrityError for anything else."""
    fd = os.open(name, _OPEN_FILE, dir_fd=dir_fd)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise IntegrityError(f"{name} in the pool is not a regular file")
        content = os.read(fd, found.st_size + 1)
    finally:
        os.close(fd)
    if len(content) != found.st_size:
        raise IntegrityError(f"{name} in the pool has {found.st_size} bytes, of which {len(content)} were read")
    return content, attributes_of(found)


def attributes_of(found: os.stat_result) -> FileAttributes:
    return FileAttributes(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns)


def load_document(root_fd: int, id: ElementId) -> tuple[bytes, FileAttributes]:
    """One document below the root of a subvolume; raises OSError."""
    with directory(STATE, root_fd) as state, directory(id.plugin, state) as plugin:
        return load_file(id.element + DOCUMENT_SUFFIX, plugin)


def load_attributes(root_fd: int, id: ElementId) -> FileAttributes:
    """Owner, mode and mtime of one document below the root of a subvolume; raises OSError."""
    with directory(STATE, root_fd) as state, directory(id.plugin, state) as plugin:
        return attributes_of(os.stat(id.element + DOCUMENT_SUFFIX, dir_fd=plugin, follow_symlinks=False))


def scan_documents(
    root_fd: int, erased: Callable[[ElementId], StoredDocument] | None = None
) -> Iterator[StoredDocument]:
    """Every document below the root of a subvolume, in directory order; raises OSError.

    Names that cannot be a document's are passed over. One that goes away during the scan may be left out. `erased`
    tells what stands for one that cannot be read because there is no data any more (ENODATA), as in a mounted tree.
    """
    with directory(STATE, root_fd) as state:
        for plugin in sorted(filter(PLUGIN_NAME.match, list_names(state))):
            try:
                plugin_fd = open_directory(plugin, state)
            except FileNotFoundError:
                continue
            try:
                yield from _scan_plugin(plugin, plugin_fd, erased)
            finally:
                os.close(plugin_fd)


def _scan_plugin(
    plugin: str, plugin_fd: int, erased: Callable[[ElementId], StoredDocument] | None
) -> Iterator[StoredDocument]:
    for file_name in list_names(plugin_fd):
        element = file_name.removesuffix(DOCUMENT_SUFFIX)
        if element == file_name or not ELEMENT_NAME.match(element):
            continue
        try:
            content, attributes = load_file(file_name, plugin_fd)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.ENODATA or erased is None:
                raise
            yield erased(ElementId(plugin, element))
            continue
        yield StoredDocument(ElementId(plugin, element), content, attributes)
