"""Reading blocks as files: through the mount, where every read is verified, or from the pool of a dead daemon.

`<mount>/chain` and `<pool>/@chain` hold the same files, so one class reads both. Needs no lock: a block never
changes. Synchronous; for one-shot commands.
"""

from __future__ import annotations

import errno
import os
import re
from bisect import bisect_right
from typing import TYPE_CHECKING

import click

from opfs.btrfs.tree import open_directory, scan_documents
from opfs.core.event import decode_events
from opfs.core.header import BlockHeader
from opfs.core.names import BlockName, ElementId
from opfs.core.timestamp import parse_time
from opfs.errors import AccessDenied, IntegrityError, InvalidRequest, NotFound, OpfsError, PoolError
from opfs.fuse.mountpoint import is_answering, is_mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opfs.config import Config
    from opfs.core.event import Event

_ANCESTOR = re.compile(r"HEAD(?:~(\d{1,9})?|(\^*))\Z")


class Chain:
    """The blocks below one directory; the files of their log are in `log_directory`."""

    def __init__(self, directory: Path, log_directory: Path | None = None) -> None:
        """Read the list of blocks, once; raises NotFound or AccessDenied."""
        self._directory = directory
        self.log_directory = log_directory or directory / "log"
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
        self.blocks.sort()
        if not self.blocks:
            raise NotFound(f"there is no block in {directory}")

    @property
    def head(self) -> BlockName:
        return self.blocks[-1]

    def resolve(self, reference: str) -> BlockName:
        """The block that a height, a name, a hash prefix, HEAD, HEAD~2 or HEAD^ means; raises NotFound."""
        low, high = self.blocks[0].height, self.head.height
        hint = f"give a height from {low} to {high}, HEAD, HEAD~1 or the first 4 or more digits of a hash"
        if match := _ANCESTOR.match(reference):
            back = len(match[2]) if match[2] is not None else int(match[1] or "1")
            found = [block for block in self.blocks if block.height == high - back]
        else:
            found = [block for block in self.blocks if str(block) == reference]
            if not found and reference.isascii() and reference.isdigit():
                found = [block for block in self.blocks if block.height == int(reference)]
            if not found and re.fullmatch(r"[0-9a-f]{4,64}", reference):
                found = [block for block in self.blocks if block.short_hash.startswith(reference[:12])]
        if not found:
            raise NotFound(f"{reference!r} is no block of this chain", hint=hint)
        if len(found) > 1:
            raise InvalidRequest(f"{reference!r} means {len(found)} blocks", hint="give more digits of the hash")
        return found[0]

    def block_at(self, time_ns: int) -> BlockName:
        """The block that was HEAD at that time; raises NotFound before the first."""
        after = bisect_right(self.blocks, time_ns, key=lambda block: parse_time(self.header(block).time))
        if after == 0:
            raise NotFound(f"the chain begins later, at {self.header(self.blocks[0]).time}")
        return self.blocks[after - 1]

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
        header = BlockHeader.decode(self._load(block, "block.json"))
        if header.name != block:
            raise IntegrityError(f"the header of block {block} belongs to block {header.name}")
        return header

    def events(self, block: BlockName) -> tuple[Event, ...]:
        return decode_events(self._load(block, "events.jsonl"))

    def document(self, block: BlockName, id: ElementId) -> bytes:
        """The bytes of the document; raises NotFound where the block has none."""
        return self._load(block, f"state/{id.path}")

    def documents(self, block: BlockName) -> Iterator[tuple[ElementId, bytes]]:
        """Every document of the block, in any order; raises AccessDenied where one may not be read."""
        try:
            descriptor = open_directory(str(self._directory / str(block)))
            try:
                for document in scan_documents(descriptor):
                    yield document.id, document.content
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _translated(error, f"a document of block {block}") from error

    def newest_first(self) -> Iterator[tuple[BlockName, Event]]:
        """Every event, the latest first."""
        for block in reversed(self.blocks):
            for event in reversed(self.events(block)):
                yield block, event

    def _load(self, block: BlockName, path: str) -> bytes:
        try:
            return (self._directory / str(block) / path).read_bytes()
        except OSError as error:
            raise _translated(error, f"{path} of block {block}") from error


def open_chain(config: Config) -> Chain:
    """The chain through the mount, or straight from the pool where the daemon is down; raises PoolError."""
    if is_mounted(config.mount) and is_answering(config.mount):
        return Chain(config.mount / "chain")
    below = config.pool / "@chain"
    if not below.is_dir():
        raise PoolError(
            f"opfs is not mounted on {config.mount}, and there is no pool in {config.pool}",
            hint="start it: sudo opfs up",
        )
    click.echo(f"opfs: the daemon is down; reading {config.pool} without verifying the documents", err=True)
    return Chain(below, config.pool / "@log")


def _translated(error: OSError, what: str) -> OpfsError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"{what} does not exist")
    if error.errno == errno.EACCES:
        return AccessDenied(f"{what} may not be read by you", hint="its document's owner and mode decide")
    if error.errno == errno.EUCLEAN:
        return IntegrityError(f"{what} is not what the block's hashes commit to")
    return PoolError(f"{what} cannot be read: {error.strerror}")
