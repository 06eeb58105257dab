"""`opfs status`: the daemon's own page, or what can be said of a pool whose daemon is down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration, place_options

if TYPE_CHECKING:
    from opfs.config import Config


@click.command()
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool) -> None:
    """Show how the daemon and the pool are.

    Exit code 0 where opfs serves, 1 where it does not.

    \b
    Example:
      opfs status
    """
    from opfs.cli.output import echo, echo_json
    from opfs.fuse.mountpoint import is_answering, is_mounted

    config = configuration()
    mounted = is_mounted(config.mount)
    serving = mounted and is_answering(config.mount)
    page = (config.mount / "status").read_text() if serving else ""
    state = "serving" if serving else "stale" if mounted else "down"
    facts = {"state": state, "mount": str(config.mount), "pool": str(config.pool), **_pool_facts(config)}
    if as_json:
        echo_json({**facts, "status": page.splitlines()} if serving else facts)
    elif serving:
        click.echo(page, nl=False)
    else:
        explanation = {
            "stale": f"the daemon of {config.mount} is gone; opfs mount recovers it",
            "down": f"nothing is mounted on {config.mount}; opfs up starts it",
        }
        echo(explanation[state], "yellow")
        for key, value in facts.items():
            click.echo(f"{key + ':':9}{value}")
    if not serving:
        click.get_current_context().exit(1)


def _pool_facts(config: Config) -> dict[str, object]:
    """What the pool says of itself, as far as it is mounted and may be read."""
    from opfs.btrfs.image import image_path
    from opfs.btrfs.pool import is_pool, load_info
    from opfs.cli.chain import Chain
    from opfs.errors import OpfsError

    try:
        if not is_pool(config.pool):
            image = image_path(config.pool)
            return {"image": str(image)} if image.exists() else {"problem": f"there is no pool in {config.pool}"}
        info = load_info(config.pool)
        facts: dict[str, object] = {"format": info.format, "origin": info.origin, "created": info.created}
        chain = Chain(config.pool / "@chain")
        return {**facts, "blocks": len(chain.blocks), "head": str(chain.head)}
    except PermissionError:
        return {}  # the pool is for root alone; the daemon's page says the same for everybody
    except OpfsError as error:
        return {"problem": str(error)}
