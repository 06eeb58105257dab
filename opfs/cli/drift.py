"""`opfs drift` and `opfs live`: in what the host is not as declared, and what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from opfs.cli.command import configuration, place_options
from opfs.cli.completions import complete_elements, complete_places

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from opfs.cli.tree import MountedTree
    from opfs.errors import OpfsError

DRIFT_EXIT_CODE = 1


@click.command()
@place_options
@click.option("--undeclared", is_flag=True, help="List what is there and nobody declared; root.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per element.")
@click.argument("places", nargs=-1, metavar="[PLUGIN|ELEMENT]...", shell_complete=complete_places)
def drift(undeclared: bool, as_json: bool, places: tuple[str, ...]) -> None:
    """Show in what the host is not as declared, key by key.

    Looks at everything now, or at the plugins and elements named: what was wanted, what was found, and since when
    and by whose hand where an event tells. `diff -r /mnt/op/state /mnt/op/live` shows the same. Only what you may
    read is listed.

    Exit code 0 where all is as declared, 1 where something is not, 4 where a plugin cannot tell.

    \b
    Example:
      opfs drift
      opfs drift net lxc/100
    """
    from opfs.cli.output import echo, echo_json
    from opfs.cli.tree import mounted_tree
    from opfs.core.printable import printable
    from opfs.errors import OpfsError

    tree = mounted_tree(configuration())
    failures: list[OpfsError] = []
    found = 0
    for plugin, elements in _wanted(tree, places).items():
        try:
            listed = list(
                _undeclared(tree, plugin, elements, in_full=as_json) if undeclared else _drifted(tree, plugin, elements)
            )
        except OpfsError as error:
            failures.append(error)
            continue
        for report in listed:
            found += 1
            if as_json:
                echo_json(report)
            elif undeclared:
                click.echo(printable(str(report["element"])))
            else:
                _show(report)
    for failure in failures:
        click.echo(f"opfs: {printable(str(failure))}", err=True)
    if not found and not failures and not as_json:
        echo("everything there is declared" if undeclared else "everything is as declared", "green")
    exit_code = failures[0].exit_code if failures else DRIFT_EXIT_CODE if found and not undeclared else 0
    click.get_current_context().exit(exit_code)


@click.command()
@place_options
@click.option("--full", is_flag=True, help="All that the plugin sees, also what the document does not speak of.")
@click.argument("element", metavar="PLUGIN/ELEMENT", shell_complete=complete_elements)
def live(full: bool, element: str) -> None:
    """Show what an element is right now.

    Its document with the keys that differ as the host has them: the file /mnt/op/live/PLUGIN/ELEMENT.json. With
    --full everything that its plugin reports, in the schema's shape, but secrets. What nobody declared is shown in
    full, to root.

    \b
    Example:
      opfs live lxc/100
      opfs live --full lxc/100
    """
    from opfs.cli.tree import mounted_tree
    from opfs.core.names import ElementId
    from opfs.errors import NotFound

    id, tree = ElementId.parse(element), mounted_tree(configuration())
    if full:
        click.echo(tree.read(f"live/{id.plugin}/{id.element}.full"), nl=False)
        return
    try:
        click.echo(tree.read(f"live/{id.path}"), nl=False)
    except NotFound:
        if tree.is_declared(id):
            raise NotFound(f"{id} is declared, and is not there", hint=f"opfs drift {id}") from None
        try:
            click.echo(tree.read(f"undeclared/{id.path}"), nl=False)
        except NotFound:
            raise NotFound(f"there is no {id}", hint="neither declared nor on this host") from None


def _wanted(tree: MountedTree, places: Sequence[str]) -> Mapping[str, set[str] | None]:
    """Plugins, each with the elements asked for, None for all; raises NotFound for what is not there."""
    from opfs.core.names import ElementId
    from opfs.errors import NotFound

    plugins = tree.plugins()
    if not places:
        return dict.fromkeys(plugins)
    wanted: dict[str, set[str] | None] = {}
    for place in places:
        plugin, slash, _ = place.strip("/").partition("/")
        if plugin not in plugins:
            raise NotFound(f"there is no plugin {plugin!r}", hint=f"there are: {', '.join(plugins)}")
        if not slash:
            wanted[plugin] = None
            continue
        id = ElementId.parse(place)
        tree.check_element(id)
        elements = wanted.setdefault(plugin, set())
        if elements is not None:
            elements.add(id.element)
    return wanted


def _drifted(tree: MountedTree, plugin: str, elements: set[str] | None) -> Iterator[dict[str, Any]]:
    import json

    if not tree.elements(plugin):
        return  # a plugin that cannot work here and has nothing to do is no trouble
    for line in tree.read(f"live/{plugin}/.drift").splitlines():
        report = json.loads(line)
        if elements is None or report["element"].partition("/")[2] in elements:
            yield report


def _undeclared(
    tree: MountedTree, plugin: str, elements: set[str] | None, *, in_full: bool
) -> Iterator[dict[str, Any]]:
    import json

    if not tree.plugin(plugin)["is_available"]:
        return
    for element in tree.elements(plugin, "undeclared"):
        if elements is None or element in elements:
            report: dict[str, Any] = {"element": f"{plugin}/{element}"}
            if in_full:
                report["document"] = json.loads(tree.read(f"undeclared/{plugin}/{element}.json"))
            yield report


def _show(report: Mapping[str, Any]) -> None:
    from opfs.cli.output import Cell, echo, echo_rows, short_time
    from opfs.core.printable import printable, show_json

    since = f"since {short_time(report['since'])}" if report["since"] else ""
    by = f"by {report['culprit']}" if report["culprit"] else ""
    told = "  ".join(text for text in ("gone" if report["is_gone"] else "differs", since, by) if text)
    echo(printable(f"{report['element']}  {told}"), "red" if report["is_gone"] else "yellow", bold=True)
    rows: list[list[Cell]] = []
    for change in [] if report["is_gone"] else report["changes"]:
        wanted = "nothing" if change["wanted"] is None else show_json(change["wanted"], 200)
        found = show_json(change["found"], 200) if "found" in change else "nothing"
        rows.append(
            [("  " + (change["pointer"] or "/"), None), (f"wanted {wanted}", "green"), (f"found {found}", "red")]
        )
    echo_rows(rows)
