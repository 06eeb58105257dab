"""`opfs schema`: what a plugin's documents may say, key by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from opfs.cli.command import configuration, place_options
from opfs.cli.completions import complete_plugins

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.core.outline import Key

_COLUMNS = 96


@click.command()
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the schema itself, or one key of it.")
@click.argument("plugin", required=False, shell_complete=complete_plugins)
@click.argument("path", required=False, metavar="[KEY.PATH]")
def schema(as_json: bool, plugin: str | None, path: str | None) -> None:
    """Show what a plugin's documents may say, key by key.

    Each key with the kinds of its value, what it means, its default and an example. With KEY.PATH only that one
    and what is in it; without PLUGIN a line for every plugin. Needs no daemon. Editors read the same from
    /mnt/op/schema/PLUGIN.json, which a document names as its "$schema".

    \b
    Example:
      opfs schema lxc
      opfs schema lxc net0.bridge
    """
    from opfs.cli.output import echo, echo_json, echo_rows
    from opfs.cli.schemas import load_schemas
    from opfs.core.outline import find_key, outline
    from opfs.core.printable import printable, show_json
    from opfs.errors import NotFound

    schemas = load_schemas(configuration())
    if plugin is None:
        if as_json:
            echo_json({name: str(found.get("description", "")) for name, found in schemas.items()})
            return
        told = {name: str(found.get("description", "")).partition(". ")[0] for name, found in schemas.items()}
        echo_rows([[(name, "green"), (text.removesuffix("."), None)] for name, text in told.items()])
        return
    if plugin not in schemas:
        raise NotFound(f"there is no plugin {plugin!r}", hint=f"there are: {', '.join(schemas)}")
    page = outline(schemas[plugin])
    if path is not None:
        key = find_key(page, path)
        if as_json:
            echo_json(_as_json(key))
        else:
            _show(key, "")
        return
    if as_json:
        echo_json(schemas[plugin])
        return
    echo(f"state/{plugin}/<element>.json", "green", bold=True)
    _show_text(page.description, "")
    for key in sorted(page.keys, key=lambda key: key.name.startswith("$")):  # what is for opfs comes last
        click.echo()
        _show(key, "")
    if page.examples:
        click.echo()
        click.echo("Example:")
        click.echo(printable(f"  echo '{show_json(page.examples[0], 1000)}' > state/{plugin}/<element>.json"))


def _show(key: Key, margin: str) -> None:
    """A key, its meaning below it, and the keys in it further in."""
    from opfs.cli.output import echo
    from opfs.core.outline import shown_default
    from opfs.core.printable import printable, show_json

    parts = [f"{key.value} ({key.limits})" if key.limits else key.value, *key.marks]
    if default := shown_default(key):
        parts.append(f"default {default}")
    if key.examples and show_json(key.examples[0], 200) != default:
        parts.append(f"e.g. {show_json(key.examples[0], 200)}")
    echo(printable(f"{margin}{key.name}{key.holds}  {', '.join(parts)}"), "cyan")
    _show_text(key.description, margin + "    ")
    for inner in key.keys:
        _show(inner, margin + "    ")


def _show_text(text: str, margin: str) -> None:
    import textwrap

    from opfs.core.printable import printable

    for line in textwrap.wrap(printable(text), _COLUMNS - len(margin)):
        click.echo(margin + line)


def _as_json(key: Key) -> Mapping[str, Any]:
    from opfs.core.difference import ABSENT

    return {
        "key": key.name,
        "value": key.value,
        "limits": key.limits,
        "description": key.description,
        **({} if key.default is ABSENT else {"default": key.default}),
        "examples": list(key.examples),
        "marks": list(key.marks),
        "keys": [inner.name for inner in key.keys],
    }
