"""Reading blocks as files: through the mount, where every read is verified, or from the pool of a dead daemon.

`<mount>/chain` and `<pool>/@chain` hold the same files, so one class reads both; what was pruned shows in the mount by
itself, and of a dead daemon's pool is read from its archive. Which block somebody means is decided here for every
command. Needs no lock: a block never changes. Synchronous; for one-shot commands.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from bisect import bisect_right
from itertools import takewhile
from typing import TYPE_CHECKING

import click

from opfs.archive.packs import ARCHIVE, Archive
from opfs.archive.store import KeptStore
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.btrfs.tree import open_directory, scan_documents
from opfs.commit.timeline import Timeline
from opfs.core.event import decode_event_line, decode_events
from opfs.core.header import BlockHeader
from opfs.core.label import is_label, label_id, labelled_block
from opfs.core.moments import AtHeight, AtTime, is_when, parse_when
from opfs.core.names import BlockName, ElementId
from opfs.errors import AccessDenied, Erased, IntegrityError, InvalidRequest, NotFound, OpfsError, PoolError
from opfs.fuse.mountpoint import is_answering, is_mounted
from opfs.ports import Erasure, FileAttributes, StoredDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opfs.config import Config
    from opfs.core.event import Event

_ANCESTOR = re.compile(r"HEAD(?:~(\d{1,9})|(~|\^*))\Z", re.ASCII)


class _Clock:
    def now_ns(self) -> int:
        return time.time_ns()


class Chain:
    """The blocks below one directory.

    The files of their log are in `log_directory`. Where they are seen through a `mount`, it tells what labels mean and
    which events somebody else than root may see; else the blocks do. Blocks that were pruned are read from `kept`.
    """

    def __init__(
        self,
        directory: Path,
        log_directory: Path | None = None,
        mount: Path | None = None,
        kept: KeptStore | None = None,
    ) -> None:
        """Read the list of blocks, once; raises NotFound or AccessDenied."""
        self._directory = directory
        self.log_directory = log_directory or directory / "log"
        self._mount = mount
        self._kept = kept
        try:
            names = os.listdir(directory)
        except OSError as error:
            raise _translated(error, f"the chain {directory}") from error
        self.blocks: list[BlockName] = []
        for name in names:
            try:
                self.blocks.append(BlockName.parse(name))
            except InvalidRequest:
                continue  # HEAD, log
        if kept is not None:
            self.blocks = list({*self.blocks, *kept.list_blocks()})
        self.blocks.sort()
        if not self.blocks:
            raise NotFound(f"there is no block in {directory}")
        self._timeline = Timeline(lambda: self.blocks, lambda block: self.header(block).encode(), _Clock())

    @property
    def head(self) -> BlockName:
        return self.blocks[-1]

    def path(self, block: BlockName) -> Path:
        """The block's directory; raises NotFound for one that has no snapshot and is not seen through the mount."""
        if self._kept is not None and self._kept.is_pruned(block):
            raise NotFound(f"block {block} was pruned; its files show in the mount only", hint="sudo opfs mount")
        return self._directory / str(block)

    def resolve(self, reference: str) -> BlockName:
        """The block that is meant: HEAD, HEAD~2, HEAD^, a label, or anything that opfs.core.moments understands.

        Raises NotFound, or InvalidRequest where it may mean several.
        """
        if match := _ANCESTOR.match(reference):
            steps = match[1] or match[2] or "0"
            height = self.head.height - (int(steps) if steps.isdecimal() else len(steps))
            if height < 0:
                raise NotFound(f"{reference!r} is before the first block", hint=f"there is 0 to {self.head.height}")
            return self._timeline.block_of(AtHeight(height))
        if is_when(reference):
            when = parse_when(reference, time.time_ns())
            block = self._timeline.block_of(when)
            if isinstance(when, AtTime) and self._is_before_a_gap(block):
                raise NotFound(f"blocks after {block} are missing, and one of them is meant", hint="sudo opfs verify")
            return block
        labelled = self._labelled(reference) if is_label(reference) else None
        if labelled is None:
            low, high = self.blocks[0].height, self.head.height
            raise NotFound(
                f"{reference!r} is neither a block nor a time nor a label",
                hint=f"give a height from {low} to {high}, HEAD~1, yesterday, 2026-11-03T14:00, or a label",
            )
        return labelled

    def _is_before_a_gap(self, block: BlockName) -> bool:
        after = bisect_right(self.blocks, block)
        return after < len(self.blocks) and self.blocks[after].height != block.height + 1

    def _labelled(self, name: str) -> BlockName | None:
        if self._mount is not None:
            try:
                return BlockName.parse(os.path.basename(os.readlink(self._mount / "at" / name)))
            except FileNotFoundError:
                return None
            except OSError as error:
                raise _translated(error, f"the label {name}") from error
        id = label_id(name)
        return next((labelled_block(event) for _, event in self.newest_first() if event.id == id), None)

    def block_of_event(self, seq: int) -> BlockName:
        """The block that records the event of that number; raises NotFound."""
        after = bisect_right(self.blocks, seq, key=lambda block: self.header(block).events_first)
        for block in reversed(self.blocks[:after]):  # blocks without events begin with the number of the next event
            header = self.header(block)
            if header.events_count:
                if seq < header.events_first + header.events_count:
                    return block
                break
        newest = self.header(self.head)
        raise NotFound(
            f"there is no event {seq} in the blocks that are here",
            hint=f"events are counted from 0, up to {newest.events_first + newest.events_count - 1} by now",
        )

    def header(self, block: BlockName) -> BlockHeader:
        """Raises IntegrityError where the bytes are not those the block's name commits to."""
        header = BlockHeader.decode(self._load(block, "block.json", KeptStore.read_header))
        if header.name != block:
            raise IntegrityError(f"the header of block {block} belongs to block {header.name}")
        return header

    def events(self, block: BlockName) -> tuple[Event, ...]:
        """Every event of the block; raises AccessDenied for anybody but root."""
        return decode_events(self._load(block, "events.jsonl", KeptStore.read_events))

    def events_seen(self, block: BlockName) -> tuple[Event, ...]:
        """The block's events of those documents that the caller may read."""
        if self._mount is None or os.geteuid() == 0:
            return self.events(block)
        first = self.header(block).events_first
        try:
            with (self._mount / f"events@{first}").open("rb") as stream:
                return tuple(
                    event for _, event in takewhile(lambda told: told[0] == block, map(decode_event_line, stream))
                )
        except OSError as error:
            raise _translated(error, f"the events of block {block}") from error

    def document(self, block: BlockName, id: ElementId) -> bytes:
        """The bytes of the document; raises NotFound where the block has none."""
        return self._load(block, f"state/{id.path}", lambda kept, name: kept.read_document(name, id))

    def documents(self, block: BlockName) -> Iterator[StoredDocument]:
        """Every document of the block, in any order; raises AccessDenied where one may not be read.

        Attributes of one that was erased are not known.
        """
        if self._kept is not None and self._kept.is_pruned(block):
            yield from self._kept.scan_block(block)
            return
        try:
            descriptor = open_directory(str(self._directory / str(block)))
            try:
                yield from scan_documents(descriptor, lambda id: self._erased(block, id))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _translated(error, f"a document of block {block}") from error

    def _erased(self, block: BlockName, id: ElementId) -> StoredDocument:
        """What the mount knows of a document that was erased: whoever uses the hash checks it against the block's."""
        history = self._directory.parent / "history" / id.plugin / id.element / ".versions"
        versions = [json.loads(line) for line in history.read_text().splitlines()]
        held = [version for version in versions if version["height"] <= block.height]
        if not held or held[-1]["erased"] is None:
            raise Erased(f"{id} of block {block} was erased", hint="opfs history tells by whom")
        erasure = Erasure(bytes.fromhex(held[-1]["content"]), BlockName.parse(held[-1]["erased"]))
        return StoredDocument(id, b"", FileAttributes(0, 0, 0, 0), erasure)

    def newest_first(self) -> Iterator[tuple[BlockName, Event]]:
        """Every event, the latest first."""
        for block in reversed(self.blocks):
            for event in reversed(self.events(block)):
                yield block, event

    def _load(self, block: BlockName, path: str, from_archive: Callable[[KeptStore, BlockName], bytes]) -> bytes:
        if self._kept is not None and self._kept.is_pruned(block):
            return from_archive(self._kept, block)
        try:
            return (self._directory / str(block) / path).read_bytes()
        except OSError as error:
            raise _translated(error, f"{path} of block {block}") from error


