"""`opfs completion`: the script that makes a shell complete opfs commands."""

from __future__ import annotations

import click

from opfs.cli.command import place_options

SHELLS = ("bash", "zsh", "fish")


@click.command()
@place_options
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, plugins, elements and blocks.

    \b
    Example:
      opfs completion bash > /etc/bash_completion.d/opfs
      opfs completion zsh > "${fpath[1]}/_opfs"
      opfs completion fish > ~/.config/fish/completions/opfs.fish
    """
    from click.shell_completion import get_completion_class

    from opfs.cli import main

    kind = get_completion_class(shell)
    assert kind is not None
    # what click adds to it, a check of bash's version, starts bash and is not for a file
    script = kind(main, {}, "opfs", "_OPFS_COMPLETE")
    click.echo(script.source_template % script.source_vars())
