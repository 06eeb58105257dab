"""The reference of the command line, written from the commands themselves: `python -m opfs.cli.reference`.

docs/cli.md is its output, and a test holds it to that. Imports every command; used by nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from opfs import errors
from opfs.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH = 100

_HEAD = """\
# The command line

Each command is one call of the library or one file operation below the mount. `--json` prints JSON, one value a line.
Colours appear on a terminal only, and not where `NO_COLOR` is set. `--pool` and `--mount` may stand before or after
the command's name; without them `OPFS_POOL`, `OPFS_MOUNT` and the configuration hold ([operations.md](operations.md)).

This page is made by `python -m opfs.cli.reference`.

## Exit codes

| code | meaning |
|---|---|
"""


def reference() -> str:
    """The whole page."""
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in _exit_codes())
    pages = "\n".join(f"## {title}\n\n```\n{text}```\n" for title, text in _help_pages(main, "opfs"))
    return f"{_HEAD}{codes}\n{pages}"


def _exit_codes() -> Iterator[tuple[int, str]]:
    """Every code and what the first error class that has it says of itself."""
    yield 0, "It is done."
    meanings = {1: "Something is wrong: what was asked about is down or damaged, or a mistake of opfs itself."}
    classes: tuple[type[errors.OpfsError], ...] = (
        errors.InvalidRequest,
        errors.Rejected,
        errors.ApplyFailed,
        errors.IntegrityError,
        errors.PoolError,
        errors.CommitUnknown,
    )
    for error in classes:
        meanings[error.exit_code] = (error.__doc__ or "").strip()
    yield from sorted(meanings.items())
    yield 130, "It was stopped from the keyboard."


def _help_pages(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    settings: dict[str, Any] = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, parent, info_name=name, **settings)
    yield context.command_path, command.get_help(context) + "\n"
    if isinstance(command, click.Group):
        for inner_name in command.list_commands(context):
            inner = command.get_command(context, inner_name)
            assert inner is not None
            yield from _help_pages(inner, inner_name, context)


if __name__ == "__main__":
    click.echo(reference(), nl=False)
