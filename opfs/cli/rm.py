"""`opfs rm`: a delete that is confirmed first; otherwise the same as rm(1) below the mount."""

from __future__ import annotations

import click

from opfs.cli.command import configuration, place_options
from opfs.cli.completions import complete_elements


@click.command()
@place_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.argument("element", metavar="PLUGIN/ELEMENT", shell_complete=complete_elements)
def rm(yes: bool, element: str) -> None:
    """Delete an element, asking first.

    The plugin removes it from the host, a container with its data, and a block records that. Its documents
    stay in the chain.

    \b
    Example:
      sudo opfs rm lxc/100
    """
    from opfs.cli.tree import mounted_tree
    from opfs.core.names import ElementId

    id = ElementId.parse(element)
    tree = mounted_tree(configuration())
    tree.check_element(id)
    if not yes:
        click.confirm(f"Delete {id} from this host?", abort=True)
    tree.command(f"confirm delete {id}")
    tree.remove(id)
    click.echo(f"deleted {id}")
