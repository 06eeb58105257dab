"""`opfs search`: changes by meaning, by words, by both, or all of them, read from one file of the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from opfs.cli.command import configuration, place_options
from opfs.cli.completions import complete_filter, complete_moments, complete_past_elements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.cli.output import Cell
    from opfs.cli.tree import MountedTree
    from opfs.core.pathfilter import PathFilter

WORTH_SAYING = 250
"""Of fewer events, which take less than a second or two, nobody is told."""


@click.command()
@place_options
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many hits.")
@click.option(
    "--verb",
    type=click.Choice(("similar", "text", "hybrid", "changes")),
    help="By meaning, by words, by both, or every change.  [default: hybrid; changes without a TEXT]",
)
@click.option("--plugin", multiple=True, metavar="PLUGIN", help="Of this plugin.", shell_complete=complete_filter)
@click.option(
    "--element", multiple=True, metavar="PLUGIN/ELEMENT", help="Of this element.", shell_complete=complete_past_elements
)
@click.option("--op", multiple=True, metavar="OP", help="create, update, delete ...", shell_complete=complete_filter)
@click.option("--by", multiple=True, metavar="USER", help="Made by this user.", shell_complete=complete_filter)
@click.option("--since", metavar="WHEN", help="From this time or block on.", shell_complete=complete_moments)
@click.option("--until", metavar="WHEN", help="Up to this time or block.", shell_complete=complete_moments)
@click.option("--at", metavar="WHEN", help="Only what was known then.", shell_complete=complete_moments)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per hit.")
@click.argument("text", nargs=-1)
def search(
    limit: int, verb: str | None, as_json: bool, text: tuple[str, ...], **narrowed: str | tuple[str, ...] | None
) -> None:
    """Find changes by meaning.

    A row per hit, best first: score, block, time, element, what was done, by whom, what changed. Without a TEXT, all
    changes, newest first. An option that is given more than once means any of its values. WHEN is anything that the
    directory /at understands: 41, 2026-11-03T14:00, yesterday, '2 hours ago', a label. By words alone, a hit has
    every word, "a phrase" as it stands, begin* and -without.

    \b
    Example:
      opfs search --plugin lxc --since yesterday web server memory
    """
    from opfs.cli.output import echo_json, echo_rows
    from opfs.cli.tree import mounted_tree
    from opfs.core.query import Query, Verb
    from opfs.errors import InvalidRequest

    said, asked = " ".join(text), Verb(verb or ("hybrid" if text else "changes"))
    if asked.takes_text is not bool(said):
        takes = "needs a text" if asked.takes_text else "takes no text"
        raise InvalidRequest(f"--verb {asked} {takes}", hint="e.g. opfs search --verb text web server memory")
    filters = _filters({**narrowed, "limit": str(limit)})
    tree = mounted_tree(configuration())
    by_meaning = asked in (Verb.SIMILAR, Verb.HYBRID)
    line, *notes = tree.status("index") or [""]
    if waits := _what_it_waits_for(line, by_meaning=by_meaning):
        click.echo(f"opfs: {waits}", err=True)
    hits = tree.search(Query(asked, said, filters=filters))
    for note in notes if by_meaning else ():
        click.echo(f"opfs: {note}", err=True)
    if as_json:
        for hit in hits:
            echo_json(hit)
        return
    if not hits:
        click.echo(f"opfs: nothing found{_what_there_is(tree, filters)}", err=True)
    echo_rows([_row(hit) for hit in hits])


def _filters(narrowed: Mapping[str, str | tuple[str, ...] | None]) -> tuple[PathFilter, ...]:
    """The filters of a path that say the same as the options; raises InvalidRequest."""
    from opfs.core.names import ElementId
    from opfs.core.pathfilter import PathFilter, Word, parse_filter

    values = {word: (given,) if isinstance(given, str) else given or () for word, given in narrowed.items()}
    for element in values["element"]:
        ElementId.parse(element)
    # by way of the path, so that the options' values are checked as a path's are
    return tuple(parse_filter(PathFilter(Word(word), value).name) for word in values for value in values[word])


def _what_it_waits_for(line: str, *, by_meaning: bool) -> str:
    """What somebody should know who gets no answer for a while, from what /status says of the index; or nothing."""
    from opfs.core.lag import parse_lag

    lag = parse_lag(line)
    behind = (lag.meaning if by_meaning else lag.words) if lag else 0
    return f"the search waits for the index, which is {behind} events behind" if behind >= WORTH_SAYING else ""


def _what_there_is(tree: MountedTree, filters: Sequence[PathFilter]) -> str:
    """For a filter whose value no change has: one that changes have and that looks like it."""
    import difflib

    from opfs.core.pathfilter import PathFilter, Word
    from opfs.core.query import Query, Verb

    known = tree.filter_values()
    for each in filters:
        others = [value for value in known.get(each.word, []) if value != each.value]
        near = difflib.get_close_matches(each.value, others, n=1)
        if near and not tree.search(Query(Verb.CHANGES, filters=(each, PathFilter(Word.LIMIT, "1")))):
            asked, meant = (
                value.replace(":", "/", 1) if each.word == Word.ELEMENT else value for value in (each.value, near[0])
            )
            return f" of {asked}; did you mean {meant}?"
    return ""


def _row(hit: Mapping[str, Any]) -> list[Cell]:
    from opfs.cli.output import op_colour, short_time

    score = [] if hit["score"] is None else [(f"{hit['score']:.3f}", "green")]
    return [
        *score,
        (f"{hit['block']:08d}", "yellow"),
        (short_time(hit["time"]), "bright_black"),
        (f"{hit['plugin']}/{hit['element']}", None),
        (hit["op"], op_colour(hit["op"])),
        (hit["actor"], "cyan"),
        (hit["summary"], None),
    ]
