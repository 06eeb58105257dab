"""`opfs down` and `opfs umount`: end the daemon and free what it used; the data stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options, require_root

if TYPE_CHECKING:
    from opfs.config import Config


@click.command()
@place_options
def down() -> None:
    """Stop the daemon, free the mount and the loop device; keep the data.

    Containers and whatever else was applied go on. `opfs up` continues where this left off.

    \b
    Example:
      sudo opfs down
    """
    require_root("stop opfs")
    config = configuration()
    stopped = _stop(config)
    freed = _free_image(config)
    if not stopped and not freed:
        click.echo(f"opfs is down already: nothing on {config.mount}, no daemon for {config.pool}")


@click.command()
@place_options
def umount() -> None:
    """Stop the daemon; the pool stays mounted.

    For what works on a pool without its daemon.

    \b
    Example:
      sudo opfs umount
    """
    require_root("unmount opfs")
    config = configuration()
    if not _stop(config):
        click.echo(f"nothing to unmount: no daemon for {config.pool}, nothing on {config.mount}")


def _stop(config: Config) -> bool:
    from opfs.cli.process import stop_daemon
    from opfs.fuse.mountpoint import recover_stale_mount

    pid = stop_daemon(config.pool)
    if pid is not None:
        click.echo(f"stopped the daemon (pid {pid}) and unmounted {config.mount}")
    stale = recover_stale_mount(config.mount)
    if stale:
        click.echo(f"unmounted {config.mount}, which a dead daemon had left")
    return pid is not None or stale


def _free_image(config: Config) -> bool:
    from opfs.btrfs.image import detach, image_path
    from opfs.btrfs.mounts import mount_at

    image = image_path(config.pool)
    if not image.exists() or mount_at(config.pool) is None:
        return False
    detach(config.pool, image)
    click.echo(f"freed the loop device of {image}; the data is in it")
    return True
