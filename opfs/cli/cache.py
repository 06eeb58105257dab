"""`opfs cache`: what the cache did and holds; empty it, or read all of it.

Asks the daemon, or works on a pool at rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from opfs.cli.command import Noun, configuration, place_options, require_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from opfs.cli.output import Cell
    from opfs.config import Config
    from opfs.daemon.caching import Caretaker

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(cls=Noun)
def cache() -> None:
    """Look after the cache, which is disposable.

    It holds vectors of texts that were asked for, answers of searches, and documents of pruned blocks. Whatever happens
    to it costs time and nothing else. What each layer is worth: docs/design/cache.md.

    \b
    Example:
      sudo opfs cache stats
    """


@cache.command()
@place_options
@_JSON
def stats(as_json: bool) -> None:
    """Show what each layer holds, how often it helped, and how much time that saved.

    Hits, misses and what follows are counted since the daemon was started. SAVED is what the answers that were there
    had taken to work out when they were kept.

    \b
    Example:
      sudo opfs cache stats
      sudo opfs cache stats --json | jq .layers.queries
    """
    from opfs.cli.output import echo, echo_json, echo_rows

    told = _ask("stats")
    if as_json:
        echo_json(told)
        return
    head = ("LAYER", "ENTRIES", "SIZE", "LIMIT", "HITS", "MISSES", "EVICTED", "DAMAGED", "REFUSED", "SAVED")
    rows: list[list[Cell]] = [[(title, "cyan") for title in head]]
    for name, layer in told["layers"].items():
        if not layer["max_bytes"]:
            rows.append([(name, None), ("off", "bright_black"), *[("", None)] * 8])
            continue
        texts = (
            str(layer["entries"]),
            _mib(layer["bytes"]),
            _mib(layer["max_bytes"]),
            *(str(layer[key]) for key in ("hits", "misses", "evictions", "damaged", "refused")),
            f"{layer['saved_us'] / 1e6:.3f} s",
        )
        rows.append([(name, None), *((text, None) for text in texts)])
    echo_rows(rows)
    count = len(told["snapshots"])
    echo(f"{told['directory']}, {count} snapshot{'s' * (count != 1)}")


@cache.command()
@place_options
def clear() -> None:
    """Empty the cache and remove its snapshots.

    \b
    Example:
      sudo opfs cache clear
    """
    _ask("clear")
    click.echo("the cache is empty, and has no snapshots")


@cache.command()
@place_options
@_JSON
def verify(as_json: bool) -> None:
    """Read everything in the cache; what is not what was put there is forgotten.

    Not needed for right answers: each record is checked whenever it is used.

    \b
    Example:
      sudo opfs cache verify
    """
    from opfs.cli.output import echo_json

    told = _ask("verify")
    if as_json:
        echo_json(told)
        return
    well = sum(counts["well"] for counts in told.values())
    damaged = sum(counts["damaged"] for counts in told.values())
    click.echo(f"{well} records are well, {damaged} were damaged" + (" and are forgotten" if damaged else ""))


def _ask(word: str) -> dict[str, Any]:
    """What the daemon answers to a command, or the pool at rest."""
    import json

    from opfs.cli.process import find_daemon
    from opfs.cli.tree import mounted_tree

    require_root("look into the cache")
    config = configuration()
    if find_daemon(config.pool) is not None:
        answer = mounted_tree(config).tell(f"cache {word}")
    else:
        with _at_rest(config) as caretaker:
            answer = caretaker.carry_out(word)
    told: dict[str, Any] = json.loads(answer or "{}")
    return told


def _at_rest(config: Config) -> AbstractContextManager[Caretaker]:
    from contextlib import closing, contextmanager

    from opfs.btrfs.pool import Pool
    from opfs.daemon.caching import open_cache, take_care

    @contextmanager
    def opened() -> Iterator[Caretaker]:
        with Pool.open(config.pool) as pool, closing(open_cache(config, pool)) as cache:
            yield take_care(config, pool, cache, lambda: True)

    return opened()


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"
