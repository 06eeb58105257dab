"""`opfs rollback`: the host, a plugin or single elements again as they were, in one new block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options, require_root
from opfs.cli.completions import complete_blocks, complete_places

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.cli.planfile import Step


@click.command()
@place_options
@click.option("-p", "--plan", "only_plan", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask, also where something is destroyed.")
@click.option("--skip-refused", is_flag=True, help="Go back without what is not possible any more.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON, one object per element.")
@click.argument("when", metavar="BLOCK|TIME|LABEL", shell_complete=complete_blocks)
@click.argument("places", metavar="[PLUGIN[/ELEMENT]]...", nargs=-1, shell_complete=complete_places)
def rollback(only_plan: bool, yes: bool, skip_refused: bool, as_json: bool, when: str, places: tuple[str, ...]) -> None:
    """Go back to what a block had: the whole host, a plugin, or single elements.

    Shows the plan and asks: what would be created, changed and deleted, in the order of doing it, with the actions and
    their class. Then exactly that is done, as one change: it is one new block, which names the old one, or everything
    is undone. What is already as it was is left alone, and so is what came after: nothing is taken out of the chain,
    and a rollback is undone by another.

    An element whose plugin is gone, or whose old document is not valid any more, is a refusal, and nothing is done.

    Exit code 3 where something moved since the plan was shown, 4 where the host refused.

    \b
    Example:
      sudo opfs rollback --plan before-upgrade
      sudo opfs rollback '2 hours ago' lxc/100
    """
    from opfs.cli.chain import open_chain
    from opfs.cli.output import echo, echo_json
    from opfs.cli.plan import show_steps
    from opfs.cli.tree import mounted_tree
    from opfs.core.action import Safety
    from opfs.core.going_back import Scope
    from opfs.core.names import BlockName
    from opfs.core.printable import printable

    require_root("roll back")
    Scope.parse(places)
    config = configuration()
    tree = mounted_tree(config)
    block = open_chain(config).resolve(when)
    words = " ".join([str(block), *(["--skip-refused"] if skip_refused else []), *places])
    head, *lines = tree.ask(f"rollback --plan {words}")
    steps = _steps(lines)
    if as_json:
        for step in steps:
            echo_json(step.view.to_json())
    else:
        for id, reason in head["skipped"].items():
            echo(printable(f"left as it is: {id}: {reason}"), "yellow")
        show_steps(steps)
    if not steps:
        click.echo(f"everything is as it was in block {block}", err=True)
        return
    if only_plan:
        return
    if not yes:
        click.confirm(f"Go back to block {block}?", abort=True)
    for step in steps:
        if step.view.safety is Safety.DESTRUCTIVE:
            tree.command(f"confirm {'delete' if step.content is None else 'update'} {step.view.id}")
    made = BlockName.parse(tree.tell(f"rollback --expect={head['digest']} {words}").strip())
    echo(f"block {made} is block {block} again, in {len(steps)} element{'' if len(steps) == 1 else 's'}", "green")


def _steps(lines: Sequence[Mapping[str, object]]) -> list[Step]:
    """The plan as `opfs plan` shows one; of the documents it matters only whether there is one."""
    from opfs.cli.planfile import Step
    from opfs.core.planview import PlanView

    views = [PlanView.from_json(line) for line in lines]
    return [Step(None if view.op == "delete" else b"", view) for view in views]
