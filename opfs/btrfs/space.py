"""How much room a pool has left, from the chunks that btrfs reports; pure.

statvfs is no guide: it goes on showing free space when metadata is full, and then every rename fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.btrfs.ioctl import SpaceInfo

# Flags of chunks: BTRFS_BLOCK_GROUP_* of linux/btrfs_tree.h.
_DATA, _METADATA = 1 << 0, 1 << 2
_TWO_COPIES = 1 << 4 | 1 << 5 | 1 << 6  # raid1, dup, raid10
_THREE_COPIES, _FOUR_COPIES = 1 << 9, 1 << 10
_GLOBAL_RESERVE = 1 << 49


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of the whole device, and bytes that documents and their metadata can still take.

    Both kinds of free space count the unallocated rest of the device, each for itself.
    """

    total_bytes: int
    free_data_bytes: int
    free_metadata_bytes: int

    @property
    def free_bytes(self) -> int:
        """What is left until the first kind runs out."""
        return min(self.free_data_bytes, self.free_metadata_bytes)


def space_of(total_bytes: int, chunks: Sequence[SpaceInfo]) -> Space:
    """Sum up the chunks of a file system whose devices have `total_bytes` together."""
    free = {_DATA: 0, _METADATA: 0}
    copies = {_DATA: 1, _METADATA: 1}
    allocated = reserve = 0
    for chunk in chunks:
        if chunk.flags & _GLOBAL_RESERVE:  # a part of the metadata chunks that only deletions may use
            reserve += chunk.total_bytes
            continue
        allocated += chunk.total_bytes * _copies(chunk.flags)
        for kind in (_DATA, _METADATA):  # both, on a file system with mixed chunks
            if chunk.flags & kind:
                free[kind] += chunk.total_bytes - chunk.used_bytes
                copies[kind] = max(copies[kind], _copies(chunk.flags))
    unallocated = max(0, total_bytes - allocated)
    return Space(
        total_bytes=total_bytes,
        free_data_bytes=free[_DATA] + unallocated // copies[_DATA],
        free_metadata_bytes=max(0, free[_METADATA] - reserve) + unallocated // copies[_METADATA],
    )


def metadata_used(chunks: Sequence[SpaceInfo]) -> int:
    """Bytes of the devices that metadata takes."""
    return sum(
        chunk.used_bytes * _copies(chunk.flags)
        for chunk in chunks
        if chunk.flags & _METADATA and not chunk.flags & _GLOBAL_RESERVE
    )


def used_bytes(chunks: Sequence[SpaceInfo]) -> int:
    """Bytes of the devices that data and metadata take together, every copy counted."""
    return sum(chunk.used_bytes * _copies(chunk.flags) for chunk in chunks if not chunk.flags & _GLOBAL_RESERVE)


def _copies(flags: int) -> int:
    """How many bytes of the devices a chunk takes for each of its own; parity profiles count as one."""
    if flags & _FOUR_COPIES:
        return 4
    if flags & _THREE_COPIES:
        return 3
    return 2 if flags & _TWO_COPIES else 1
