"""`opfs top`: how busy opfs is and how it stands, drawn anew every second from metrics, status and events."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opfs.cli.figures import Between
    from opfs.cli.output import Cell

    Row = list[Cell]

EVENTS_OF_ONE_PAGE = 10
"""So many events are shown where no terminal says how many there is room for."""
_TAIL_BYTES = 128 << 10
_OPERATIONS = ("commit", "hash", "snapshot", "anchor", "observe", "apply", "verify", "search", "vectorize")
_STANDING_COLOURS = {"waiting": "yellow", "failed": "bright_red", "drifted": "bright_red"}
_DIM = "bright_black"
_HOME, _TO_END_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_OTHER_SCREEN, _OWN_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@click.command()
@place_options
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds between.")
@click.option("--once", is_flag=True, help="Print one page, of one interval, and end.")
def top(interval: float, once: bool) -> None:
    """Show live how busy opfs is and how it stands.

    Operations a second and how long they took, what is under way, how full the pool is, what is not as declared, and
    the newest events. Ends with ctrl-C; where the output is no terminal, after one page.

    \b
    Example:
      opfs top
    """
    from opfs.cli.output import aligned, drawn

    mount = configuration().mount
    pages = _pages(mount, interval)
    if once or not sys.stdout.isatty():
        figures, events = next(pages)
        for row in (*figures, [], *aligned(events[:EVENTS_OF_ONE_PAGE])):
            click.echo(drawn(row))
        return
    click.echo(_OTHER_SCREEN, nl=False)
    try:
        for figures, events in pages:
            width, height = shutil.get_terminal_size()
            page = [*figures, [], *aligned(events[: max(0, height - len(figures) - 2)])]
            shown = (drawn(row, width) + _TO_END_OF_LINE for row in page[: height - 1])
            click.echo(_HOME + "\n".join(shown) + _BELOW, nl=False, color=True)
    except KeyboardInterrupt:
        pass
    finally:
        click.echo(_OWN_SCREEN, nl=False)


def _pages(mount: Path, interval: float) -> Iterator[tuple[list[Row], list[Row]]]:
    """For every interval the figures and the newest events; raises PoolError where nothing answers."""
    from opfs.cli.figures import Between, Page
    from opfs.errors import PoolError
    from opfs.fuse.mountpoint import is_answering, is_mounted

    if not (is_mounted(mount) and is_answering(mount)):
        raise PoolError(f"nothing serves {mount}", hint="opfs up starts it")
    try:
        before = Page.parse((mount / "metrics").read_text(), time.monotonic())
        while True:
            time.sleep(interval)
            after = Page.parse((mount / "metrics").read_text(), time.monotonic())
            health = (mount / "status").read_text().splitlines()[0].partition(" ")[2].strip()
            yield lay_out(Between(before, after), health), _newest(mount / "events")
            before = after
    except OSError as error:
        raise PoolError(f"{mount} does not answer any more: {error.strerror}", hint="opfs status") from error


def lay_out(between: Between, health: str) -> list[Row]:
    """The figures, a row for each topic and each operation."""
    now = between.after
    free, total = now.one("opfs_pool_bytes", kind="free"), now.one("opfs_pool_bytes", kind="total")
    derived = now.of_each("opfs_lag_events", "derived")
    standing = now.of_each("opfs_unsettled_elements", "standing")
    refused = sum(now.of_each("opfs_refusals_total", "errno").values())
    live, pruned = (now.one("opfs_blocks", state=state) for state in ("live", "pruned"))
    unsettled: Row = []
    for kind, count in standing.items():
        unsettled += [(", ", None), (f"{kind} {count:.0f}", _STANDING_COLOURS.get(kind) if count else None)]
    rows: list[Row] = [
        [("health      ", _DIM), (health, "green" if health == "ok" else "bright_red")],
        [
            ("chain       ", _DIM),
            (f"block {now.one('opfs_head_height'):.0f}, {now.one('opfs_events_total'):.0f} events", None),
            (f", {live:.0f} with a snapshot, {pruned:.0f} pruned", None),
        ],
        [("elements    ", _DIM), (f"{sum(now.of_each('opfs_elements', 'plugin').values()):.0f}", None), *unsettled],
        [
            ("under way   ", _DIM),
            (f"{now.one('opfs_in_flight'):.0f}, behind: index {derived.get('index', 0):.0f},", None),
            (f" history {derived.get('history', 0):.0f}, refused {refused:.0f}", None),
        ],
        [
            ("pool        ", _DIM),
            (f"{free / 2**30:.2f} GiB free of {total / 2**30:.2f} GiB", None),
            (f", memory {now.one('process_resident_memory_bytes') / 2**20:.0f} MiB", None),
        ],
        [],
        [(f"{'operation':<12}{'in all':>10}{'a second':>12}{'half below':>14}{'99 % below':>14}", _DIM)],
    ]
    for operation in _OPERATIONS:
        of = {"quadrant": "q0", "operation": operation}
        rate = between.rate("op_count_total", **of)
        half, most = (between.quantile_s(operation, share) for share in (0.5, 0.99))
        figures = f"{now.one('op_count_total', **of):>10.0f}{rate:>12.1f}{_time(half):>14}{_time(most):>14}"
        rows.append([(f"{operation:<12}{figures}", None)])
    return rows


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return "over 60 s" if seconds == float("inf") else f"{seconds * 1000:g} ms"


def _newest(path: Path) -> list[Row]:
    """The last events, newest first, as this user may see them."""
    import json

    from opfs.cli.output import op_colour, short_time

    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        lines = file.read().splitlines()
    whole = lines if size <= _TAIL_BYTES else lines[1:]
    return [
        [
            (event["block"][:8], "yellow"),
            (short_time(event["time"]), _DIM),
            (event["op"], op_colour(event["op"])),
            (f"{event['plugin']}/{event['element']}", None),
            (str(event["actor"].get("user", "")), "cyan"),
            (event["message"], None),
        ]
        for event in map(json.loads, reversed(whole))
    ]
