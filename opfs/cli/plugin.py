"""`opfs plugin`: which plugins there are, what one can do, and whether it keeps the contract."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from opfs.cli.command import Noun, configuration, place_options
from opfs.cli.completions import complete_plugins

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opfs.config import Config


@click.group(cls=Noun)
def plugin() -> None:
    """List and examine plugins; check that one keeps the contract.

    \b
    Example:
      opfs plugin list
    """


@plugin.command("list")
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per plugin.")
def list_(as_json: bool) -> None:
    """List plugins: can they work here, what have they, what can they do.

    A row per plugin: its elements that are declared, that have drifted as far as is known, and that nobody declared,
    which only root sees; its mode; what its backend can do. Without a daemon: only whether it can work here.

    \b
    Example:
      opfs plugin list
    """
    from opfs.cli.output import Cell, echo_json, echo_rows

    rows: list[list[Cell]] = []
    for fields in _plugins(configuration()):
        if as_json:
            echo_json(fields)
            continue
        counts = [
            f"{fields[key]} {key}" for key in ("declared", "drifted", "undeclared") if fields.get(key) is not None
        ]
        state: Cell = ("ok", "green") if fields["is_available"] else ("unavailable", "yellow")
        told = fields["why_not"] or ", ".join(name for name, has in fields["capabilities"].items() if has is True)
        rows.append(
            [(fields["name"], None), state, (", ".join(counts), None), (fields.get("mode") or "", None), (told, None)]
        )
    if not as_json:
        echo_rows(rows)


@plugin.command()
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.argument("name", shell_complete=complete_plugins)
def info(as_json: bool, name: str) -> None:
    """Show what a plugin is and can do.

    \b
    Example:
      opfs plugin info lxc
    """
    from opfs.cli.output import Cell, echo_json, echo_rows
    from opfs.cli.schemas import load_schemas
    from opfs.core.outline import outline
    from opfs.errors import NotFound

    config = configuration()
    known = {fields["name"]: fields for fields in _plugins(config)}
    if name not in known:
        raise NotFound(f"there is no plugin {name!r}", hint=f"there are: {', '.join(known)}")
    page = outline(load_schemas(config).get(name, {}))
    fields = {**known[name], "description": page.description, "keys": [key.name for key in page.keys]}
    if as_json:
        echo_json(fields)
        return
    rows: list[list[Cell]] = []
    for key, value in fields.items():
        if isinstance(value, dict):
            value = ", ".join(word for word, has in value.items() if has) or "none"
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        if value not in (None, ""):
            rows.append([(key.replace("_", " "), "bright_black"), (str(value), None)])
    echo_rows(rows)
    click.echo(f"opfs schema {name} explains the keys")


@plugin.command()
@place_options
@click.option("--no-failures", is_flag=True, help="Leave out the failure matrix, which is most of the time.")
@click.option(
    "--patience", metavar="SECONDS", type=click.FloatRange(0.05), default=5.0, show_default=True, help="With a hang."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per check.")
@click.argument("name", metavar="NAME|SPEC", shell_complete=complete_plugins)
@click.argument("cases", metavar="CASES.json|MODULE:FUNCTION")
def check(no_failures: bool, patience: float, as_json: bool, name: str, cases: str) -> None:
    """Check that a plugin keeps the contract, on its real backend.

    The plugin is built in this process, no daemon is needed or asked. The checks make, change, disturb and delete one
    element, which must not be there before; then its backend is made to refuse, die, lie and hang at every action.
    NAME is an installed plugin, or package.module:Class. CASES.json names the element and documents to try, as
    docs/plugins/writing-a-plugin.md explains.

    Exit code 0 where every check passes, 1 where one does not.

    \b
    Example:
      sudo opfs plugin check file cases.json
    """
    import tempfile
    from pathlib import Path

    import trio

    from opfs.cli.files import load_file
    from opfs.cli.output import echo, echo_json
    from opfs.core.printable import printable
    from opfs.errors import OpfsError
    from opfs.plugins.contract import PluginContext
    from opfs.plugins.registry import build_plugin, load_plugins
    from opfs.testing.contracts.runner import case_from_json, case_from_module, quiet, run_checks

    config = configuration()
    quiet()
    failed = total = 0

    async def run() -> None:
        nonlocal failed, total
        async for verdict in run_checks(make_case, with_failures=not no_failures, hang_limit_s=patience):
            total += 1
            failed += not verdict.passed
            if as_json:
                echo_json({"check": verdict.name, "passed": verdict.passed, "said": verdict.said})
                continue
            told = f"  {printable(verdict.said)}" if verdict.said else ""
            word, colour = ("ok", "green") if verdict.passed else ("FAILS", "bright_red")
            echo(f"{word:5}  {verdict.name}{told}", colour)

    with tempfile.TemporaryDirectory(prefix="opfs-check-") as directory:

        def context_of(plugin_name: str) -> PluginContext:
            return PluginContext(Path(directory) / plugin_name, (), config.plugin_settings(plugin_name))

        checked = (
            build_plugin(name, context_of) if ":" in name else load_plugins(context_of, config.plugins).require(name)
        )
        is_module = ":" in cases and not os.path.exists(cases)
        make_case = (
            case_from_module(checked, cases) if is_module else case_from_json(checked, load_file(cases, 1 << 24))
        )
        try:
            trio.run(run)
        except BaseExceptionGroup as group:
            told = group.split(OpfsError)[0]
            raise told.exceptions[0] if told is not None else group from None
    if not as_json:
        click.echo(f"{total} checks, {failed} failed" if failed else f"{total} checks, all passed")
    click.get_current_context().exit(1 if failed else 0)


def _plugins(config: Config) -> Iterator[dict[str, Any]]:
    """What is known of each plugin: from the daemon, or from the plugins that load here without one."""
    from opfs.cli.tree import mounted_tree
    from opfs.fuse.mountpoint import is_answering, is_mounted

    if not (is_mounted(config.mount) and is_answering(config.mount)):
        from opfs.cli.schemas import load_registry
        from opfs.plugins.registry import describe_plugin

        for plugin in load_registry(config).values():
            yield dict(describe_plugin(plugin))
        return
    tree = mounted_tree(config)
    for fields in tree.all_plugins():
        yield {**fields, "undeclared": _undeclared_count(tree, fields)}


def _undeclared_count(tree: Any, fields: Mapping[str, Any]) -> int | None:
    """How many elements nobody declared; None where that is not to be had."""
    from opfs.errors import OpfsError

    if os.geteuid() != 0 or not fields["is_available"]:
        return None
    try:
        return len(tree.elements(fields["name"], "undeclared"))
    except OpfsError:
        return None
