"""What the nodes of /state share: one record, handed to each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from opfs.commit.catalog import Entry
    from opfs.commit.sequencer import Sequencer
    from opfs.core.actor import Actor
    from opfs.core.names import ElementId
    from opfs.ports import Clock
    from opfs.vfs.drafts import Drafts
    from opfs.vfs.node import Caller
    from opfs.vfs.open_documents import OpenDocuments
    from opfs.vfs.submissions import Submissions


@dataclass(frozen=True, slots=True)
class Services:
    """The commit path, the drafts, and who is who."""

    sequencer: Sequencer
    submissions: Submissions
    documents: OpenDocuments
    drafts: Drafts
    identify: Callable[[Caller], Actor]
    clock: Clock

    def visible(self, id: ElementId) -> Entry | None:
        """The committed document, unless it is hidden."""
        return None if self.documents.is_hidden(id) else self.sequencer.catalog.get(id)
