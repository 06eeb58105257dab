"""From documents in files to a plan in a file, and back: what `opfs plan` writes and `opfs apply` reads.

A plan is one JSON object: `opfs_plan` (the version), and `steps` in the order of carrying them out, each the view of
a plan (opfs.core.planview) with the whole `document`, null for a delete. Synchronous.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opfs.cli.files import load_file
from opfs.core.document import MAX_DOCUMENT_BYTES
from opfs.core.names import DOCUMENT_SUFFIX, ElementId, is_draft
from opfs.core.ordering import in_order
from opfs.core.planview import PlanView
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from opfs.cli.tree import MountedTree

VERSION = 1
_MAX_PLAN_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Step:
    """One element of a plan: its document, or None for a delete, and what that would do."""

    content: bytes | None
    view: PlanView


def collect(paths: Sequence[str], element: str | None, deleted: Sequence[str]) -> Mapping[ElementId, bytes | None]:
    """What files, directories and names on the command line want; raises InvalidRequest, also for nothing at all."""
    wanted: dict[ElementId, bytes | None] = {}
    if element is not None:
        if len(paths) != 1 or os.path.isdir(paths[0]):
            raise InvalidRequest("--element says what one file is about", hint="give one FILE with it")
        wanted[ElementId.parse(element)] = load_file(paths[0], MAX_DOCUMENT_BYTES + 1)
    else:
        for id, path in (found for place in paths for found in _documents(place)):
            if id in wanted:
                raise InvalidRequest(f"there are two documents for {id}", hint=f"the second is {path}")
            wanted[id] = load_file(path, MAX_DOCUMENT_BYTES + 1)
    for name in deleted:
        if wanted.setdefault(ElementId.parse(name), None) is not None:
            raise InvalidRequest(f"{name} is to be written and to be deleted", hint="leave one of the two out")
    if not wanted:
        raise InvalidRequest("there is no document to plan", hint="give files or directories, e.g. lxc/100.json")
    return wanted


def make_plan(tree: MountedTree, wanted: Mapping[ElementId, bytes | None]) -> list[Step]:
    """Plan everything, in the order of needs: what others need first, and deletes last and the other way round."""
    views = tree.plan(wanted)

    def needs_of(id: ElementId) -> Sequence[Sequence[ElementId]] | None:
        return views[id].needs if id in views else None

    kept = [id for id, content in wanted.items() if content is not None]
    gone = [id for id, content in wanted.items() if content is None]
    order = [*in_order(kept, needs_of), *reversed(in_order(gone, needs_of))]
    return [Step(wanted[id], views[id]) for id in order]


def save_plan(path: str, steps: Sequence[Step]) -> None:
    """Write a plan, readable by its owner alone: it holds documents. Raises InvalidRequest."""
    fields = [
        {**step.view.to_json(), "document": None if step.content is None else step.content.decode()} for step in steps
    ]
    text = json.dumps({"opfs_plan": VERSION, "steps": fields}, ensure_ascii=False, indent=1) + "\n"
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}") from error


def load_plan(path: str) -> list[Step]:
    """Read a plan; raises InvalidRequest for anything else."""
    refusal = InvalidRequest(f"{path} is no plan", hint="opfs plan -o makes one")
    try:
        fields = json.loads(load_file(path, _MAX_PLAN_BYTES))
        if fields["opfs_plan"] != VERSION:
            raise refusal
        return [
            Step(None if step["document"] is None else step["document"].encode(), PlanView.from_json(step))
            for step in fields["steps"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise refusal from None


def _documents(path: str) -> Iterator[tuple[ElementId, str]]:
    """The documents below a path, by the names that say what they are about."""
    place = Path(path)
    if path != "-" and not place.exists():
        raise InvalidRequest(f"{path} cannot be read: No such file or directory")
    if not place.is_dir():
        yield _id_of(place.parent.resolve().name, place.name), path
        return
    for directory in (place, *sorted(entry for entry in place.iterdir() if entry.is_dir())):
        for file in sorted(directory.iterdir()):
            if file.is_file() and not is_draft(file.name):
                yield _id_of(directory.resolve().name, file.name), str(file)


def _id_of(plugin: str, name: str) -> ElementId:
    try:
        if name.endswith(DOCUMENT_SUFFIX):
            return ElementId.parse(f"{plugin}/{name}")
    except InvalidRequest:
        name = f"{plugin}/{name}"
    raise InvalidRequest(
        f"{name} does not say what it is about", hint="name it <plugin>/<element>.json, or say it: --element lxc/100"
    )
