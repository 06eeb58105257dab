"""Disks by the hundred: copies by reference of one image, each mounted as a pool for a moment.

No programs are run, which would take longer than all of it. Every copy is a file of its own behind a loop device of
its own: exchanging the bytes behind a device gives old superblocks to the next mount whenever some other process is
just looking at all disks of the machine. Blocking.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import time
from contextlib import contextmanager
from errno import EBUSY
from typing import TYPE_CHECKING

from opfs.btrfs.image import MOUNT_OPTIONS, create_image
from opfs.testing.blockdevice.writelog import apply_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from opfs.testing.blockdevice.writelog import Record

ROOM_BYTES = 4 << 30
DEADLINE_S = 120

_POOL_OPTIONS = ",".join(o for o in MOUNT_OPTIONS.split(",") if o not in ("nosuid", "nodev", "noatime"))
_NOSUID_NODEV_NOATIME = 2 | 4 | 1024
_FICLONE = 0x40049409
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_AUTOCLEAR, _DIRECT_IO = 4, 16
_LOOP_CONFIG = struct.Struct("=II5Q4I160s2Q8Q")  # struct loop_config of linux/loop.h

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def room_for_copies(place: Path) -> Iterator[Path]:
    """A btrfs of its own in `place`, for copies by reference; gone at the end."""
    image, mount = place / "copies.img", place / "copies"
    create_image(image, ROOM_BYTES)
    mount.mkdir()
    try:
        with _mounted(image, mount, ""):
            yield mount
    finally:
        image.unlink()


@contextmanager
def mounted_copy(master: int, changes: Iterable[Record], copy: Path, mount: Path) -> Iterator[None]:
    """Copy the open image `master` by reference, make some changes, and mount the result as a pool is mounted."""
    descriptor = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.ioctl(descriptor, _FICLONE, master)
            for record in changes:
                apply_record(descriptor, record)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with _mounted(copy, mount, _POOL_OPTIONS):
            yield
    finally:
        copy.unlink()


@contextmanager
def _mounted(image: Path, place: Path, options: str) -> Iterator[None]:
    device, descriptor = _loop_device(image)
    try:
        arguments = [os.fsencode(device), os.fsencode(place), b"btrfs", _NOSUID_NODEV_NOATIME, options.encode()]
        if _libc.mount(*arguments) != 0:
            raise _error(f"mount {image}")
    finally:
        os.close(descriptor)  # the mount holds the device now; it is freed when that is gone
    try:
        yield
    finally:
        _unmount(place)


def _loop_device(image: Path) -> tuple[str, int]:
    """A free loop device over the image, and a descriptor that holds it."""
    with open(image, "r+b", buffering=0) as backing, open("/dev/loop-control", "r+b", buffering=0) as control:
        config = _LOOP_CONFIG.pack(backing.fileno(), 0, *[0] * 8, _AUTOCLEAR | _DIRECT_IO, b"", *[0] * 10)
        give_up_at = time.monotonic() + DEADLINE_S
        while True:
            device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(descriptor)
                if error.errno != EBUSY or time.monotonic() > give_up_at:
                    raise
            else:
                return device, descriptor


def _unmount(place: Path) -> None:
    """Unmount; a device that somebody looks at is let go of when they have looked."""
    give_up_at = time.monotonic() + DEADLINE_S
    while _libc.umount2(os.fsencode(place), 0) != 0:
        error = _error(f"umount {place}")
        if error.errno != EBUSY or time.monotonic() > give_up_at:
            raise error
        time.sleep(0.01)


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
