"""`opfs index`: the search index, which is derived from the chain: make it again, check it, look at it, export it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opfs.cli.command import Noun, configuration, place_options, require_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.archive.store import KeptStore
    from opfs.config import Config
    from opfs.core.audit import Finding
    from opfs.ports import IndexedEvent

WRONG_EXIT_CODE = 5
INDEX = "@index"


@click.group(cls=Noun)
def index() -> None:
    """Look after the search index.

    It is made from the chain, and can be made again from it at any time.

    \b
    Example:
      sudo opfs index stats
    """


@index.command()
@place_options
def rebuild() -> None:
    """Make the index again from the chain.

    The daemon does it in the background; searches wait for it. Vectors of texts that stay the same are used again.

    \b
    Example:
      sudo opfs index rebuild
    """
    from opfs.cli.tree import mounted_tree

    mounted_tree(configuration()).command("rebuild-index")
    click.echo("the index is being made again; opfs status shows how far it is")


@index.command()
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print findings as JSON lines.")
def check(as_json: bool) -> None:
    """Compare the index with the chain: every event, column, word and vector.

    Changes nothing, and works with and without a daemon. An index that has not got to the end of the chain is not
    wrong. What is wrong is made right by `opfs index rebuild`.

    \b
    Exit codes: 0 everything agrees, 5 something does not, 6 the pool cannot be used.

    \b
    Example:
      sudo opfs index check
    """
    require_root("read the index")
    from opfs.cli.output import echo_json
    from opfs.core.printable import printable

    found = 0
    for finding in _findings(configuration()):
        found += 1
        if as_json:
            echo_json({"path": finding.path, "problem": finding.problem})
        else:
            click.echo(f"{finding.path}: {printable(finding.problem)}")
    if found:
        raise click.exceptions.Exit(WRONG_EXIT_CODE)
    click.echo("everything agrees", err=as_json)


@index.command()
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def stats(as_json: bool) -> None:
    """Show how much the index holds, by which models, and what it takes on the disk.

    \b
    Example:
      sudo opfs index stats
      sudo opfs index stats --json | jq .bytes
    """
    require_root("read the index")
    from opfs.cli.chain import open_chain
    from opfs.cli.output import echo, echo_json, echo_rows
    from opfs.index.looking import stats_of

    config = configuration()
    told = stats_of(config.pool / INDEX)
    chain = open_chain(config)
    header = chain.header(chain.head)
    lag = max(0, header.events_first + header.events_count - told.events)
    total = sum(told.size_bytes.values())
    if as_json:
        models = [{"model": m.model_id, "vectors": m.vectors, "active": m.is_active} for m in told.models]
        fields = {"events": told.events, "behind": lag, "texts": told.texts, "elements": told.elements}
        echo_json({**fields, "models": models, "bytes": {**told.size_bytes, "total": total}})
        return
    echo(f"{told.events} events of {told.elements} elements, {lag} behind; {told.texts} texts")
    for model in told.models:
        use = "" if model.is_active else ", to be used when it has all"
        echo(f"{model.vectors} vectors of {model.model_id}{use}")
    sizes = [*told.size_bytes.items(), ("total", total)]
    echo_rows([[(f"{size / 2**20:.1f} MiB", None), (name, None)] for name, size in sizes])


@index.command()
@place_options
@click.option("--at", metavar="BLOCK", default="HEAD", help="What was known then: a height, a hash or a time.")
@click.argument("file", type=click.Path())
def export(at: str, file: str) -> None:
    """Write the index into FILE, which any program opens that reads SQLite.

    It has the tables events, texts and vectors (float32, little-endian), and `about`, which names the block and the
    model. FILE must not exist yet; only its owner may read it, because it says what documents say.

    \b
    Example:
      sudo opfs index export --at 41 /root/then.db
      sudo sqlite3 /root/then.db 'SELECT time, summary FROM events ORDER BY seq DESC LIMIT 5'
    """
    require_root("read the index")
    from pathlib import Path

    from opfs.cli.chain import open_chain
    from opfs.index.export import export_index

    config = configuration()
    block = open_chain(config).resolve(at)
    told = export_index(config.pool / INDEX, Path(file), height=block.height, block=str(block))
    click.echo(f"{file}: {told.events} events up to block {block}, {told.texts} texts, {told.vectors} vectors")


def _findings(config: Config) -> Iterator[Finding]:
    from contextlib import nullcontext

    from opfs.archive.packs import ARCHIVE, Archive
    from opfs.archive.store import KeptStore
    from opfs.btrfs.pool import Pool
    from opfs.btrfs.store import BtrfsSnapshotStore
    from opfs.cli.process import find_daemon
    from opfs.core.header import BlockHeader
    from opfs.index.audit import IndexAudit

    is_live = find_daemon(config.pool) is not None
    with nullcontext() if is_live else Pool.open(config.pool), BtrfsSnapshotStore(config.pool) as snapshots:
        store = KeptStore(snapshots, Archive(config.pool / "@log" / ARCHIVE))
        blocks = store.list_blocks()
        if not blocks:
            return
        header = BlockHeader.decode(store.read_header(blocks[-1]))
        count = header.events_first + header.events_count
        audit = IndexAudit(config.pool / INDEX)
        yield from audit.check(_events(store), count, may_be_ahead=is_live)
        yield from audit.check_words()
        if not is_live:
            yield from audit.check_search()


def _events(store: KeptStore) -> Iterator[IndexedEvent]:
    from itertools import pairwise

    from opfs.commit.described import describe_event
    from opfs.core.event import decode_events

    for before, name in pairwise((None, *store.list_blocks())):
        if name is not None:
            for event in decode_events(store.read_events(name)):
                yield describe_event(store, event, name, before)
