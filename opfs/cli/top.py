"""`opfs top`: how busy opfs is and how it stands, drawn anew every second from metrics, status and events."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opfs.cli.figures import Between

NEWEST = 10
"""Events that are shown."""
_TAIL_BYTES = 32 << 10
_OPERATIONS = ("commit", "hash", "snapshot", "anchor", "observe", "apply", "verify", "search", "vectorize")
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
    mount = configuration().mount
    pages = _pages(mount, interval)
    if once or not sys.stdout.isatty():
        click.echo("\n".join(next(pages)))
        return
    click.echo(_OTHER_SCREEN, nl=False)
    try:
        for page in pages:
            width, height = _terminal()
            shown = (line[:width] + _TO_END_OF_LINE for line in page[: height - 1])
            click.echo(_HOME + "\n".join(shown) + _BELOW, nl=False)
    except KeyboardInterrupt:
        pass
    finally:
        click.echo(_OWN_SCREEN, nl=False)


def _terminal() -> tuple[int, int]:
    import shutil

    size = shutil.get_terminal_size()
    return size.columns, size.lines


def _pages(mount: Path, interval: float) -> Iterator[list[str]]:
    """A page for every interval; raises PoolError where nothing answers."""
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
            health = (mount / "status").read_text().splitlines()[0]
            yield [*lay_out(Between(before, after), health), "", *_newest(mount / "events")]
            before = after
    except OSError as error:
        raise PoolError(f"{mount} does not answer any more: {error.strerror}", hint="opfs status") from error


def lay_out(between: Between, health: str) -> list[str]:
    """The figures as lines."""
    from opfs.core.printable import printable

    now = between.after
    free, total = now.one("opfs_pool_bytes", kind="free"), now.one("opfs_pool_bytes", kind="total")
    derived = now.of_each("opfs_lag_events", "derived")
    standing = now.of_each("opfs_unsettled_elements", "standing")
    refused = sum(now.of_each("opfs_refusals_total", "errno").values())
    live, pruned = (now.one("opfs_blocks", state=state) for state in ("live", "pruned"))
    lines = [
        printable(health),
        f"head {now.one('opfs_head_height'):.0f}   events {now.one('opfs_events_total'):.0f}"
        f"   elements {sum(now.of_each('opfs_elements', 'plugin').values()):.0f}"
        f"   live blocks {live:.0f}, pruned {pruned:.0f}",
        f"pool {free / 2**30:.2f} GiB free of {total / 2**30:.2f}   memory"
        f" {now.one('process_resident_memory_bytes') / 2**20:.0f} MiB",
        f"under way {now.one('opfs_in_flight'):.0f}   behind: index {derived.get('index', 0):.0f},"
        f" history {derived.get('history', 0):.0f}   refused {refused:.0f}",
        "   ".join(f"{kind} {count:.0f}" for kind, count in standing.items()),
        "",
        f"{'operation':<12}{'a second':>10}{'half below':>14}{'99 % below':>14}",
    ]
    for operation in _OPERATIONS:
        rate = between.rate("op_count_total", quadrant="q0", operation=operation)
        half, most = (between.quantile_s(operation, share) for share in (0.5, 0.99))
        lines.append(f"{operation:<12}{rate:>10.1f}{_time(half):>14}{_time(most):>14}")
    return lines


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return "over 60 s" if seconds == float("inf") else f"{seconds * 1000:g} ms"


def _newest(path: Path) -> list[str]:
    """The last events, newest first, as this user may see them."""
    import json

    from opfs.cli.output import short_time
    from opfs.core.printable import printable

    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        lines = file.read().splitlines()
    whole = lines if size <= _TAIL_BYTES else lines[1:]
    rows = []
    for event in reversed([json.loads(line) for line in whole[-NEWEST:]]):
        who = str(event["actor"].get("user", ""))
        what = (
            f"{event['block'][:8]}  {short_time(event['time'])}  {event['op']:<14}{event['plugin']}/{event['element']}"
        )
        rows.append(printable(f"{what}  {who}  {event['message']}".rstrip()))
    return rows
