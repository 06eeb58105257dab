"""What all commands share: where the pool and the mount are, and the configuration that follows from it.

`--pool` and `--mount` are accepted before and after the command's name; the later one wins. Imports nothing
heavy: every command's module imports this one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

from opfs.config import load_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from opfs.config import Config

F = TypeVar("F", bound="Callable[..., Any]")

_META = "opfs.flags"


class Noun(click.Group):
    """The commands about one thing; its help has the whole first sentence of each."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(limit=1000)) for name, command in commands if command]
            )


def set_flag(key: str, value: object) -> None:
    """Let a flag override the setting `key` in the `configuration()` of this invocation."""
    if value is not None:
        click.get_current_context().meta.setdefault(_META, {})[key] = value


def flags_of(context: click.Context) -> dict[str, object]:
    """The flags that this invocation has set so far."""
    flags: dict[str, object] = context.meta.get(_META, {})
    return flags


def configuration(**flags: object) -> Config:
    """The configuration with this invocation's flags; its warnings go to stderr.

    Raises InvalidRequest.
    """
    context = click.get_current_context()
    config = load_config({**flags_of(context), **flags})
    for warning in config.warnings:
        click.echo(f"opfs: warning: {warning}", err=True)
    return config


def place_options(function: F) -> F:
    """Add `--pool` and `--mount`; their values reach `configuration()`, not the function."""

    def remember(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        # a path on the command line is relative to where the person is
        if value is not None and parameter.name:
            set_flag(parameter.name, os.path.abspath(value) if value else value)

    for name, metavar, text in (
        ("mount", "DIR", "Where the tree is mounted (OPFS_MOUNT).  [default: /mnt/op]"),
        ("pool", "DIR", "Where the pool is (OPFS_POOL).  [default: /var/lib/op-dbus]"),
    ):
        option = click.option(f"--{name}", metavar=metavar, help=text, expose_value=False, callback=remember)
        function = option(function)
    return function


def require_root(to_do: str) -> None:
    """End with exit code 3 unless run by root."""
    if os.geteuid() != 0:
        from opfs.errors import Rejected

        raise Rejected(f"only root can {to_do}", hint="run it again with sudo")
