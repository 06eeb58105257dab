"""The parts of the btrfs adapter that need no btrfs: numbers, sums and the reading of lists."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from opfs.btrfs import ioctl
from opfs.btrfs.image import DEFAULT_MAX_BYTES, MIN_BYTES, default_size, image_path
from opfs.btrfs.ioctl import SpaceInfo
from opfs.btrfs.mounts import parse_mountinfo
from opfs.btrfs.space import space_of
from opfs.errors import PoolError

DATA, SYSTEM, METADATA, RAID1, DUP, RAID1C3, RESERVE = (1 << bit for bit in (0, 1, 2, 4, 5, 9, 49))
GIB = 1 << 30


def test_the_requests_are_those_of_the_kernel_header():
    numbers = {
        "_SYNC": 0x9408,
        "_SUBVOL_CREATE": 0x5000940E,
        "_SPACE_INFO": 0xC0109414,
        "_SNAP_CREATE_V2": 0x50009417,
        "_SUBVOL_GETFLAGS": 0x80089419,
        "_FS_INFO": 0x8400941F,
        "_GET_DEV_STATS": 0xC4089434,
        "_GET_SUBVOL_INFO": 0x81F8943C,
        "_SNAP_DESTROY_V2": 0x5000943F,
    }
    assert {name: getattr(ioctl, name) for name in numbers} == numbers


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "ä" * 128])
def test_a_subvolume_name_that_leads_elsewhere(name):
    with pytest.raises(ValueError, match="cannot name"):
        ioctl.create_subvolume(-1, name)


def test_a_failed_call_keeps_the_kernels_errno(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    os.close(fd)
    with pytest.raises(OSError, match="taking the snapshot x") as caught:
        ioctl.create_snapshot(fd, fd, "x")
    assert caught.value.errno == errno.EBADF


def test_space_counts_copies_and_leaves_the_reserve_alone():
    chunks = [
        SpaceInfo(DATA, 2 * GIB, GIB),
        SpaceInfo(SYSTEM | DUP, GIB // 8, 4096),
        SpaceInfo(METADATA | DUP, GIB, GIB // 4),
        SpaceInfo(RESERVE, GIB // 2, 0),
    ]
    allocated = 2 * GIB + 2 * (GIB // 8) + 2 * GIB
    space = space_of(10 * GIB, chunks)

    assert space.total_bytes == 10 * GIB
    assert space.free_data_bytes == GIB + (10 * GIB - allocated)
    assert space.free_metadata_bytes == 3 * GIB // 4 - GIB // 2 + (10 * GIB - allocated) // 2
    assert space.free_bytes == space.free_metadata_bytes


@pytest.mark.parametrize(("profile", "copies"), [(0, 1), (RAID1, 2), (DUP, 2), (RAID1C3, 3)])
def test_space_of_unallocated_devices_is_shared_by_the_copies(profile, copies):
    space = space_of(13 * GIB, [SpaceInfo(DATA | profile, GIB, GIB)])

    assert space.free_data_bytes == (13 - copies) * GIB // copies


def test_space_of_mixed_chunks():
    space = space_of(GIB, [SpaceInfo(DATA | METADATA, GIB, GIB // 4)])

    assert space.free_data_bytes == space.free_metadata_bytes == 3 * GIB // 4


def test_space_is_never_negative():
    space = space_of(GIB, [SpaceInfo(METADATA | DUP, GIB, GIB), SpaceInfo(RESERVE, GIB // 2, 0)])

    assert (space.free_data_bytes, space.free_metadata_bytes) == (0, 0)


def test_mountinfo_with_optional_fields_and_escapes():
    first, second = parse_mountinfo(
        "36 35 0:25 / /mnt rw,noatime shared:1 master:2 - btrfs /dev/loop0 rw,nobarrier,subvol=/\n"
        "40 36 0:26 /sub /mnt/a\\040b\\134c ro - tmpfs none ro\n"
    )

    assert (first.id, first.mount_point, first.fs_type, first.source) == (36, Path("/mnt"), "btrfs", "/dev/loop0")
    assert first.options == {"rw", "noatime"}
    assert first.super_options == {"rw", "nobarrier", "subvol=/"}
    assert second.mount_point == Path("/mnt/a b\\c")


@pytest.mark.parametrize(
    ("free_bytes", "size"),
    [(1 << 50, DEFAULT_MAX_BYTES), (10 * GIB, 5 * GIB), (10 * GIB + 12345, 5 * GIB), (2 * MIN_BYTES, MIN_BYTES)],
)
def test_the_default_size_of_an_image(free_bytes, size):
    assert default_size(free_bytes) == size


def test_too_little_room_for_an_image():
    with pytest.raises(PoolError, match="511 MiB are free"):
        default_size(2 * MIN_BYTES - 1)


def test_the_image_lies_beside_its_pool():
    assert image_path(Path("/var/lib/op-dbus")) == Path("/var/lib/op-dbus.img")
    assert image_path(Path("/srv/pool.v2")) == Path("/srv/pool.v2.img")
