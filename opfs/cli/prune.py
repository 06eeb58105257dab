"""`opfs prune`: snapshots that need not be kept go; what they held is in the archive and reads as before."""

from __future__ import annotations

import click

from opfs.cli.command import configuration, place_options


@click.command()
@place_options
@click.option("--plan", "only_plan", is_flag=True, help="Only show which snapshots would go, and why others stay.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan, one JSON object per block.")
def prune(only_plan: bool, as_json: bool) -> None:
    """Archive the blocks that need no snapshot.

    Nothing is lost by that: /chain, /history, proofs and searches show the same as before. Kept are the newest
    blocks, those with a label, and the last one of some hours, days, weeks and quarters: the settings
    retain_newest, retain_hourly, … say how many. Where less is free than retain_min_free, the oldest of the latter go
    as well until there is room. It also happens by itself: when there are more snapshots than max_live_blocks,
    and when room is short.

    What --plan says would be freed is an estimate: what a snapshot takes on average, of which others may share a part.

    \b
    Example:
      opfs prune --plan
      sudo opfs prune
    """
    from opfs.cli.output import echo, echo_json, echo_rows
    from opfs.cli.tree import mounted_tree
    from opfs.core.retention import describe_kept, describe_pruned

    tree = mounted_tree(configuration())
    plan = tree.retention()
    if as_json:
        for entry in plan:
            echo_json(entry)
        return
    going = [entry for entry in plan if entry["snapshot"] == "prune"]
    archived = sum(entry["snapshot"] == "archived" for entry in plan)
    if only_plan:
        counts = [*describe_kept(plan), *describe_pruned(plan)]
        echo_rows([[(text, None), (str(count), "yellow")] for text, count in counts])
        freed = sum(entry["frees"] for entry in going)
        echo(f"{len(going)} snapshots would go, about {freed / (1 << 20):.1f} MiB; {archived} went before")
        return
    if not going:
        echo("every snapshot that is there is to be kept")
        return
    tree.command("prune")
    echo(f"{len(going)} snapshots went; what they held is in the archive")
