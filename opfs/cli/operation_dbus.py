"""`opfs import --operation-dbus`: a state.json of operation-dbus as documents, planned and carried out like others."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from opfs.cli.command import configuration
from opfs.cli.files import load_file
from opfs.core.operation_dbus import convert_state
from opfs.core.printable import printable
from opfs.errors import InvalidRequest, OpfsError, Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.cli.tree import MountedTree
    from opfs.core.names import ElementId
    from opfs.core.operation_dbus import Remark

_MAX_STATE_BYTES = 1 << 26


def import_state(path: str, directory: str | None, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Convert a state and write it to `directory`, or plan it (`dry_run`), or bring the host to it."""
    from opfs.cli.plan import run_steps, show_steps
    from opfs.cli.planfile import make_plan
    from opfs.cli.tree import mounted_tree

    try:
        state = json.loads(load_file(path, _MAX_STATE_BYTES))
    except ValueError as error:
        raise InvalidRequest(f"{path} is not JSON: {error}") from None
    converted = convert_state(state)
    _tell(converted.remarks, as_json=as_json)
    wanted = {
        id: (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode()
        for id, document in converted.documents.items()
    }
    if as_json:
        for id, document in converted.documents.items():
            click.echo(json.dumps({"element": str(id), "document": document}, ensure_ascii=False))
    if directory is not None:
        if not dry_run:
            _write(directory, wanted)
        click.echo(f"{len(wanted)} documents{' would be' if dry_run else ''} written to {directory}", err=as_json)
        return
    if not wanted:
        return
    tree = mounted_tree(configuration())
    _check_all(tree, wanted)
    steps = make_plan(tree, wanted)
    if dry_run:
        if not as_json:
            show_steps(steps)
        return
    run_steps(tree, steps, yes=yes)


def _tell(remarks: Sequence[Remark], *, as_json: bool) -> None:
    for remark in remarks:
        if as_json:
            click.echo(json.dumps({"pointer": remark.pointer, "remark": remark.said}, ensure_ascii=False))
        else:
            click.echo(printable(f"{remark.pointer or '/'}  {remark.said}"), err=True)


def _check_all(tree: MountedTree, wanted: Mapping[ElementId, bytes]) -> None:
    """Say what is wrong with every document that is refused, before anything is done; raises Rejected."""
    refused = 0
    try:
        for id, content in wanted.items():
            try:
                tree.keep_plan(id, content)
            except OpfsError as error:
                refused += 1
                click.echo(printable(f"opfs: {error}"), err=True)
    finally:
        for id in wanted:
            tree.forget_plan(id)
    if refused:
        raise Rejected(
            f"{refused} of {len(wanted)} documents are refused, and nothing was done",
            hint="write them to a directory with --to, put them right, and use opfs plan",
        )


def _write(directory: str, wanted: Mapping[ElementId, bytes]) -> None:
    try:
        for id, content in wanted.items():
            os.makedirs(os.path.join(directory, id.plugin), exist_ok=True)
            with open(os.path.join(directory, id.path), "xb") as file:
                file.write(content)
    except FileExistsError as error:
        raise InvalidRequest(f"{error.filename} is there already", hint="give a directory that is empty") from None
    except OSError as error:
        raise InvalidRequest(f"{directory} cannot be written: {error.strerror}") from error
