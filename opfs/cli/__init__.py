"""The command line: a thin client of the mounted tree and of the library, one module per noun.

This module knows the commands' names and one line about each, so that `opfs --help` imports none of them.
It also is where errors end: one or two lines on stderr and the exit code of the error's class. It does no
work of its own.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from contextlib import suppress
from typing import Any, NoReturn

import click

from opfs import __version__
from opfs.cli.command import place_options
from opfs.errors import OpfsError, Rejected

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("opfs.cli.up:up", "Make the pool if there is none, mount it, start the daemon."),
    "down": ("opfs.cli.down:down", "Stop the daemon, free the mount and the loop device; keep the data."),
    "mount": ("opfs.cli.up:mount", "Mount an existing pool, also after a crash."),
    "umount": ("opfs.cli.down:umount", "Stop the daemon; the pool stays mounted."),
    "status": ("opfs.cli.status:status", "Show how the daemon and the pool are."),
    "top": ("opfs.cli.top:top", "Show live how busy opfs is and how it stands."),
    "log": ("opfs.cli.log:log", "List what changed, newest first."),
    "events": ("opfs.cli.events:events", "Print events, oldest first, as they are in /events."),
    "show": ("opfs.cli.show:show", "Show a block, or a document as it was in it."),
    "diff": ("opfs.cli.diff:diff", "Show what differs between two blocks, key by key."),
    "history": ("opfs.cli.history:history", "List the versions of an element, newest first."),
    "blame": ("opfs.cli.blame:blame", "Show who last set each key of a document."),
    "label": ("opfs.cli.label:label", "Give a block a name, take one away, or list them."),
    "bisect": (
        "opfs.cli.bisect:bisect",
        "Find the first bad block by running a command in some of the blocks between.",
    ),
    "search": ("opfs.cli.search:search", "Find changes by meaning."),
    "verify": ("opfs.cli.verify:verify", "Check every hash, link, tile and signature of a pool."),
    "fsck": ("opfs.cli.fsck:fsck", "Check a pool that no daemon uses, and repair what can be made again."),
    "prove": ("opfs.cli.prove:prove", "Write a proof that needs no pool to be checked."),
    "verify-proof": ("opfs.cli.verify_proof:verify_proof", "Check a proof, step by step from the key down."),
    "drift": ("opfs.cli.drift:drift", "Show in what the host is not as declared, key by key."),
    "live": ("opfs.cli.drift:live", "Show what an element is right now."),
    "plan": ("opfs.cli.plan:plan", "Show what documents would do, without doing it."),
    "apply": ("opfs.cli.plan:apply", "Carry out exactly the plan that opfs plan kept."),
    "import": ("opfs.cli.adopt:import_", "Write documents for what is already there."),
    "plugin": ("opfs.cli.plugin:plugin", "List and examine plugins; check that one keeps the contract."),
    "schema": ("opfs.cli.schema:schema", "Show what a plugin's documents may say, key by key."),
    "commit": ("opfs.cli.commit:commit", "Make a block of what is pending, now."),
    "prune": ("opfs.cli.prune:prune", "Archive the blocks that need no snapshot."),
    "erase": ("opfs.cli.erase:erase", "Destroy what a block made of an element, everywhere."),
    "rollback": (
        "opfs.cli.rollback:rollback",
        "Go back to what a block had: the whole host, a plugin, or single elements.",
    ),
    "restore-state": (
        "opfs.cli.restore_state:restore_state",
        "Write down what a fresh host needs to become this one, and bring a host to it.",
    ),
    "rm": ("opfs.cli.rm:rm", "Delete an element, asking first."),
    "key": ("opfs.cli.key:key", "Show, rotate and import the keys that sign the log."),
    "witness": ("opfs.cli.witness:witness", "Be a witness for other logs; see what witnesses say of this one."),
    "index": ("opfs.cli.index:index", "Look after the search index."),
    "cache": ("opfs.cli.cache:cache", "Look after the cache, which is disposable."),
    "model": ("opfs.cli.model:model", "List, fetch and verify the language models that search uses."),
    "completion": (
        "opfs.cli.completion:completion",
        "Print what makes a shell complete commands, plugins, elements and blocks.",
    ),
    "bench": ("opfs.cli.bench:bench", "Measure what this machine makes of opfs."),
    "doctor": ("opfs.cli.doctor:doctor", "Check that everything opfs needs is there."),
}
"""Name: where the command is, and its first line of help (a test holds it to the command's own)."""


class Commands(click.Group):
    """A group that imports a command when it is called or asked for help, and turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if args[0] not in COMMANDS and near:
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {near[0]!r}?", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        try:
            exit_code = super().main(*args, **{"prog_name": "opfs", **extra, "standalone_mode": False})
        except OpfsError as error:
            _report(error.reason, error.hint)
            sys.exit(error.exit_code)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(error.exit_code)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "opfs"
            _report(" ".join(error.format_message().split()), f"see {path} --help")
            sys.exit(error.exit_code)
        except click.ClickException as error:
            _report(error.format_message())
            sys.exit(error.exit_code)
        except click.Abort as error:
            _end_aborted(error)
        except OSError as error:  # what commands ask of files they translate, so this is the output
            _report(f"{error.filename or 'the output'} cannot be written: {error.strerror}")
            _give_up_output()
            sys.exit(1)
        sys.exit(exit_code if isinstance(exit_code, int) else 0)


def _give_up_output() -> None:
    """What is still in its buffer goes nowhere: at the end Python would try again, and tell of it in its own way."""
    with suppress(OSError):  # a test's output has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_aborted(error: click.Abort) -> NoReturn:
    """A question was answered with no, or with nothing at all, or ctrl-C ended the command."""
    why, is_at_prompt = error.__context__, error.__context__ is not None and error.__cause__ is None
    if is_at_prompt:
        click.echo(err=True)
    if isinstance(why, KeyboardInterrupt):
        _report("stopped")
        sys.exit(130)
    if isinstance(why, EOFError):
        _report("nobody answered, and nothing was done", "--yes goes on without asking")
    else:
        _report("nothing was done")
    sys.exit(Rejected.exit_code)


def _report(reason: str, hint: str = "") -> None:
    click.echo(f"opfs: {reason}", err=True)
    if hint:
        click.echo(f"      {hint}", err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@place_options
@click.version_option(__version__, message="opfs %(version)s")
def main() -> None:
    """A host's configuration as a file system whose history is a chain of blocks.

    Write a JSON document below /mnt/op/state and the host changes to match, in one block of /mnt/op/chain.

    \b
    Example:
      sudo opfs up
      echo '{"hostname": "web", "memory": 512, "state": "running"}' > /mnt/op/state/lxc/100.json
      opfs log
    """
