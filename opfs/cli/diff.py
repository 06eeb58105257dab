"""`opfs diff`: what differs between two blocks, element by element and key by key.

Only elements that an event between the two blocks names are read: nothing else can differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options
from opfs.cli.completions import complete_blocks, complete_places

if TYPE_CHECKING:
    from opfs.cli.chain import Chain
    from opfs.core.action import Document
    from opfs.core.difference import KeyChange
    from opfs.core.names import BlockName, ElementId


@click.command()
@place_options
@click.option("--stat", is_flag=True, help="Only count the changed keys of each element.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per element.")
@click.argument("old", metavar="A", shell_complete=complete_blocks)
@click.argument("new", metavar="B", shell_complete=complete_blocks)
@click.argument("path", required=False, metavar="[PLUGIN[/ELEMENT]]", shell_complete=complete_places)
def diff(stat: bool, as_json: bool, old: str, new: str, path: str | None) -> None:
    """Show what differs between two blocks, key by key.

    A and B are heights, HEAD, HEAD~2, blocks' names, the first digits of their hashes, times (2026-11-03T14:00,
    'yesterday', '2 hours ago') or labels. Keys that were added are marked +, removed -, changed ~. Changes that you may
    not read are left out.

    \b
    Example:
      opfs diff HEAD~1 HEAD
      opfs diff yesterday HEAD net
      opfs diff --stat 3 before-upgrade lxc/100
    """
    from opfs.cli.chain import open_chain
    from opfs.cli.output import echo_json
    from opfs.core.difference import diff_documents
    from opfs.errors import AccessDenied

    chain = open_chain(configuration())
    first, second = chain.resolve(old), chain.resolve(new)
    unread = []
    for id in _touched(chain, first, second, path):
        try:
            before, after = _document(chain, first, id), _document(chain, second, id)
        except AccessDenied:
            unread.append(str(id))
            continue
        changes = diff_documents(before, after)
        if not changes and (before is None) == (after is None):
            continue
        state = "created" if before is None else "deleted" if after is None else "changed"
        if as_json:
            echo_json({"element": str(id), "state": state, "changes": [change_json(change) for change in changes]})
        else:
            _show(str(id), state, changes, stat=stat)
    if unread:
        click.echo(f"opfs: left out, because you may not read it in both: {', '.join(unread)}", err=True)


def _touched(chain: Chain, first: BlockName, second: BlockName, path: str | None) -> list[ElementId]:
    """The elements below `path` that an event after one block and up to the other names."""
    from opfs.cli.output import with_progress
    from opfs.core.names import ElementId

    plugin, _, element = (path or "").strip("/").partition("/")
    wanted = ElementId.parse(f"{plugin}/{element}") if element else None
    low, high = sorted((first, second))
    between = [block for block in chain.blocks if low < block <= high]
    return sorted(
        {
            event.id
            for block in with_progress(between, len(between), "reading blocks")
            for event in chain.events_seen(block)
            if (wanted is None or event.id == wanted) and plugin in ("", event.id.plugin)
        }
    )


def _document(chain: Chain, block: BlockName, id: ElementId) -> Document | None:
    import json

    from opfs.errors import NotFound

    try:
        document: Document = json.loads(chain.document(block, id))
    except NotFound:
        return None
    return document


def change_json(change: KeyChange) -> dict[str, object]:
    """`old` or `new` is left out where the key was not there."""
    from opfs.core.difference import ABSENT

    sides = {"old": change.old, "new": change.new}
    return {"pointer": change.pointer, **{side: value for side, value in sides.items() if value is not ABSENT}}


def _show(element: str, state: str, changes: tuple[KeyChange, ...], *, stat: bool) -> None:
    from opfs.cli.output import echo, echo_rows
    from opfs.core.difference import ABSENT
    from opfs.core.printable import printable, show_json

    added = sum(change.old is ABSENT for change in changes)
    removed = sum(change.new is ABSENT for change in changes)
    counts = f"+{added} -{removed} ~{len(changes) - added - removed}"
    colour = {"created": "green", "deleted": "red"}.get(state, "yellow")
    echo(printable(f"{element}  {state}" + (f"  {counts}" if stat else "")), colour, bold=not stat)
    if stat:
        return
    rows = []
    for change in changes:
        old, new = (show_json(value, 200) if value is not ABSENT else "" for value in (change.old, change.new))
        if change.old is ABSENT:
            mark, text, colour = "+", new, "green"
        elif change.new is ABSENT:
            mark, text, colour = "-", old, "red"
        else:
            mark, text, colour = "~", f"{old} → {new}", "yellow"
        rows.append([(f"  {mark}", colour), (change.pointer, None), (text, colour)])
    echo_rows(rows)
