"""`opfs blame`: who last set each key of a document, and when."""

from __future__ import annotations

import click

from opfs.cli.command import configuration, place_options
from opfs.cli.completions import complete_elements


@click.command()
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per key.")
@click.argument("element", metavar="PLUGIN/ELEMENT", shell_complete=complete_elements)
def blame(as_json: bool, element: str) -> None:
    """Show who last set each key of a document.

    A row per key: the block since which it has its value, when and by whom that was made, the key as a JSON
    pointer, and the value. Arrays count as one value. Versions that you may not read are passed over.

    \b
    Example:
      opfs blame lxc/100
    """
    from opfs.cli.output import echo_json, echo_rows, short_time
    from opfs.cli.versions import Versions
    from opfs.core.blame import blame as find
    from opfs.core.names import ElementId
    from opfs.core.printable import show_json

    id = ElementId.parse(element)
    versions = Versions(configuration(), id)
    versions.check_there()
    found = find(versions.of_blocks())
    if as_json:
        for pointer, (value, version) in found.items():
            fields = {"block": str(version.block), "time": version.time, "op": version.op, "user": version.user}
            echo_json({"pointer": pointer, "value": value, **fields, "message": version.message})
        return
    echo_rows(
        [
            [
                (str(version.block), "yellow"),
                (short_time(version.time), "bright_black"),
                (version.user, "cyan"),
                (pointer, None),
                (show_json(value, 200), None),
            ]
            for pointer, (value, version) in found.items()
        ]
    )
