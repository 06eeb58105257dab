"""What a writer asks of the commit path; pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opfs.core.actor import Actor
    from opfs.core.names import ElementId
    from opfs.ports import FileAttributes


@dataclass(frozen=True, slots=True)
class Change:
    """The desired content of one element: `content` None asks for a delete.

    `attributes` are those the document's file shall have; None keeps what it has. `base_event` is the
    hash of the element's event that the writer started from: if another has been committed since, the
    change is refused with ESTALE. None means the writer replaces whatever is there. `expected_plan` is the digest
    of a plan that somebody looked at (opfs.commit.preview): any other one is refused with ESTALE.
    """

    id: ElementId
    content: bytes | None
    attributes: FileAttributes | None = None
    base_event: str | None = None
    expected_plan: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """Changes that succeed or fail together, in one block, and who wants them.

    With `is_import` the documents describe what is there already: nothing is done, and a plan that would do something
    is refused. `expected_plan` is the digest of a plan of all changes together that somebody looked at: any other one
    is refused with ESTALE. `wants_block` asks for a block at once, after one of what is pending.
    """

    changes: tuple[Change, ...]
    actor: Actor
    message: str = ""
    is_import: bool = False
    expected_plan: str | None = None
    wants_block: bool = False
