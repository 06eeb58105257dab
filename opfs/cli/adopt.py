"""`opfs import`: documents for what is already there, so that a host that was never managed can be adopted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options, require_root
from opfs.cli.completions import complete_plugins, complete_undeclared

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from opfs.cli.tree import MountedTree

REFUSED_EXIT_CODE = 3
_COMMAND_BYTES = 60_000  # of ctl's 64 KiB


@click.command("import")
@place_options
@click.option("--all", "everything", is_flag=True, help="Everything that the plugin finds and nobody declared.")
@click.option("--dry-run", is_flag=True, help="Only say what would be imported, and what not and why.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per element.")
@click.option("--operation-dbus", "state_file", metavar="FILE", help="Read a desired state of operation-dbus instead.")
@click.option("--to", "directory", metavar="DIR", help="With --operation-dbus: only write the documents, into DIR.")
@click.option("-y", "--yes", is_flag=True, help="With --operation-dbus: do not ask before something is destroyed.")
@click.argument("plugin", required=False, shell_complete=complete_plugins)
@click.argument("elements", nargs=-1, metavar="[ELEMENT]...", shell_complete=complete_undeclared)
def import_(
    everything: bool,
    dry_run: bool,
    as_json: bool,
    state_file: str | None,
    directory: str | None,
    yes: bool,
    plugin: str | None,
    elements: tuple[str, ...],
) -> None:
    """Write documents for what is already there.

    Nothing on the host changes: an element is imported only where its first plan is empty, and refused with the
    reason where it is not. What only the host may say stays out. All that is imported in one go is one block.

    With --operation-dbus the documents are made from a state.json of operation-dbus. They are what that file wants,
    so the host is brought to it, as by opfs plan and opfs apply; every key without an equivalent is named.

    Exit code 0 where all was imported, 3 where some element was refused.

    \b
    Example:
      sudo opfs import net --all --dry-run
      sudo opfs import lxc 100 101
      opfs import --operation-dbus state.json --to host/
    """
    from opfs.cli.tree import mounted_tree
    from opfs.errors import InvalidRequest, Rejected

    if state_file is not None:
        if plugin is not None or everything:
            raise InvalidRequest("--operation-dbus takes everything from the file", hint="name no plugin with it")
        from opfs.cli.operation_dbus import import_state

        import_state(state_file, directory, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    if directory is not None or yes:
        raise InvalidRequest("--to and --yes go with --operation-dbus")
    if plugin is None or bool(elements) == everything:
        raise InvalidRequest("import what?", hint="opfs import net eth0, or opfs import net --all; --dry-run shows it")
    require_root("declare what is there")
    tree = mounted_tree(configuration())
    if reason := tree.plugin(plugin)["why_not"]:
        raise Rejected(f"the plugin {plugin} cannot work on this host: {reason}")
    if not as_json and everything and not tree.elements(plugin, "undeclared"):
        click.echo("everything there is declared")
        return
    _import(tree, plugin, elements or tree.elements(plugin, "undeclared"), dry_run=dry_run, as_json=as_json)


def _import(tree: MountedTree, plugin: str, elements: Sequence[str], *, dry_run: bool, as_json: bool) -> None:
    from opfs.cli.output import echo, echo_json
    from opfs.core.names import ElementId
    from opfs.core.printable import printable

    schema = tree.schema(plugin)
    ready: list[ElementId] = []
    refused = 0
    try:
        for element in dict.fromkeys(elements):
            id = ElementId.parse(f"{plugin}/{element.removeprefix(f'{plugin}/')}")
            document, reason = _prepared(tree, id, schema)
            if reason:
                refused += 1
            else:
                ready.append(id)
            if as_json:
                echo_json({"element": str(id), "refused": reason or None, "document": document})
            else:
                told = f"refused: {reason}" if reason else "can be imported" if dry_run else "is as its document says"
                echo(printable(f"{id}  {told}"), "yellow" if reason else "green")
        if not dry_run:
            for command in _commands(ready):
                tree.command(command)
    finally:
        for id in ready:
            tree.forget_plan(id)
    if not as_json and not dry_run:
        click.echo(f"{len(ready)} imported" + (f", {refused} refused" if refused else ""))
    if refused:
        click.get_current_context().exit(REFUSED_EXIT_CODE)


def _prepared(tree: MountedTree, id: Any, schema: Mapping[str, Any]) -> tuple[object, str]:
    """The document of an element, planned and kept in /plan; and why it cannot be imported, or nothing."""
    import json

    from opfs.core.adoption import adoptable
    from opfs.errors import NotFound, OpfsError

    if tree.is_declared(id):
        return None, "it has a document already"
    try:
        document = adoptable(schema, json.loads(tree.read(f"undeclared/{id.path}")))
    except NotFound:
        return None, "there is no such thing on this host"
    if secret := _hidden_secret(document):
        return document, f"it holds a secret ({secret}): keep that as a secret and write the document with its name"
    try:
        tree.keep_plan(id, (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode())
        view = tree.kept_plan(id)
    except OpfsError as error:
        tree.forget_plan(id)
        return document, str(error).removeprefix(f"{id}: ")
    if view.actions or view.waits_for:
        tree.forget_plan(id)
        told = "; ".join([*(action.summary for action in view.actions), *(f"waits for {w}" for w in view.waits_for)])
        return document, f"its first plan would not be empty: {told}"
    return document, ""


def _hidden_secret(value: object, path: str = "") -> str:
    """Where a secret stands that was not shown; nothing where there is none."""
    from opfs.core.secretfields import MASK

    if value == MASK:
        return path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next((found for key, item in inner if (found := _hidden_secret(item, f"{path}.{key}".lstrip(".")))), "")


def _commands(ids: Sequence[object]) -> Iterator[str]:
    """The commands that commit the kept plans: one, and so one block, unless there are thousands of elements."""
    words = ["import"]
    size = len("import")
    for id in map(str, ids):
        if size + len(id) + 1 > _COMMAND_BYTES:
            yield " ".join(words)
            words, size = ["import"], len("import")
        words.append(id)
        size += len(id) + 1
    if len(words) > 1:
        yield " ".join(words)
