"""`opfs plan` and `opfs apply`: what documents would do, kept in a file, and exactly that done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options
from opfs.cli.completions import complete_elements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.cli.planfile import Step
    from opfs.cli.tree import MountedTree

_COLOURS = {"safe": "green", "disruptive": "yellow", "destructive": "red", "+": "green", "-": "red", "~": "yellow"}


@click.command()
@place_options
@click.option(
    "--element", metavar="PLUGIN/ELEMENT", help="What the one FILE is about.", shell_complete=complete_elements
)
@click.option(
    "--delete",
    "deleted",
    metavar="PLUGIN/ELEMENT",
    multiple=True,
    help="Plan a delete.",
    shell_complete=complete_elements,
)
@click.option("-o", "--output", metavar="PLAN", help="Keep the plan in this file, for opfs apply.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per element.")
@click.argument("paths", nargs=-1, metavar="[FILE|DIR]...", type=click.Path(allow_dash=True))
def plan(
    element: str | None, deleted: tuple[str, ...], output: str | None, as_json: bool, paths: tuple[str, ...]
) -> None:
    """Show what documents would do, without doing it.

    Names say what a file is about, as in /state: lxc/100.json is the container 100. A directory holds one directory
    for each plugin, or is one. For every element: in what it differs from what is there, and the actions with their
    class: safe, disruptive or destructive. Elements that others need come first.

    \b
    Example:
      opfs plan host/ -o today.plan
      opfs plan web.json --element lxc/100
    """
    from opfs.cli.output import echo_json
    from opfs.cli.planfile import collect, make_plan, save_plan
    from opfs.cli.tree import mounted_tree

    wanted = collect(paths, element, deleted)
    steps = make_plan(mounted_tree(configuration()), wanted)
    if output is not None:
        save_plan(output, steps)
    if as_json:
        for step in steps:
            echo_json(step.view.to_json())
        return
    show_steps(steps)
    if output is not None:
        click.echo(f"opfs apply {output} carries it out", err=True)


@click.command()
@place_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask before something is destroyed.")
@click.argument("file", metavar="PLAN", type=click.Path(allow_dash=True))
def apply(yes: bool, file: str) -> None:
    """Carry out exactly the plan that opfs plan kept.

    Every plan in it is made again first: if one is another now, because the host or a document has changed,
    nothing is done, and the answer says what moved. Then one element after the other; the first that fails ends it,
    and says what was done by then. What destroys something asks first.

    Exit code 3 where something moved, 4 where the host refused.

    \b
    Example:
      opfs apply today.plan
    """
    from opfs.cli.planfile import load_plan
    from opfs.cli.tree import mounted_tree
    from opfs.commit.preview import check_plan
    from opfs.errors import NotFound, Stale

    steps, tree = load_plan(file), mounted_tree(configuration())
    try:
        now = tree.plan({step.view.id: step.content for step in steps})
    except NotFound as error:
        raise Stale(f"{error.reason} any more", hint="make the plan again and look at it") from None
    for step in steps:
        check_plan(step.view.id, step.view.digest, now[step.view.id].digest)
    run_steps(tree, steps, yes=yes)


def run_steps(tree: MountedTree, steps: list[Step], *, yes: bool) -> None:
    """Carry out steps in their order, asking before what destroys; raises OpfsError at the first that fails."""
    from opfs.core.action import Safety
    from opfs.errors import OpfsError

    destructive = [step for step in steps if step.view.safety is Safety.DESTRUCTIVE]
    if destructive and not yes:
        show_steps(destructive)
        click.confirm("Do that to this host?", abort=True)
    done: list[str] = []
    for step in steps:
        id = step.view.id
        try:
            if step.view.safety is Safety.DESTRUCTIVE:
                tree.command(f"confirm {'delete' if step.content is None else 'update'} {id}")
            tree.carry_out(id, step.content, step.view.digest)
        except OpfsError as error:
            left = [str(other.view.id) for other in steps[len(done) + 1 :]]
            told = f"done before: {', '.join(done) or 'nothing'}"
            if left:
                told += f"; not begun: {', '.join(left)}"
            raise type(error)(error.reason, hint="; ".join(filter(None, (error.hint, told)))) from error
        done.append(str(id))
        what = "; ".join(action.summary for action in step.view.actions) or "recorded, nothing was to be done"
        _say(f"{id}  {what}")


def show_steps(steps: Sequence[Step]) -> None:
    """Print plans, and how many actions they have."""
    from opfs.cli.output import echo
    from opfs.core.planview import plan_lines

    counts: dict[str, int] = {}
    for step in steps:
        for text, kind in plan_lines(step.view):
            echo(text, _COLOURS.get(kind))
        for action in step.view.actions:
            counts[action.safety.value] = counts.get(action.safety.value, 0) + 1
    told = ", ".join(f"{count} {safety}" for safety, count in counts.items())
    total = sum(counts.values())
    click.echo(
        f"{len(steps)} element{'' if len(steps) == 1 else 's'}, " + (f"actions: {told}" if total else "no actions")
    )


def _say(text: str) -> None:
    from opfs.cli.output import echo
    from opfs.core.printable import printable

    echo(printable(text), "green")
