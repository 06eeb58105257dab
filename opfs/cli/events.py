"""`opfs events`: the stream of events, read from one file of the tree, to its end or on and on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opfs.cli.output import Cell

LOOK_EVERY_S = 0.02
"""While nothing comes; the kernel tells nobody that a file on FUSE grew."""
READ_BYTES = 128 << 10
ROWS = 500
"""So many are aligned with each other."""


@click.command()
@place_options
@click.option("--since", type=click.IntRange(0), default=0, show_default=True, help="The number of the first event.")
@click.option("--follow", "-f", is_flag=True, help="Go on with the events that come, until interrupted.")
@click.option("--plugin", metavar="PLUGIN", help="Only events of this plugin's elements.")
@click.option("--op", metavar="OP", help="Only events of this kind: create, update, delete, drift ...")
@click.option("--pending", is_flag=True, help="Also those that are durable and in no block yet, once each.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per event.")
def events(since: int, follow: bool, plugin: str | None, op: str | None, pending: bool, as_json: bool) -> None:
    """Print events, oldest first, as they are in /events.

    A row per event: block, number, time, element, what was done, by whom, and how. Whose documents you may not read,
    their events you do not see. To go on after event 41: --since 42. Where blocks are made at intervals, --pending
    shows events at once, with the word pending in place of their block; their numbers are final.

    \b
    Example:
      opfs events --follow --plugin lxc --json
    """
    import json

    from opfs.cli.output import echo_json, echo_rows
    from opfs.errors import PoolError
    from opfs.fuse.mountpoint import is_answering, is_mounted

    mount = configuration().mount
    if not (is_mounted(mount) and is_answering(mount)):
        raise PoolError(f"nothing serves {mount}", hint="opfs up starts it; opfs log reads the pool itself")
    path = mount / f"events@{since}"
    batches = _with_pending(path, mount / "events@pending", since, follow=follow) if pending else None
    for lines in batches or _batches(path, follow=follow):
        found = [json.loads(line) for line in lines]
        wanted = [event for event in found if plugin in (None, event["plugin"]) and op in (None, event["op"])]
        if as_json:
            for event in wanted:
                echo_json(event)
        else:
            echo_rows([_row(event) for event in wanted])


def _batches(path: Path, *, follow: bool) -> Iterator[list[bytes]]:
    """The lines of the file, as many at a time as are there."""
    import time

    from opfs.errors import PoolError

    rest = b""
    try:
        with path.open("rb", buffering=0) as file:
            while True:
                data = file.read(READ_BYTES)
                if not data and not follow:
                    return
                if not data:
                    time.sleep(LOOK_EVERY_S)
                    continue
                *lines, rest = (rest + data).split(b"\n")
                for start in range(0, len(lines), ROWS):
                    yield lines[start : start + ROWS]
    except OSError as error:
        raise PoolError(f"{path} cannot be read: {error.strerror}", hint="opfs status") from error


def _with_pending(path: Path, pending: Path, since: int, *, follow: bool) -> Iterator[list[bytes]]:
    """The same, and the events of `pending` that are not there yet, each event once.

    What is pending is read before the rest of the file: what was in a block by then is printed before it, and of what
    comes later nothing is new whose number has been printed.
    """
    import json
    import time

    from opfs.errors import PoolError

    rest, due = b"", since
    try:
        with path.open("rb", buffering=0) as file:
            while True:
                told = pending.read_bytes().splitlines()
                data = b""
                while part := file.read(READ_BYTES):
                    data += part
                *lines, rest = (rest + data).split(b"\n")
                new = []
                for line in (*lines, *told):
                    if (seq := json.loads(line)["seq"]) >= due:
                        new.append(line)
                        due = seq + 1
                for start in range(0, len(new), ROWS):
                    yield new[start : start + ROWS]
                if not follow:
                    return
                time.sleep(LOOK_EVERY_S)
    except OSError as error:
        raise PoolError(f"{path} cannot be read: {error.strerror}", hint="opfs status") from error


def _row(event: dict[str, object]) -> list[Cell]:
    from opfs.cli.output import op_colour, short_time

    actor, plan = event["actor"], event["plan"]
    who = str(actor.get("user") or actor.get("uid", "")) if isinstance(actor, dict) else ""
    steps = "; ".join(str(step.get("summary", "")) for step in plan) if isinstance(plan, list) else ""
    return [
        (str(event["block"] or "pending"), "yellow"),
        (str(event["seq"]), None),
        (short_time(str(event["time"])), "bright_black"),
        (f"{event['plugin']}/{event['element']}", None),
        (str(event["op"]), op_colour(str(event["op"]))),
        (who, "cyan"),
        (" · ".join(text for text in (str(event["message"]), steps) if text), None),
    ]