def open_chain(config: Config) -> Chain:
    """The chain through the mount, or straight from the pool where the daemon is down; raises PoolError."""
    if is_mounted(config.mount) and is_answering(config.mount):
        return Chain(config.mount / "chain", mount=config.mount)
    below = config.pool / "@chain"
    if not below.is_dir():
        raise PoolError(
            f"opfs is not mounted on {config.mount}, and there is no pool in {config.pool}",
            hint="start it: sudo opfs up",
        )
    click.echo(f"opfs: the daemon is down; reading {config.pool} without verifying the documents", err=True)
    archive = config.pool / "@log" / ARCHIVE
    kept = KeptStore(BtrfsSnapshotStore(config.pool), Archive(archive)) if archive.is_dir() else None
    return Chain(below, config.pool / "@log", kept=kept)


def _translated(error: OSError, what: str) -> OpfsError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"{what} does not exist")
    if error.errno == errno.EACCES:
        return AccessDenied(f"{what} may not be read by you", hint="owner and mode of the document decide")
    if error.errno == errno.ENODATA:
        return Erased(f"{what} was erased", hint="opfs history tells by whom")
    if error.errno == errno.EUCLEAN:
        return IntegrityError(f"{what} is not what the block's hashes commit to")
    return PoolError(f"{what} cannot be read: {error.strerror}")
