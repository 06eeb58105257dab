"""The btrfs ioctls that opfs needs, in libbtrfsutil's vocabulary; nothing else of btrfs.

Structures and numbers are those of `linux/btrfs.h`, named at each. The calls go through ctypes because it
releases the GIL for the whole call, which `fcntl.ioctl` does not do for arguments of this size: a snapshot
takes milliseconds, in which the rest of the daemon has to run. Failures are `OSError` with the kernel's errno
and know nothing of commits; callers translate.

Concurrency: stateless; any thread may call anything.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

SUBVOLUME_ROOT_INODE = 256
"""BTRFS_FIRST_FREE_OBJECTID: the root directory of every subvolume has this inode number, and no directory
that an ordinary mkdir made has it."""

SUBVOL_RDONLY = 1 << 1
NAME_MAX_BYTES = 255

_MAGIC = 0x94
_WRITE, _READ = 1, 2


def _number(direction: int, number: int, size: int) -> int:
    """Encode an ioctl request as `_IOC` of asm-generic/ioctl.h does."""
    return direction << 30 | size << 16 | _MAGIC << 8 | number


class _VolArgs(ctypes.Structure):
    """struct btrfs_ioctl_vol_args: 4,096 bytes."""

    _fields_ = (("fd", ctypes.c_int64), ("name", ctypes.c_char * 4088))


class _VolArgsV2(ctypes.Structure):
    """struct btrfs_ioctl_vol_args_v2: 4,096 bytes; the union of quota fields stays zero."""

    _fields_ = (
        ("fd", ctypes.c_int64),
        ("transid", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("unused", ctypes.c_uint64 * 4),
        ("name", ctypes.c_char * 4040),
    )


class _Timespec(ctypes.Structure):
    """struct btrfs_ioctl_timespec."""

    _fields_ = (("sec", ctypes.c_uint64), ("nsec", ctypes.c_uint32))


class _SubvolInfo(ctypes.Structure):
    """struct btrfs_ioctl_get_subvol_info_args."""

    _fields_ = (
        ("treeid", ctypes.c_uint64),
        ("name", ctypes.c_char * 256),
        ("parent_id", ctypes.c_uint64),
        ("dirid", ctypes.c_uint64),
        ("generation", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("uuid", ctypes.c_uint8 * 16),
        ("parent_uuid", ctypes.c_uint8 * 16),
        ("received_uuid", ctypes.c_uint8 * 16),
        ("transids", ctypes.c_uint64 * 4),
        ("times", _Timespec * 4),
        ("reserved", ctypes.c_uint64 * 8),
    )


class _FsInfo(ctypes.Structure):
    """struct btrfs_ioctl_fs_info_args: 1,024 bytes."""

    _fields_ = (
        ("max_id", ctypes.c_uint64),
        ("num_devices", ctypes.c_uint64),
        ("fsid", ctypes.c_uint8 * 16),
        ("nodesize", ctypes.c_uint32),
        ("sectorsize", ctypes.c_uint32),
        ("unused", ctypes.c_uint8 * 984),
    )


class _Search(ctypes.Structure):
    """struct btrfs_ioctl_search_args: 4,096 bytes, a key and a buffer for what is found."""

    _fields_ = (
        ("tree_id", ctypes.c_uint64),
        ("min_objectid", ctypes.c_uint64),
        ("max_objectid", ctypes.c_uint64),
        ("min_offset", ctypes.c_uint64),
        ("max_offset", ctypes.c_uint64),
        ("min_transid", ctypes.c_uint64),
        ("max_transid", ctypes.c_uint64),
        ("min_type", ctypes.c_uint32),
        ("max_type", ctypes.c_uint32),
        ("nr_items", ctypes.c_uint32),
        ("unused", ctypes.c_uint8 * 36),
        ("buffer", ctypes.c_uint8 * 3992),
    )


class _TrimRange(ctypes.Structure):
    """struct fstrim_range of linux/fs.h."""

    _fields_ = (("start", ctypes.c_uint64), ("len", ctypes.c_uint64), ("minlen", ctypes.c_uint64))


class _DevStats(ctypes.Structure):
    """struct btrfs_ioctl_get_dev_stats: 1,032 bytes, as the header explains."""

    _fields_ = (
        ("devid", ctypes.c_uint64),
        ("nr_items", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("values", ctypes.c_uint64 * 5),
        ("unused", ctypes.c_uint64 * 121),
    )


"""Places in `values`: enum btrfs_dev_stat_values."""


class _SpaceInfo(ctypes.Structure):
    """struct btrfs_ioctl_space_info."""

    _fields_ = (("flags", ctypes.c_uint64), ("total_bytes", ctypes.c_uint64), ("used_bytes", ctypes.c_uint64))


_SPACE_SLOTS = 16
"""One per kind of chunk and profile: data, metadata, system, global reserve, each once or, during a
conversion, twice."""


class _SpaceArgs(ctypes.Structure):
    """struct btrfs_ioctl_space_args with room for `_SPACE_SLOTS` answers."""

    _fields_ = (
        ("space_slots", ctypes.c_uint64),
        ("total_spaces", ctypes.c_uint64),
        ("spaces", _SpaceInfo * _SPACE_SLOTS),
    )


_SYNC = _number(0, 8, 0)
_SUBVOL_CREATE = _number(_WRITE, 14, ctypes.sizeof(_VolArgs))
_SPACE_INFO = _number(_READ | _WRITE, 20, 16)  # the size of the struct without its flexible array
_SNAP_CREATE_V2 = _number(_WRITE, 23, ctypes.sizeof(_VolArgsV2))
_SUBVOL_GETFLAGS = _number(_READ, 25, 8)
_FS_INFO = _number(_READ, 31, ctypes.sizeof(_FsInfo))
_GET_DEV_STATS = _number(_READ | _WRITE, 52, ctypes.sizeof(_DevStats))
_GET_SUBVOL_INFO = _number(_READ, 60, ctypes.sizeof(_SubvolInfo))
_SNAP_DESTROY_V2 = _number(_WRITE, 63, ctypes.sizeof(_VolArgsV2))

_TREE_SEARCH = _number(_READ | _WRITE, 17, ctypes.sizeof(_Search))
_FITRIM = 0xC0185879  # _IOWR('X', 121, struct fstrim_range), linux/fs.h

_ROOT_TREE = 1  # BTRFS_ROOT_TREE_OBJECTID
_ORPHANS = (1 << 64) - 5  # BTRFS_ORPHAN_OBJECTID
_ORPHAN_ITEM = 48  # BTRFS_ORPHAN_ITEM_KEY
_MAX_NUMBER = (1 << 64) - 1

_libc = ctypes.CDLL(None, use_errno=True)
_ioctl = _libc.ioctl
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
_ioctl.restype = ctypes.c_int


@dataclass(frozen=True, slots=True)
class SubvolumeInfo:
    """What BTRFS_IOC_GET_SUBVOL_INFO tells; `parent_uuid` is None for what is no snapshot."""

    id: int
    uuid: UUID
    parent_uuid: UUID | None
    is_read_only: bool
    generation: int


@dataclass(frozen=True, slots=True)
class FilesystemInfo:
    """What BTRFS_IOC_FS_INFO tells; sizes in bytes."""

    fsid: UUID
    device_count: int
    max_device_id: int
    node_size: int
    sector_size: int


@dataclass(frozen=True, slots=True)
class SpaceInfo:
    """One kind of chunk: BTRFS_BLOCK_GROUP_* `flags`, bytes allocated to it and bytes of those in use."""

    flags: int
    total_bytes: int
    used_bytes: int


def _call(fd: int, request: int, argument: ctypes.Structure | ctypes.c_uint64 | None, doing: str) -> None:
    if _ioctl(fd, request, None if argument is None else ctypes.byref(argument)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}: {doing}")


def _encoded(name: str) -> bytes:
    encoded = os.fsencode(name)
    if not encoded or len(encoded) > NAME_MAX_BYTES or b"/" in encoded or b"\0" in encoded or name in (".", ".."):
        raise ValueError(f"{name!r} cannot name a subvolume")
    return encoded


def create_subvolume(parent_fd: int, name: str) -> None:
    """Create an empty subvolume in a directory. Not durable until `sync_filesystem`."""
    _call(parent_fd, _SUBVOL_CREATE, _VolArgs(name=_encoded(name)), f"creating the subvolume {name}")


def create_snapshot(source_fd: int, parent_fd: int, name: str, *, read_only: bool = True) -> None:
    """Snapshot the subvolume whose root is `source_fd` as `name` in `parent_fd`; durable on return."""
    flags = SUBVOL_RDONLY if read_only else 0
    args = _VolArgsV2(fd=source_fd, flags=flags, name=_encoded(name))
    _call(parent_fd, _SNAP_CREATE_V2, args, f"taking the snapshot {name}")


def delete_subvolume(parent_fd: int, name: str) -> None:
    """Delete a subvolume or snapshot; it may come back after a power cut until `sync_filesystem`."""
    _call(parent_fd, _SNAP_DESTROY_V2, _VolArgsV2(name=_encoded(name)), f"deleting the subvolume {name}")


def is_read_only(fd: int) -> bool:
    """Whether the subvolume whose root is `fd` is read-only; EINVAL if `fd` is no subvolume root."""
    flags = ctypes.c_uint64()
    _call(fd, _SUBVOL_GETFLAGS, flags, "reading a subvolume's flags")
    return bool(flags.value & SUBVOL_RDONLY)


def subvolume_info(fd: int) -> SubvolumeInfo:
    """Describe the subvolume that `fd` lies in."""
    raw = _SubvolInfo()
    _call(fd, _GET_SUBVOL_INFO, raw, "reading a subvolume's description")
    parent = UUID(bytes=bytes(raw.parent_uuid))
    return SubvolumeInfo(
        id=raw.treeid,
        uuid=UUID(bytes=bytes(raw.uuid)),
        parent_uuid=parent if parent.int else None,
        is_read_only=bool(raw.flags & SUBVOL_RDONLY),
        generation=raw.generation,
    )


def sync_filesystem(fd: int) -> None:
    """Commit the file system's transaction: everything done before is durable on return."""
    _call(fd, _SYNC, None, "syncing the file system")


