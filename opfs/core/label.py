"""Labels: names that people give to blocks, as events about opfs itself tell of them; pure.

A label is the element `opfs/label.<name>`. Its newest event says where it points, in the summary of its one step (op
`label`), or that it was taken away (op `unlabel`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from opfs.core.moments import is_when
from opfs.core.names import OWN_EVENTS, BlockName, ElementId
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.core.event import Event

LABEL, UNLABEL = "label", "unlabel"
_PREFIX = "label."
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}\Z", re.ASCII)


def check_label(name: str) -> None:
    """Raise InvalidRequest unless `name` can be a label: it must not mean a block or a time by itself."""
    if not _NAME.match(name):
        raise InvalidRequest(
            f"{name!r} cannot be a label",
            hint="1 to 64 of A-Z a-z 0-9 . _ - that begin with a letter, e.g. before-upgrade",
        )
    if is_when(name) or name == "HEAD":
        raise InvalidRequest(
            f"{name!r} means a block or a time already", hint="choose another name, e.g. before-upgrade"
        )


def is_label(name: str) -> bool:
    """Whether `check_label` accepts it."""
    try:
        check_label(name)
    except InvalidRequest:
        return False
    return True


def label_id(name: str) -> ElementId:
    """What the events of a label are about."""
    return ElementId(OWN_EVENTS, _PREFIX + name)


def label_of(id: ElementId) -> str | None:
    """The name of the label that events of `id` are about; None where they are about something else."""
    if id.plugin != OWN_EVENTS or not id.element.startswith(_PREFIX):
        return None
    return id.element.removeprefix(_PREFIX)


def label_plan(block: BlockName) -> tuple[Mapping[str, object], ...]:
    """The plan of the event that lets a label stand for `block`."""
    return ({"step": LABEL, "summary": str(block), "safety": "safe"},)


def labelled_block(event: Event) -> BlockName | None:
    """The block that the event's label stands for from then on; None where it took the label away."""
    return BlockName.parse(str(event.plan[0]["summary"])) if event.op == LABEL else None
