"""`opfs erase`: the content of one version is destroyed; hashes, proofs and the event that says so stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options, require_root
from opfs.cli.completions import complete_past_elements

if TYPE_CHECKING:
    from opfs.config import Config
    from opfs.core.names import ElementId


@click.command()
@place_options
@click.option("-m", "--message", metavar="MESSAGE", default="", help="Why; one line, which stays for ever.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.argument("version", metavar="PLUGIN/ELEMENT@HEIGHT", shell_complete=complete_past_elements)
def erase(message: str, yes: bool, version: str) -> None:
    """Destroy what a block made of an element, everywhere.

    The document goes out of every block that held it, the archive, the search index and what was kept beside them;
    so does every other version with the same bytes. Nothing brings it back. What stays: that it was there, its hash,
    who set it, the plans and messages of events (they may repeat values), and an event that says who erased it, and
    why. Every proof holds as before. Blocks that held it lose their snapshots and are read from the archive. The
    search index is made again.

    A document that is current is not erased: delete it or write it anew first. Backups, and hosts that have a copy,
    are not reached from here. opfs history shows the heights.

    \b
    Example:
      opfs history lxc/100
      sudo opfs erase lxc/100@41 -m 'held a password'
    """
    from opfs.cli.output import echo
    from opfs.cli.tree import mounted_tree
    from opfs.core.erasure import parse_version
    from opfs.core.printable import printable

    require_root("erase")
    id, height = parse_version(version)
    tree = mounted_tree(configuration())
    if not yes:
        _check_made(configuration(), id, height)
        click.confirm(f"Destroy for ever what block {height} made of {id}?", abort=True)
    # ctl takes a line: what would end it here is white space
    left = tree.tell(f"erase {id}@{height} {' '.join(message.split())}").strip()
    echo(f"{id} of block {height} is erased", "green")
    if left:
        click.echo(f"opfs: {printable(left)}", err=True)


def _check_made(config: Config, id: ElementId, height: int) -> None:
    """Raise NotFound unless the block made a version of the element: nobody is asked about what is not there."""
    from opfs.cli.versions import Versions
    from opfs.errors import NotFound

    if height not in {version.block.height for version in Versions(config, id).all}:
        raise NotFound(f"block {height} made no version of {id}", hint=f"opfs history {id}")
