"""`opfs commit`: the block of what is pending, before its time."""

from __future__ import annotations

import click

from opfs.cli.command import configuration, place_options, require_root


@click.command()
@place_options
def commit() -> None:
    """Make a block of what is pending, now.

    Only of use where blocks are made at intervals (snapshot_interval): there a write is durable in the journal when it
    is answered, and its block follows later. Prints the newest block; where nothing is pending, nothing is made.

    \b
    Example:
      sudo opfs commit
    """
    from opfs.cli.output import echo
    from opfs.cli.tree import mounted_tree

    require_root("make a block before its time")
    echo(mounted_tree(configuration()).commit(), "yellow")
