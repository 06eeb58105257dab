"""Making the place ready before the daemon starts: the pool, its image, the mount point.

Decides between an existing btrfs file system and an image of its own; the work is opfs.btrfs'. Holds no
lock afterwards: the daemon opens and locks the pool itself. Synchronous.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

from opfs.btrfs.image import attach, check_mount_point, create_image, image_path
from opfs.btrfs.mounts import mount_of
from opfs.btrfs.pool import Pool, is_pool, load_info
from opfs.errors import InvalidRequest, PoolError
from opfs.fuse.mountpoint import MOUNT_TYPE, mount_at, recover_stale_mount

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opfs.config import Config

    Say = Callable[[str], None]


def make_ready(config: Config, say: Say, *, create: bool) -> None:
    """Attach the pool's image and clear the mount point; with `create`, make the pool where there is none.

    Raises PoolError or InvalidRequest with the reason the place cannot be used.
    """
    image = image_path(config.pool)
    if os.path.lexists(image):
        attach(image, config.pool)
    has_pool = is_pool(config.pool)
    if has_pool:
        _check_origin(config)
    elif not create:
        raise PoolError(f"there is no pool in {config.pool}", hint="make one with: opfs up")
    if recover_stale_mount(config.mount):
        say(f"{config.mount} was still mounted by a daemon that is gone: unmounted")
    _make_mount_point(config.mount)
    if not has_pool:  # last, so that nothing is left where the place is wrong
        _make_pool(config, image, say)


def _make_pool(config: Config, image: Path, say: Say) -> None:
    origin = config.origin or f"{socket.gethostname()}/opfs"
    if not os.path.lexists(image) and (config.image_size_bytes is not None or not _is_on_btrfs(config.pool)):
        image.parent.mkdir(parents=True, exist_ok=True)
        check_mount_point(config.pool)
        size_bytes = create_image(image, config.image_size_bytes)
        say(f"made {image}: an image of {size_bytes >> 20} MiB that takes space as it fills")
        attach(image, config.pool)
        say(f"mounted it on {config.pool}")
    else:
        config.pool.mkdir(mode=0o700, parents=True, exist_ok=True)
    Pool.create(config.pool, origin=origin, created_ns=time.time_ns()).close()
    say(f"made a pool in {config.pool}; its log is named {origin}")


def _is_on_btrfs(path: Path) -> bool:
    """Whether `path`, or where it would be made, is on btrfs."""
    while not path.exists():
        path = path.parent
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        mount = mount_of(descriptor)
    finally:
        os.close(descriptor)
    return mount is not None and mount.fs_type == "btrfs"


def _check_origin(config: Config) -> None:
    named = load_info(config.pool).origin
    if config.origin is not None and config.origin != named:
        raise InvalidRequest(
            f"the log of the pool {config.pool} is named {named}, not {config.origin}",
            hint="the name is fixed when the pool is made; leave --origin away",
        )


def _make_mount_point(directory: Path) -> None:
    mount = mount_at(directory)
    if mount is not None and mount.type == MOUNT_TYPE:
        raise PoolError(f"another pool is mounted on {directory}", hint="give another --mount, or opfs umount first")
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise PoolError(f"{directory} cannot be the mount point: {error.strerror}") from error
