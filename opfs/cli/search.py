"""`opfs search`: changes whose meaning is near a text, read from one file of the tree."""

from __future__ import annotations

import click

from opfs.cli.command import configuration, place_options


@click.command()
@place_options
@click.option("-n", "limit", type=click.IntRange(1), default=10, show_default=True, help="How many hits.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per hit.")
@click.argument("text", nargs=-1, required=True)
def search(limit: int, as_json: bool, text: tuple[str, ...]) -> None:
    """Find changes by meaning.

    A row per hit, best first: score, block, time, element, what was done, by whom, what changed.

    \b
    Example:
      opfs search web server memory
    """
    import json

    from opfs.cli.output import echo_rows, op_colour, short_time
    from opfs.cli.tree import mounted_tree

    lines = mounted_tree(configuration()).search(" ".join(text)).splitlines()[:limit]
    if as_json:
        for line in lines:
            click.echo(line)
        return
    hits = [json.loads(line) for line in lines]
    echo_rows(
        [
            [
                (f"{hit['score']:.3f}", "green"),
                (f"{hit['block']:08d}", "yellow"),
                (short_time(hit["time"]), "bright_black"),
                (f"{hit['plugin']}/{hit['element']}", None),
                (hit["op"], op_colour(hit["op"])),
                (hit["actor"], "cyan"),
                (hit["summary"], None),
            ]
            for hit in hits
        ]
    )
