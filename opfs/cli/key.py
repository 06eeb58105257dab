"""`opfs key`: the keys that sign the log, and what to do when the log refuses to sign."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from opfs.cli.command import Noun, configuration, place_options, require_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opfs.btrfs.pool import Pool
    from opfs.config import Config
    from opfs.tlog.keys import KeyPair


@click.group(cls=Noun)
def key() -> None:
    """Show, rotate and import the keys that sign the log.

    \b
    Example:
      opfs key show
    """


@key.command()
@place_options
def show() -> None:
    """Print the verifier keys of the log.

    The first two lines are those in use, Ed25519 and ML-DSA-44; the rest are retired ones, with which old
    checkpoints verify. Whoever checks a proof needs them from somebody they trust, not from the proof.

    \b
    Example:
      opfs key show > web1.vkey
    """
    from opfs.fuse.mountpoint import is_answering, is_mounted
    from opfs.tlog.files import VERIFIER_KEYS

    config = configuration()
    if is_mounted(config.mount) and is_answering(config.mount):
        text = (config.mount / "chain" / "log" / VERIFIER_KEYS).read_text()
    else:
        require_root("read the pool of a daemon that is not running")
        with _opened(config) as pool:
            text = (pool.subvolume("@log") / VERIFIER_KEYS).read_text()
    click.echo(text, nl=False)


@key.command()
@place_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def rotate(yes: bool) -> None:
    """Make new keys and sign with them from now on.

    An event names the new verifier keys, in a block that the old keys sign. Give the new ones to everybody who
    verifies; the old ones stay in log.vkey. Without a daemon this happens at its next start.

    \b
    Example:
      sudo opfs key rotate
    """
    from opfs.tlog.keys import KeyPair

    require_root("rotate keys")
    config = configuration()
    if not yes:
        click.confirm("Sign with new keys? Everybody who verifies must be given them.", abort=True)
    _bring_into_use(config, KeyPair.generate)


@key.command(name="import")
@place_options
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def import_(file: str) -> None:
    """Sign with the keys in FILE from now on, e.g. those of a backup.

    FILE has two lines as keys/log.key in the pool has: a private key for Ed25519, then one for ML-DSA-44.

    \b
    Example:
      sudo opfs key import /root/log.key
    """
    from pathlib import Path

    from opfs.tlog.keys import KeyPair

    require_root("import keys")
    text = Path(file).read_text()
    _bring_into_use(configuration(), lambda origin: KeyPair.parse(text, origin))


@key.command()
@place_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def accept_size(yes: bool) -> None:
    """Let a log sign again that refuses to, because it signed a longer or another chain before.

    That is so after a restore from a backup. Whoever has seen the checkpoints that were signed since will see that
    the log took them back, and will be right. Files that contradict the chain are set aside, not deleted.

    \b
    Example:
      sudo opfs down; sudo opfs key accept-size; sudo opfs up
    """
    from opfs.tlog.files import LogFiles
    from opfs.tlog.keys import DIRECTORY, KeyStore

    require_root("accept the size of the log")
    with _opened(configuration()) as pool:
        if not yes:
            click.echo("This log may have signed blocks that are not in its chain any more.", err=True)
            click.echo("Its next checkpoint will contradict them, for everybody to see.", err=True)
            click.confirm("Sign the chain as it is?", abort=True)
        LogFiles(pool.subvolume("@log")).set_aside()
        KeyStore(pool.path / DIRECTORY, pool.info.origin).forget_signed()
    click.echo("accepted: the next start makes the log anew from the blocks")


def _bring_into_use(config: Config, make: Callable[[str], KeyPair]) -> None:
    """Stage the keys of the log whose origin `make` is given, and let the daemon use them if there is one."""
    from opfs.btrfs.pool import load_info
    from opfs.cli.tree import mounted_tree
    from opfs.fuse.mountpoint import is_mounted
    from opfs.tlog.keys import DIRECTORY, KeyStore

    if is_mounted(config.mount):
        tree = mounted_tree(config)
        origin = load_info(config.pool).origin
        KeyStore(config.pool / DIRECTORY, origin).stage(make(origin))
        tree.command("rotate-keys")
        click.echo("the log is signed with new keys: opfs key show")
        return
    with _opened(config) as pool:
        KeyStore(pool.path / DIRECTORY, pool.info.origin).stage(make(pool.info.origin))
    click.echo("the next start of opfs brings the new keys into use")


@contextmanager
def _opened(config: Config) -> Iterator[Pool]:
    """The pool while no daemon runs, its image attached meanwhile if it was not."""
    import os

    from opfs.btrfs.image import attach, detach, image_path
    from opfs.btrfs.pool import Pool, is_pool

    image = image_path(config.pool)
    attached = os.path.lexists(image) and not is_pool(config.pool)
    if attached:
        attach(image, config.pool)
    try:
        with Pool.open(config.pool) as pool:
            yield pool
    finally:
        if attached:
            detach(config.pool, image)
