"""`opfs verify-proof`: checks a proof with nothing but the log's key: no pool, no mount, no daemon, no root."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opfs.cli.command import place_options

if TYPE_CHECKING:
    from opfs.core.verdict import Verdict


@click.command("verify-proof")
@place_options
@click.option("--key", "keys", metavar="VKEY|FILE", multiple=True, required=True, help="A key of the log, or log.vkey.")
@click.option("--document", metavar="FILE", help="The document; it must be the one that is proved.")
@click.option("--witness", "witnesses", metavar="VKEY|FILE", multiple=True, help="A witness that must have cosigned.")
@click.option("--policy", metavar="FILE", help="A policy file; its quorum must have cosigned.")
@click.option("--checkpoint", metavar="FILE", help="A checkpoint kept from before; it must be the older one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.argument("file")
def verify_proof(
    keys: tuple[str, ...],
    document: str | None,
    witnesses: tuple[str, ...],
    policy: str | None,
    checkpoint: str | None,
    as_json: bool,
    file: str,
) -> None:
    """Check a proof, step by step from the key down.

    Needs no pool and no daemon. FILE may be - for standard input. Of each kind of key given, one must have
    signed; every witness given must have cosigned, and the quorum of a policy (docs/witness.md). The last line
    says what is proved: compare it with what you were told.

    Exit code 0 where every step holds, 5 where one does not, 2 where the file is no proof.

    \b
    Example:
      opfs verify-proof web.opfs-proof --key log.vkey
      opfs verify-proof web.opfs-proof --key log.vkey --document 100.json
    """
    from opfs.cli.files import load_checkpoint, load_file, load_keys, load_quorum
    from opfs.cli.output import echo_json
    from opfs.core.bundle import MAX_BUNDLE_BYTES
    from opfs.core.verdict import verify_bundle

    verdict = verify_bundle(
        load_file(file, MAX_BUNDLE_BYTES),
        load_keys(keys),
        witnesses=load_keys(witnesses),
        policy=load_quorum(policy) if policy is not None else None,
        document=load_file(document, MAX_BUNDLE_BYTES) if document is not None else None,
        held=load_checkpoint(checkpoint)[0] if checkpoint is not None else None,
    )
    if as_json:
        echo_json(
            {
                "verified": verdict.is_verified,
                "failed": verdict.failed,
                "kind": verdict.kind,
                "claim": verdict.claim,
                "steps": [{"step": rung.step, "holds": rung.holds, "said": rung.said} for rung in verdict.rungs],
            }
        )
    else:
        _show(verdict)
    if not verdict.is_verified:
        click.get_current_context().exit(5)


def _show(verdict: Verdict) -> None:
    """The ladder; with ticks on a terminal, in plain words elsewhere."""
    import sys

    from opfs.cli.output import echo, echo_rows
    from opfs.core.printable import printable

    colours = {True: "green", False: "red", None: "bright_black"}
    ticks = {True: "✓", False: "✗", None: "·"} if sys.stdout.isatty() else {True: "ok", False: "FAILS", None: "-"}
    echo_rows(
        [
            [(ticks[rung.holds], colours[rung.holds]), (rung.step, None), (rung.said, colours[rung.holds])]
            for rung in verdict.rungs
        ]
    )
    if verdict.is_verified:
        echo(printable(f"verified: {verdict.claim}"), "green", bold=True)
    else:
        echo(f"does not verify: {verdict.failed}", "red", bold=True)
