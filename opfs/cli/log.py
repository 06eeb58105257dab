"""`opfs log`: what changed, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options
from opfs.cli.completions import complete_elements

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.cli.chain import Chain
    from opfs.cli.output import Cell
    from opfs.core.event import Event
    from opfs.core.names import BlockName, ElementId


@click.command()
@place_options
@click.option("-n", "limit", type=click.IntRange(1), default=50, show_default=True, help="How many changes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per change.")
@click.argument("element", required=False, metavar="[PLUGIN/ELEMENT]", shell_complete=complete_elements)
def log(limit: int, as_json: bool, element: str | None) -> None:
    """List what changed, newest first.

    A row per change: block, time, element, what was done, by whom, and how.

    \b
    Example:
      opfs log -n 10 lxc/100
    """
    from itertools import islice

    from opfs.cli.chain import open_chain
    from opfs.cli.output import echo_json, echo_rows
    from opfs.core.names import ElementId

    wanted = ElementId.parse(element) if element else None
    chain = open_chain(configuration())
    found = islice(_events(chain, wanted), limit)
    if as_json:
        for block, event in found:
            echo_json(event_json(block, event))
        return
    rows = [event_row(block, event) for block, event in found]
    if not rows:
        click.echo(f"opfs: no change{f' of {wanted}' if wanted else ''} that you may see", err=True)
    echo_rows(rows)


def _events(chain: Chain, wanted: ElementId | None) -> Iterator[tuple[BlockName, Event]]:
    from opfs.cli.output import with_progress

    for block in with_progress(reversed(chain.blocks), len(chain.blocks), "reading blocks"):
        for event in reversed(chain.events_seen(block)):
            if wanted is None or event.id == wanted:
                yield block, event


def event_row(block: BlockName, event: Event) -> list[Cell]:
    """The cells of one change."""
    from opfs.cli.output import op_colour, short_time

    steps = "; ".join(str(step.get("summary", "")) for step in event.plan)
    told = " · ".join(text for text in (event.message, steps) if text)
    return [
        (str(block), "yellow"),
        (short_time(event.time), "bright_black"),
        (str(event.id), None),
        (event.op, op_colour(event.op)),
        (str(event.actor.get("user") or event.actor.get("uid", "")), "cyan"),
        (told, None),
    ]


def event_json(block: BlockName, event: Event) -> dict[str, object]:
    """The event as the chain holds it, with the name of its block."""
    import json

    return {"block": str(block), **json.loads(event.encode())}