def filesystem_info(fd: int) -> FilesystemInfo:
    """Describe the file system that `fd` lies in; ENOTTY where it is not btrfs."""
    raw = _FsInfo()
    _call(fd, _FS_INFO, raw, "reading the file system's description")
    return FilesystemInfo(
        fsid=UUID(bytes=bytes(raw.fsid)),
        device_count=raw.num_devices,
        max_device_id=raw.max_id,
        node_size=raw.nodesize,
        sector_size=raw.sectorsize,
    )


class ErrorCounts(NamedTuple):
    """What a device has failed since its counters were last reset: enum btrfs_dev_stat_values."""

    writes: int
    reads: int
    flushes: int
    corruptions: int
    generations: int

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in zip(self._fields, self, strict=True) if count)


def error_counts(fd: int, device_id: int) -> ErrorCounts:
    """The error counters of a device; ENODEV where the file system has no device of that number."""
    raw = _DevStats(devid=device_id, nr_items=len(ErrorCounts._fields))
    _call(fd, _GET_DEV_STATS, raw, f"reading the error counters of device {device_id}")
    return ErrorCounts(*raw.values[: len(ErrorCounts._fields)])


def write_error_count(fd: int, device_id: int) -> int:
    """How often writes to and flushes of a device have failed since its counters were last reset."""
    counts = error_counts(fd, device_id)
    return counts.writes + counts.flushes


