"""`opfs history`: the versions of one element, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options
from opfs.cli.completions import complete_past_elements

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.cli.versions import Version, Versions
    from opfs.core.difference import KeyChange


@click.command()
@place_options
@click.option("-n", "limit", type=click.IntRange(1), default=50, show_default=True, help="How many versions.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per version.")
@click.argument("element", metavar="PLUGIN/ELEMENT", shell_complete=complete_past_elements)
def history(limit: int, as_json: bool, element: str) -> None:
    """List the versions of an element, newest first.

    A row per version: block, time, what was done, by whom, and what was another than before. Also when it was
    deleted. Versions that you may not read are passed over. The documents themselves are files:
    /mnt/op/history/PLUGIN/ELEMENT/HEIGHT.json, and `cp` of one to /mnt/op/state goes back to it.

    \b
    Example:
      opfs history lxc/100
      opfs history -n 3 --json lxc/100
    """
    from itertools import islice

    from opfs.cli.output import echo_json, echo_rows, op_colour, short_time
    from opfs.cli.versions import Versions
    from opfs.core.names import ElementId
    from opfs.core.narrative import summarize

    id = ElementId.parse(element)
    found = islice(_changes(Versions(configuration(), id)), limit)
    if as_json:
        for version, changes in found:
            echo_json(_as_json(version, changes))
        return
    rows = []
    for version, changes in found:
        what = summarize(id, version.op, changes) if changes is not None else ""
        what = f"erased in block {version.erased}" if version.erased else what
        what = what if version.is_kept else "its document was replaced before the block was made"
        told = " · ".join(text for text in (version.message, what) if text)
        rows.append(
            [
                (str(version.block), "yellow"),
                (short_time(version.time), "bright_black"),
                (version.op, op_colour(version.op)),
                (version.user, "cyan"),
                (told, None),
            ]
        )
    echo_rows(rows)


def _changes(versions: Versions) -> Iterator[tuple[Version, tuple[KeyChange, ...] | None]]:
    """Every version with what differs from the one before it, None where one of the two is erased or was not kept.

    No document is read before it is needed.
    """
    from opfs.core.difference import diff_documents

    older = versions.with_documents()
    version, after = next(older)
    for next_version, before in older:
        is_known = not (version.erased or next_version.erased) and version.is_kept and next_version.is_kept
        yield version, diff_documents(before, after) if is_known else None
        version, after = next_version, before
    yield version, diff_documents(None, after) if not version.erased and version.is_kept else None


def _as_json(version: Version, changes: tuple[KeyChange, ...] | None) -> dict[str, object]:
    from opfs.cli.diff import change_json

    return {
        "block": str(version.block),
        "time": version.time,
        "op": version.op,
        "user": version.user,
        "message": version.message,
        "content": version.content,
        "erased": version.erased,
        "kept": version.is_kept,
        "changes": None if changes is None else [change_json(change) for change in changes],
    }
