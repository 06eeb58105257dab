"""SnapshotStore on btrfs: the layer is the subvolume `@state`, a block is a read-only snapshot in `@chain`.

The snapshot ioctl is the commit point: durable when it returns, without any fsync (architecture.md). This
module sees to it that what the ioctl makes durable is what was asked for, and to saying so when it cannot
know. It opens no pool and holds no lock: see opfs.btrfs.pool.

Concurrency: `write_block`, `restore_layer` and `set_attributes` from one thread at a time; reads from any
thread at any time. A read of the layer during a write shows some documents before and some after it.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Self

from opfs.btrfs import ioctl
from opfs.btrfs.layer import Layer, writing
from opfs.btrfs.space import Space, metadata_used, space_of
from opfs.btrfs.tree import (
    EVENTS,
    HEADER,
    directory,
    list_names,
    load_attributes,
    load_document,
    load_file,
    open_directory,
    reading,
    scan_documents,
)
from opfs.core.names import BlockName
from opfs.errors import CommitUnknown, InvalidRequest, NoSpace, PoolError, PoolReadOnly

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from opfs.core.names import ElementId
    from opfs.ports import DocumentWrite, FileAttributes, StoredDocument

LAYER = "@state"
CHAIN = "@chain"

_CLEANING_TIMEOUT_S = 60.0
_CLEANING_LOOK_S = 0.1


class BtrfsSnapshotStore:
    """The layer and the blocks of the pool whose root directory is `pool_path`."""

    def __init__(self, pool_path: Path) -> None:
        """Open the store; raises NotFound or PoolError. Nothing is written before the first write is asked for."""
        self._chain_path = pool_path / CHAIN
        self._writer: Layer | None = None
        with ExitStack() as opened:
            with reading(f"layer {pool_path / LAYER}"):
                self._layer_fd = open_directory(str(pool_path / LAYER))
            opened.callback(os.close, self._layer_fd)
            with reading(f"chain {self._chain_path}"):
                self._chain_fd = open_directory(str(self._chain_path))
                opened.callback(os.close, self._chain_fd)
                self._device_ids = _device_ids(self._chain_fd)
            self._close = opened.pop_all().close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._close()

    # --- reading ---------------------------------------------------------------------------------------

    def list_blocks(self) -> Sequence[BlockName]:
        """All blocks, lowest first: the subvolumes in `@chain` that have a block's name."""
        blocks = []
        with reading("directory of the blocks"):
            for name in list_names(self._chain_fd):
                try:
                    block = BlockName.parse(name)
                except InvalidRequest:
                    continue
                found = os.stat(name, dir_fd=self._chain_fd, follow_symlinks=False)
                if found.st_ino == ioctl.SUBVOLUME_ROOT_INODE:
                    blocks.append(block)
        return sorted(blocks)

    def block_path(self, name: BlockName) -> Path:
        """Where the block's tree lies, for tools that take a path (btrfs send, diff)."""
        return self._chain_path / str(name)

    def read_header(self, name: BlockName) -> bytes:
        with reading(f"header of block {name}"), directory(str(name), self._chain_fd) as block:
            return load_file(HEADER, block)[0]

    def read_events(self, name: BlockName) -> bytes:
        with reading(f"list of events of block {name}"), directory(str(name), self._chain_fd) as block:
            return load_file(EVENTS, block)[0]

    def read_document(self, name: BlockName, id: ElementId) -> bytes:
        with reading(f"document {id} in block {name}"), directory(str(name), self._chain_fd) as block:
            return load_document(block, id)[0]

    def document_attributes(self, name: BlockName, id: ElementId) -> FileAttributes:
        with reading(f"document {id} in block {name}"), directory(str(name), self._chain_fd) as block:
            return load_attributes(block, id)

    def scan_layer(self) -> Iterator[StoredDocument]:
        with reading("layer"):
            yield from scan_documents(self._layer_fd)

    def scan_block(self, name: BlockName) -> Iterator[StoredDocument]:
        with reading(f"block {name}"), directory(str(name), self._chain_fd) as block:
            yield from scan_documents(block)

    def space(self) -> Space:
        """The room in the pool's file system."""
        with reading("use of space"):
            found = os.fstatvfs(self._chain_fd)
            return space_of(found.f_blocks * found.f_frsize, ioctl.space_info(self._chain_fd))

    def damage(self) -> Sequence[str]:
        """What the kernel says is wrong with the file system or its devices, in words; nothing where all is well."""
        lines = []
        with reading("state of the file system"):
            if os.fstatvfs(self._chain_fd).f_flag & os.ST_RDONLY:
                lines.append("READ-ONLY: see the kernel's log, check the device, then unmount and mount the pool")
            for id in self._device_ids:
                counts = ioctl.error_counts(self._chain_fd, id)
                if any(counts):
                    lines.append(f"device {id} has failed: {counts}; see btrfs device stats, and replace it")
        return lines

    def sync(self) -> None:
        """Write everything back that anybody wrote to the file system; raises NoSpace or CommitUnknown."""
        with writing("syncing the file system"):
            ioctl.sync_filesystem(self._chain_fd)

    # --- writing ---------------------------------------------------------------------------------------

    def write_block(
        self,
        name: BlockName,
        writes: Sequence[DocumentWrite],
        header: bytes,
        events: bytes,
        before_snapshot: Callable[[], None] = lambda: None,
    ) -> None:
        """Write the layer, then take the snapshot under its final name; durable on return.

        Raises NoSpace (no snapshot was made, the layer may hold a part of `writes`) or CommitUnknown.
        """
        with writing(f"writing block {name}"):
            errors_before = self._write_error_count()
            layer = self._open_layer()
            for write in writes:
                if write.content is None:
                    layer.remove_document(write.id)
                else:
                    layer.put_document(write.id, write.content, write.attributes)
            # After this line: the layer holds the documents of a block that is not there; a crash here leaves
            # some, all or none of them in it; repaired by recovery, which restores the layer from the head.

            # Events tell what was done to documents that not everybody may read; a header holds hashes only.
            layer.put_file(EVENTS, events, 0o400)
            layer.put_file(HEADER, header, 0o444)
        # After this line: the layer is what the block will be; a crash here leaves it ahead of the head, with
        # the events and header of a block that is not there; repaired by recovery as above.
        before_snapshot()
        self._take_snapshot(str(name))
        # After this line: the block is durable and complete; a crash here leaves a block that nobody was told
        # about; repaired by nobody: it is the head.
        with writing(f"checking the devices after block {name}"):
            errors_after = self._write_error_count()
        if errors_after != errors_before:
            raise CommitUnknown(f"a device failed to write while block {name} was made; its content is in doubt")

    def restore_layer(self, name: BlockName | None, ids: Collection[ElementId]) -> None:
        """Make the given documents of the layer what they are in the block (absent where it has none).

        Raises NoSpace or CommitUnknown; a part of the documents may be restored then.
        """
        with writing("restoring the layer"):
            layer = self._open_layer()
            for id in ids:
                found = None if name is None else self._find_document(name, id)
                if found is None:
                    layer.remove_document(id)
                else:
                    layer.put_document(id, *found)
        # After this line: the layer agrees with the block; a crash here leaves any part of it not restored;
        # repaired by recovery, which compares the layer with the head and calls this again.

    def set_attributes(self, id: ElementId, attributes: FileAttributes) -> None:
        """Change owner, mode and mtime of a document in the layer; durable with the next block."""
        with writing(f"changing the attributes of {id}"):
            self._open_layer().set_attributes(id, attributes)
        # After this line: the layer has the attributes; a crash here leaves them or the old ones; repaired by
        # nobody, as for any chmod without fsync.

    def delete_blocks(self, names: Collection[BlockName]) -> None:
        """Delete snapshots, durably on return; those that are gone already are no error. Raises PoolError or NoSpace.

        btrfs frees their room in the background, some time later.
        """
        with writing("deleting snapshots"):
            for name in names:
                with suppress(FileNotFoundError):
                    ioctl.delete_subvolume(self._chain_fd, str(name))
            # Until then a power cut may bring a deleted snapshot back.
            ioctl.sync_filesystem(self._chain_fd)

    def used_by_snapshots(self) -> int:
        """Bytes of metadata in use, all copies: nearly all of it belongs to snapshots."""
        with reading("use of space"):
            return metadata_used(ioctl.space_info(self._chain_fd))

    def wait_freed(self) -> bool:
        """Wait until the room of deleted snapshots is free, a minute at most; returns whether it is."""
        deadline = time.monotonic() + _CLEANING_TIMEOUT_S
        with writing("freeing deleted snapshots"):
            while ioctl.is_cleaning(self._chain_fd):
                if time.monotonic() > deadline:
                    return False
                ioctl.sync_filesystem(self._chain_fd)
                time.sleep(_CLEANING_LOOK_S)
            # what one transaction frees is in use until the next is on disk
            ioctl.sync_filesystem(self._chain_fd)
            ioctl.sync_filesystem(self._chain_fd)
        return True

    def trim(self) -> None:
        """Wait until deleted snapshots are freed, then give what is free back to the device, so that it reads as zeros.

        Raises PoolError where the device cannot do that, or the room is not free within a minute.
        """
        if not self.wait_freed():
            raise PoolError("btrfs has not freed the deleted snapshots yet", hint="trim later: sudo fstrim")
        try:
            ioctl.trim(self._chain_fd)
        except OSError as error:
            raise PoolError(f"the pool's device was not trimmed: {error.strerror}") from error

    def _open_layer(self) -> Layer:
        if self._writer is None:
            self._writer = Layer(self._layer_fd)
        return self._writer

    def _find_document(self, name: BlockName, id: ElementId) -> tuple[bytes, FileAttributes] | None:
        with reading(f"block {name}"):
            block = open_directory(str(name), self._chain_fd)
        try:
            return load_document(block, id)
        except FileNotFoundError:
            return None
        finally:
            os.close(block)

    def _take_snapshot(self, name: str) -> None:
        try:
            ioctl.create_snapshot(self._layer_fd, self._chain_fd, name)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT) and self._is_intact_without(name):
                raise NoSpace(
                    f"the pool is full: block {name} was not made", hint="prune blocks or make the pool larger"
                ) from error
            if error.errno == errno.EROFS:
                raise PoolReadOnly(f"the snapshot of block {name}") from error
            if error.errno == errno.EEXIST:
                raise CommitUnknown(f"{name} exists in the chain already; it was not touched") from error
            raise CommitUnknown(f"the snapshot of block {name} failed: {error.strerror}") from error

    def _is_intact_without(self, name: str) -> bool:
        """Whether the failed snapshot surely left nothing: its name is free and no transaction was aborted.

        btrfs turns the file system read-only when it aborts one, and what is on disk is then anybody's guess.
        """
        try:
            os.stat(name, dir_fd=self._chain_fd, follow_symlinks=False)
        except FileNotFoundError:
            return not os.fstatvfs(self._chain_fd).f_flag & os.ST_RDONLY
        except OSError:
            return False
        return False

    def _write_error_count(self) -> int:
        return sum(ioctl.write_error_count(self._chain_fd, id) for id in self._device_ids)


def _device_ids(fd: int) -> list[int]:
    """The numbers of the file system's devices, which may have gaps after a device was removed."""
    ids = []
    for id in range(1, ioctl.filesystem_info(fd).max_device_id + 1):
        try:
            ioctl.write_error_count(fd, id)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
        else:
            ids.append(id)
    return ids
