"""`opfs verify`: check everything that a pool holds against its hashes and signatures."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options, require_root

if TYPE_CHECKING:
    from pathlib import Path

    from opfs.cli.verification import PoolVerification
    from opfs.config import Config
    from opfs.core.audit import Finding

WRONG_EXIT_CODE = 5
SAVE_EVERY_S = 1.0
MAX_WORKERS = 8


@click.command()
@place_options
@click.option("--since", metavar="HEIGHT", type=click.IntRange(0), help="Check blocks from this one on.")
@click.option("--sample", metavar="N", type=click.IntRange(0), help="Read N documents of each block, chosen at random.")
@click.option("--fresh", is_flag=True, help="Begin anew where an earlier run was stopped.")
@click.option("--json", "as_json", is_flag=True, help="Print findings as JSON lines.")
def verify(since: int | None, sample: int | None, fresh: bool, as_json: bool) -> None:
    """Check every hash, link, tile and signature of a pool.

    Reads every document of every block; changes nothing. Works with and without a daemon. A run that was
    stopped goes on where it was. Each line names the place and which of the things that have to agree does
    not: stored bytes, name, tree, header, event, block, layer, log, signature or index.

    \b
    Exit codes: 0 everything agrees, 5 something does not, 6 the pool cannot be used.

    \b
    Example:
      sudo opfs verify
      sudo opfs verify --since 1000 --sample 10
    """
    require_root("read every document of a pool")
    from contextlib import nullcontext

    from opfs.btrfs.pool import Pool
    from opfs.cli.process import find_daemon
    from opfs.cli.verification import PoolVerification

    config = configuration()
    is_live = find_daemon(config.pool) is not None
    with nullcontext() if is_live else Pool.open(config.pool):
        verification = PoolVerification(config.pool, since or 0, sample, worker_count(), is_live)
        if since is None and sample is None:
            _run_resumable(config, verification, fresh=fresh, as_json=as_json)
        else:
            run_verification(verification, as_json=as_json)
    if verification.findings:
        raise click.exceptions.Exit(WRONG_EXIT_CODE)


def _run_resumable(config: Config, verification: PoolVerification, *, fresh: bool, as_json: bool) -> None:
    from opfs.cli.verification import Progress

    path, pool_id = config.runtime / "verify.json", verification.id
    progress = None if fresh else Progress.load(path, pool_id)
    if progress is not None:
        click.echo(f"opfs: going on after block {progress.block}, where an earlier run was stopped", err=True)
        verification.since = progress.block.height + 1
        verification.findings += progress.findings
        for finding in progress.findings:
            _show(finding, as_json)
    run_verification(verification, as_json=as_json, save_to=(path, pool_id))
    path.unlink(missing_ok=True)


def worker_count() -> int:
    """How many processes to hash in."""
    return min(len(os.sched_getaffinity(0)), MAX_WORKERS)


def run_verification(
    verification: PoolVerification, *, as_json: bool = False, save_to: tuple[Path, str] | None = None
) -> None:
    """Run it, print every finding and a last line that sums up; `save_to` is a file for how far it is, and the pool."""
    from opfs.cli.output import Bar
    from opfs.cli.verification import Progress

    started = saved = time.monotonic()
    done = total = 0
    with Bar("verifying") as bar:
        for done, total, name, findings in verification.run():
            bar.show(done, total)
            for finding in findings:
                bar.clear()
                _show(finding, as_json)
            now = time.monotonic()
            if save_to is not None and name is not None and now - saved > SAVE_EVERY_S:
                Progress(name, tuple(verification.findings)).save(*save_to)
                saved = now
    seconds = time.monotonic() - started
    found = len(verification.findings)
    verdict = f"{found} thing{'s do' if found > 1 else ' does'} not agree" if found else "everything agrees"
    click.echo(
        f"{total} blocks, {verification.documents_read} documents read in {seconds:.1f} s: {verdict}", err=as_json
    )


def _show(finding: Finding, as_json: bool) -> None:
    from opfs.cli.output import echo_json
    from opfs.core.printable import printable

    if as_json:
        block = str(finding.block) if finding.block else None
        fields = {"block": block, "path": finding.path, "disagrees": finding.disagrees, "problem": finding.problem}
        echo_json(fields)
    else:
        click.echo(printable(str(finding)))
    sys.stdout.flush()
