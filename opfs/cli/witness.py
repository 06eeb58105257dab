"""`opfs witness`: be a witness for other logs, and see what witnesses say of this one (docs/witness.md)."""

from __future__ import annotations

from pathlib import Path

import click

from opfs.cli.command import Noun, configuration, place_options

_DIRECTORY = click.Path(path_type=Path, file_okay=False)
_state_option = click.option(
    "--state", metavar="DIR", type=_DIRECTORY, required=True, help="The witness's directory: its keys and its memory."
)


@click.group(cls=Noun)
def witness() -> None:
    """Be a witness for other logs; see what witnesses say of this one.

    A witness signs that a log only ever grew. Several, on hosts of different owners, make a second history of a log
    impossible to hide. docs/witness.md tells how to run one.

    \b
    Example:
      opfs witness status
    """


@witness.command()
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array of lines.")
def status(as_json: bool) -> None:
    """Show how far witnesses have cosigned this log.

    \b
    Example:
      opfs witness status
    """
    from opfs.cli.output import echo_json
    from opfs.cli.tree import mounted_tree
    from opfs.errors import NotFound

    lines = mounted_tree(configuration()).status("witnesses")
    if not lines:
        raise NotFound("no witness is asked about this log", hint="set witness_policy (docs/witness.md)")
    if as_json:
        echo_json(lines)
    else:
        click.echo("\n".join(lines))


@witness.command()
@place_options
@_state_option
@click.option("--name", required=True, help="The witness's name: a URL of yours without its scheme.")
def keygen(state: Path, name: str) -> None:
    """Make a new witness: its directory, its keys, its empty memory.

    Prints the two verifier keys, of which a log's policy names one: the first is Ed25519, the second ML-DSA-44,
    which a quantum computer does not forge.

    \b
    Example:
      opfs witness keygen --state /var/lib/opfs-witness --name witness.example/w1
    """
    from opfs.errors import PoolError
    from opfs.witness.state import create_state

    try:
        signers = create_state(state, name)
    except OSError as error:
        raise PoolError(f"{state} cannot be made: {error.strerror}") from error
    for signer in signers:
        click.echo(signer.verifier.vkey)


@witness.command()
@place_options
@_state_option
@click.option("--policy", metavar="FILE", type=click.Path(path_type=Path), required=True, help="Its log lines count.")
@click.option(
    "--listen", metavar="HOST:PORT", default="127.0.0.1:8090", show_default=True, help="Where to listen; HTTP, no TLS."
)
def serve(state: Path, policy: Path, listen: str) -> None:
    """Serve as a witness, in the foreground, to the logs that the policy file names.

    Prints the URL when it listens; port 0 takes a free one. Put a proxy with TLS before it to serve other hosts.

    \b
    Example:
      opfs witness serve --state /var/lib/opfs-witness --policy /etc/opfs/logs.policy
    """
    import logging

    from opfs.errors import InvalidRequest
    from opfs.witness.service import serve_witness

    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidRequest(f"{listen!r} is no address to listen at", hint="give HOST:PORT, e.g. 127.0.0.1:8090")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    serve_witness(state, policy, host.strip("[]"), int(port), on_ready=lambda urls: click.echo("\n".join(urls)))


@witness.command()
@place_options
@_state_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def logs(state: Path, as_json: bool) -> None:
    """List what a witness has cosigned: each log, its size and root, and whether it was caught with two histories.

    Exit code 5 where a log was.

    \b
    Example:
      opfs witness logs --state /var/lib/opfs-witness
    """
    from opfs.cli.output import Cell, echo_json, echo_rows
    from opfs.witness.state import load_checkpoints, load_forked

    checkpoints, forked = load_checkpoints(state), load_forked(state)
    rows: list[list[Cell]] = []
    for origin, checkpoint in sorted(checkpoints.items()):
        root, is_forked = checkpoint.root.hex(), origin in forked
        if as_json:
            echo_json({"origin": origin, "size": checkpoint.size, "root": root, "forked": is_forked})
        note: Cell = (f"FORKED: see {state}/forks", "bright_red") if is_forked else ("", None)
        rows.append([(origin, None), (str(checkpoint.size), None), (root[:12], None), note])
    if not as_json:
        echo_rows(rows)
    if forked:
        click.get_current_context().exit(5)
