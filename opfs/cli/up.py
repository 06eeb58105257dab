"""`opfs up` and `opfs mount`: make the place ready and run the daemon, here or in the background."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options, require_root

if TYPE_CHECKING:
    from opfs.config import Config


@click.command()
@place_options
@click.option("--size", metavar="SIZE", help="Size of a new pool image, e.g. 8G (OPFS_IMAGE_SIZE).")
@click.option("--origin", metavar="NAME", help="Name of a new pool's log (OPFS_ORIGIN).  [default: HOSTNAME/opfs]")
@click.option("--foreground", is_flag=True, help="Stay, log to stderr: for systemd and debugging.")
def up(size: str | None, origin: str | None, foreground: bool) -> None:
    """Make the pool if there is none, mount it, start the daemon.

    Where the pool's directory is not on btrfs, a sparse image is made beside it and loop-mounted. Returns
    when the mount answers; run again, it says that all is up.

    \b
    Example:
      sudo opfs up --size 8G
    """
    require_root("start opfs")
    config = configuration(image_size_bytes=size, origin=origin)
    arguments = [*(["--size", size] if size else []), *(["--origin", origin] if origin else [])]
    _start(config, arguments, foreground=foreground, create=True)


@click.command()
@place_options
@click.option("--foreground", is_flag=True, help="Stay, log to stderr: for systemd and debugging.")
def mount(foreground: bool) -> None:
    """Mount an existing pool, also after a crash.

    Like `opfs up`, but a pool that is not there is an error instead of a new pool. What a killed daemon left
    mounted is taken away first.

    \b
    Example:
      sudo opfs mount --pool /srv/opfs --mount /mnt/op
    """
    require_root("mount opfs")
    _start(configuration(), [], foreground=foreground, create=False)


def _start(config: Config, arguments: list[str], *, foreground: bool, create: bool) -> None:
    from opfs.cli.process import find_daemon, is_serving, settled_daemon, start_in_background
    from opfs.errors import PoolError

    pid = settled_daemon(config.pool)
    if pid is not None:
        if foreground or not is_serving(config.pool, config.mount):
            raise PoolError(
                f"the pool {config.pool} is in use by pid {pid}",
                hint=f"if it is not on {config.mount}, give its --mount; opfs down ends it",
            )
        click.echo(f"opfs is up already on {config.mount} (pid {pid})")
    elif foreground:
        _run(config, create=create)
        return
    else:
        start_in_background(config, "up" if create else "mount", arguments)
        click.echo(f"opfs is up on {config.mount} (pid {find_daemon(config.pool)}, log {config.log_file})")
    if create:
        _show_first_steps(config)


def _run(config: Config, *, create: bool) -> None:
    """Be the daemon until a signal ends it."""
    from opfs.cli.privileges import drop_privileges

    drop_privileges()  # before anything is imported that starts threads, which keep theirs
    from opfs.cli.notify import notify
    from opfs.cli.place import make_ready
    from opfs.daemon import run

    _start_logging(config.log_level)

    def say(message: str) -> None:
        notify(f"STATUS={message}")
        logging.getLogger("opfs").info("%s", message)

    make_ready(config, say, create=create)
    run(config, on_ready=lambda: notify(f"READY=1\nSTATUS=serving {config.mount}"))
    notify("STOPPING=1")


def _start_logging(level: str) -> None:
    from opfs.daemon.journald import SOCKET, JournalHandler, PrefixedFormatter, is_journal

    stream = os.environ.get("JOURNAL_STREAM", "")
    plain = logging.StreamHandler()
    # journald has its own clock
    layout = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    plain.setFormatter(PrefixedFormatter() if stream else logging.Formatter(layout))
    is_native = bool(stream) and is_journal(sys.stderr.fileno(), stream) and SOCKET.exists()
    logging.basicConfig(level=level.upper(), handlers=[JournalHandler() if is_native else plain])


def _show_first_steps(config: Config) -> None:
    """Three commands to paste, for this mount and for whoever called."""
    document = shlex.quote('{"hostname": "web", "memory": 512, "state": "running"}')
    element = shlex.quote(f"{config.mount}/state/lxc/100.json")
    # who came through sudo has a shell that may not write below /state
    through_sudo = os.environ.get("SUDO_UID", "0") != "0"
    write = f"| sudo tee {element}" if through_sudo else f"> {element}"
    click.echo()
    click.echo("Try it:")
    click.echo(f"  echo {document} {write}")
    click.echo(f"  ls {shlex.quote(f'{config.mount}/chain')}")
    click.echo(f"  cat {shlex.quote(f'{config.mount}/search/similar/web server memory')}")
