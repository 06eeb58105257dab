"""`opfs show`: one block, or one document as it was in a block."""

from __future__ import annotations

import click

from opfs.cli.command import configuration, place_options
from opfs.cli.completions import complete_blocks, complete_elements


@click.command()
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.argument("block", shell_complete=complete_blocks)
@click.argument("element", required=False, metavar="[PLUGIN/ELEMENT]", shell_complete=complete_elements)
def show(as_json: bool, block: str, element: str | None) -> None:
    """Show a block, or a document as it was in it.

    BLOCK is a height, HEAD, HEAD~2, a block's name, the first digits of its hash, a time (2026-11-03T14:00,
    'yesterday', '2 hours ago': the block that was HEAD then) or a label. A document is printed byte for byte.

    \b
    Example:
      opfs show HEAD
      opfs show 'an hour ago'
      opfs show 42 lxc/100
    """
    import json

    from opfs.cli.chain import open_chain
    from opfs.cli.log import event_json, event_row
    from opfs.cli.output import echo, echo_json, echo_rows
    from opfs.core.names import ElementId

    wanted = ElementId.parse(element) if element else None
    chain = open_chain(configuration())
    name = chain.resolve(block)
    if wanted is not None:
        content = chain.document(name, wanted)
        if as_json:
            echo_json({"block": str(name), "element": str(wanted), "document": json.loads(content)})
        else:
            click.echo(content, nl=False)
        return
    header, events = chain.header(name), chain.events_seen(name)
    fields = json.loads(header.encode())
    if as_json:
        echo_json({"block": str(name), "hash": header.hash, **fields, "events": [event_json(name, e) for e in events]})
        return
    echo(f"block {name}", "yellow", bold=True)
    echo_rows([[(key, "bright_black"), (str(value), None)] for key, value in {"hash": header.hash, **fields}.items()])
    click.echo()
    echo_rows([event_row(name, event)[1:] for event in events])