def space_info(fd: int) -> list[SpaceInfo]:
    """The chunks of the file system, by kind and profile."""
    raw = _SpaceArgs(space_slots=_SPACE_SLOTS)
    _call(fd, _SPACE_INFO, raw, "reading the use of space")
    found = raw.spaces[: min(raw.total_spaces, _SPACE_SLOTS)]
    return [SpaceInfo(item.flags, item.total_bytes, item.used_bytes) for item in found]


def is_cleaning(fd: int) -> bool:
    """Whether subvolumes were deleted whose room is not free yet: each has an orphan item until it is."""
    raw = _Search(
        tree_id=_ROOT_TREE,
        min_objectid=_ORPHANS,
        max_objectid=_ORPHANS,
        min_type=_ORPHAN_ITEM,
        max_type=_ORPHAN_ITEM,
        max_offset=_MAX_NUMBER,
        max_transid=_MAX_NUMBER,
        nr_items=1,
    )
    _call(fd, _TREE_SEARCH, raw, "looking for deleted subvolumes")
    return bool(raw.nr_items)


def trim(fd: int) -> None:
    """Tell the devices which parts the file system does not use: fstrim(8). EOPNOTSUPP where they do not care."""
    _call(fd, _FITRIM, _TrimRange(len=_MAX_NUMBER), "trimming the file system")
