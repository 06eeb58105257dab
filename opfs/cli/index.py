"""`opfs index`: the search index, which is derived from the chain and can be made again."""

from __future__ import annotations

import click

from opfs.cli.command import configuration, place_options


@click.group()
def index() -> None:
    """Look after the search index.

    \b
    Example:
      sudo opfs index rebuild
    """


@index.command()
@place_options
def rebuild() -> None:
    """Make the index again from the chain.

    The daemon does it in the background; searches wait for it.

    \b
    Example:
      sudo opfs index rebuild
    """
    from opfs.cli.tree import mounted_tree

    mounted_tree(configuration()).command("rebuild-index")
    click.echo("the index is being made again; opfs status shows how far it is")
