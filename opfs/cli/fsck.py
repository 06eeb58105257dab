"""`opfs fsck`: verify a pool at rest, and make again what is derived from its blocks."""

from __future__ import annotations

import click

from opfs.cli.command import configuration, place_options, require_root


@click.command()
@place_options
@click.option("--repair", "wants_repair", is_flag=True, help="Make again what is derived and wrong.")
def fsck(wants_repair: bool) -> None:
    """Check a pool that no daemon uses, and repair what can be made again.

    Layer, log and index are derived from the blocks; with --repair those that are wrong are made again, and
    everything is checked once more. A block is never changed: what is wrong in one has to come back from a
    replica. Neither is a log made again that has signed more or other blocks than there are.

    \b
    Exit codes: 0 everything agrees (now), 5 something does not, 6 the pool cannot be used.

    \b
    Example:
      sudo opfs umount
      sudo opfs fsck --repair
    """
    require_root("read every document of a pool")
    from opfs.btrfs.pool import Pool
    from opfs.cli.repair import repair
    from opfs.cli.verification import PoolVerification
    from opfs.cli.verify import WRONG_EXIT_CODE, run_verification, worker_count

    config = configuration()
    with Pool.open(config.pool) as pool:
        first = PoolVerification(config.pool, workers=worker_count())
        run_verification(first)
        if not first.findings:
            return
        if not wants_repair:
            click.echo("opfs: what is not in a block can be made again: opfs fsck --repair", err=True)
            raise click.exceptions.Exit(WRONG_EXIT_CODE)
        if first.is_contradicted or any(finding.block for finding in first.findings):
            click.echo("opfs: nothing was repaired: the blocks themselves are not what they were", err=True)
            click.echo("      put them back from a replica or a backup first", err=True)
            raise click.exceptions.Exit(WRONG_EXIT_CODE)
        repair(config, pool, first.findings, click.echo)
        again = PoolVerification(config.pool, workers=worker_count())
        run_verification(again)
        if again.findings:
            raise click.exceptions.Exit(WRONG_EXIT_CODE)
