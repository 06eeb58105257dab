"""`opfs label`: names for blocks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from opfs.cli.command import configuration, place_options, require_root
from opfs.cli.completions import complete_blocks, complete_labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.config import Config


@click.command()
@place_options
@click.option("-m", "--message", metavar="MESSAGE", default="", help="Why; one line.")
@click.option("-d", "--delete", "deleted", metavar="NAME", help="Take a label away.", shell_complete=complete_labels)
@click.option("--json", "as_json", is_flag=True, help="List labels as JSON, one object a line.")
@click.argument("name", required=False)
@click.argument("when", metavar="[BLOCK|TIME]", required=False, shell_complete=complete_blocks)
def label(message: str, deleted: str | None, as_json: bool, name: str | None, when: str | None) -> None:
    """Give a block a name, take one away, or list them.

    The newest block, unless a block or a time is named: 41, HEAD~2, 'an hour ago', another label. A label that is
    there already moves. It can stand wherever a block is named, is /mnt/op/at/NAME, keeps its block from being
    pruned, and is an event like any change. Root labels, everybody lists.

    \b
    Example:
      sudo opfs label before-upgrade -m 'Debian 13 tomorrow'
      opfs diff before-upgrade HEAD
      sudo opfs label --delete before-upgrade
    """
    from opfs.cli.chain import open_chain
    from opfs.cli.tree import mounted_tree
    from opfs.core.label import check_label

    config = configuration()
    if name is None and deleted is None:
        if message:
            raise click.UsageError("--message goes with the name of a label")
        _list(config, as_json=as_json)
        return
    if as_json or (name is not None and deleted is not None):
        raise click.UsageError("give a NAME, or --delete NAME, or nothing for a list")
    require_root("label blocks")
    if deleted is not None:
        check_label(deleted)
        mounted_tree(config).command(f"unlabel {deleted}")
        return
    check_label(name or "")
    tree = mounted_tree(config)
    if when is None:
        tree.commit()  # what is pending is what is to be labelled
    block = open_chain(config).resolve(when or "HEAD")
    # ctl takes a line: what would end it here is white space
    tree.command(f"label {name} {block} {' '.join(message.split())}")


def _list(config: Config, *, as_json: bool) -> None:
    from opfs.cli.output import echo, echo_json, echo_rows, short_time

    labels = list(_labels(config))
    if as_json:
        for told in labels:
            echo_json(told)
    elif not labels:
        echo("there is no label", "bright_black")
    else:
        echo_rows(
            [
                [
                    (told["label"], "green"),
                    (told["block"], "yellow"),
                    (short_time(told["time"]), "bright_black"),
                    (told["user"], "cyan"),
                    (told["message"], None),
                ]
                for told in labels
            ]
        )


def _labels(config: Config) -> Iterator[dict[str, Any]]:
    """What /at/.labels says or, where no daemon answers, the events."""
    from opfs.cli.chain import open_chain
    from opfs.cli.tree import MountedTree
    from opfs.core.label import label_of, labelled_block
    from opfs.fuse.mountpoint import is_answering, is_mounted

    if is_mounted(config.mount) and is_answering(config.mount):
        yield from map(json.loads, MountedTree(config.mount).read("at/.labels").splitlines())
        return
    newest: dict[str, dict[str, Any] | None] = {}
    for _, event in open_chain(config).newest_first():
        name = label_of(event.id)
        if name is None or name in newest:
            continue
        block = labelled_block(event)
        user = str(event.actor.get("user") or event.actor.get("uid", ""))
        told = {"label": name, "block": str(block), "time": event.time, "user": user, "message": event.message}
        newest[name] = told if block is not None else None
    yield from (told for _, told in sorted(newest.items()) if told is not None)
