"""`opfs prove`: one file that shows somebody without the pool what an element was, or that nothing was rewritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options
from opfs.cli.completions import complete_blocks, complete_elements

if TYPE_CHECKING:
    from opfs.cli.chain import Chain
    from opfs.cli.proving import Prover
    from opfs.core.bundle import Bundle


@click.command()
@place_options
@click.option(
    "--at",
    metavar="BLOCK|TIME|LABEL",
    help="The block; the newest unless given. A time is UTC.",
    shell_complete=complete_blocks,
)
@click.option("--with-document", is_flag=True, help="Put the document into the proof.")
@click.option("--event", "seq", type=click.IntRange(0), metavar="SEQ", help="Prove an event, by its number.")
@click.option(
    "--consistency",
    "older",
    metavar="CHECKPOINT|SIZE",
    help="Prove that a checkpoint from before, or so many blocks, are still in the log.",
)
@click.option("--witnessed", is_flag=True, help="Under the newest checkpoint that a quorum of witnesses cosigned.")
@click.option("-o", "--output", metavar="FILE", help="Write to this file instead of to the terminal.")
@click.argument("element", required=False, metavar="[PLUGIN/ELEMENT]", shell_complete=complete_elements)
def prove(
    at: str | None,
    with_document: bool,
    seq: int | None,
    older: str | None,
    witnessed: bool,
    output: str | None,
    element: str | None,
) -> None:
    """Write a proof that needs no pool to be checked.

    Of an element: that it had a certain document in a block, or none. The document itself, and all others,
    stay here unless --with-document is given. Takes one pass over the documents of the block, by somebody
    who may read them all. opfs verify-proof checks it; docs/format.md says how anybody else can.

    \b
    Example:
      sudo opfs prove lxc/100 --at 42 -o web.opfs-proof
      sudo opfs prove --event 17
      opfs prove --consistency checkpoint-of-january
    """
    from opfs.cli.chain import open_chain
    from opfs.cli.proving import Prover
    from opfs.cli.tree import commit_pending
    from opfs.core.bundle import encode_bundle
    from opfs.core.verdict import verify_bundle
    from opfs.errors import IntegrityError

    if sum(item is not None for item in (element, seq, older)) != 1:
        raise click.UsageError("give one of PLUGIN/ELEMENT, --event and --consistency")
    if (element is None and at is not None) or (older is not None and with_document):
        raise click.UsageError("--at goes with an element, --with-document with an element or an event")
    config = configuration()
    if at is None:
        commit_pending(config)
    chain = open_chain(config)
    prover = Prover(chain, witnessed=witnessed)
    data = encode_bundle(_make(chain, prover, element, at, seq, older, with_document=with_document))
    verdict = verify_bundle(data, prover.keys())
    if not verdict.is_verified:
        broken = next(rung for rung in verdict.rungs if not rung.holds)
        raise IntegrityError(f"the proof would not verify, at the step {broken.step}: {broken.said}")
    if output is None:
        click.echo(data, nl=False)
    else:
        _write(output, data)
        click.echo(f"{output}: {verdict.claim}")


def _make(
    chain: Chain,
    prover: Prover,
    element: str | None,
    at: str | None,
    seq: int | None,
    older: str | None,
    *,
    with_document: bool,
) -> Bundle:
    from opfs.cli.files import load_checkpoint
    from opfs.core.names import ElementId

    if element is not None:
        return prover.element(ElementId.parse(element), chain.resolve(at or "HEAD"), with_document=with_document)
    if seq is not None:
        return prover.event(seq, with_document=with_document)
    if older is not None and older.isascii() and older.isdigit():
        return prover.consistency(int(older[:20]))
    checkpoint, note = load_checkpoint(older or "")
    return prover.consistency(checkpoint, note)


def _write(path: str, data: bytes) -> None:
    from opfs.errors import InvalidRequest

    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}") from error
