"""Where everything that /state wants committed passes: notes for the commit, and a record of each refusal.

Validates nothing itself (the sequencer does) and holds no bytes. Trio thread only.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from opfs.commit.change import Request
from opfs.errors import OpfsError, Stale
from opfs.vfs.notes import NO_NOTE, base_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opfs.commit.change import Change
    from opfs.commit.refusals import Refusals
    from opfs.commit.sequencer import Sequencer
    from opfs.core.actor import Actor
    from opfs.core.names import BlockName, ElementId
    from opfs.vfs.node import Caller
    from opfs.vfs.notes import Note
    from opfs.vfs.open_documents import OpenDocuments


class Submissions:
    """The way from /state to the sequencer."""

    def __init__(
        self,
        sequencer: Sequencer,
        refusals: Refusals,
        documents: OpenDocuments,
        identify: Callable[[Caller], Actor],
    ) -> None:
        self._sequencer = sequencer
        self._refusals = refusals
        self._documents = documents
        self._identify = identify
        self._notes: dict[tuple[int, ElementId], Note] = {}

    async def commit(
        self, *changes: Change, actor: Actor, note: Note | None = None, is_import: bool = False
    ) -> BlockName:
        """Commit the changes together; raises what `Sequencer.submit` raises.

        `note` stands in for what the actor's user has noted on the elements; the latter is used up by success, and a
        plan by the attempt: left behind it would refuse a later write that knows nothing of it.
        """
        notes = [note or self.note(actor.uid, change.id) for change in changes]
        for change, noted in zip(changes, notes, strict=True):
            if note is None and noted.plan:
                self.set_note(actor.uid, change.id, replace(noted, plan=""))
        message = next((n.message for n in notes if n.message), "")
        based = tuple(self._based(change, n) for change, n in zip(changes, notes, strict=True))
        return await self.submit(Request(based, actor, message, is_import=is_import))

    async def submit(self, request: Request) -> BlockName:
        """Commit a request as it is; what its user has noted on the elements is used up by success."""
        block = await self._sequencer.submit(request)
        for change in request.changes:
            self._documents.show(change.id)
            self._refusals.clear(change.id)
            self._notes.pop((request.actor.uid, change.id), None)
        return block

    def _based(self, change: Change, note: Note) -> Change:
        """The change, tied to the plan and the block that its author said it starts from."""
        if note.plan:
            change = replace(change, expected_plan=note.plan)
        catalog = self._sequencer.catalog
        entry = catalog.get(change.id)
        if entry is None or (note.base_height is None and not note.base_event):
            return change
        if note.base_event:
            is_stale, based = not entry.last_event.startswith(note.base_event), "a change that is not the newest"
        else:
            is_stale, based = entry.height > (note.base_height or 0), f"block {note.base_height}"
        if is_stale:
            raise Stale(
                f"{change.id} was changed by {entry.author or 'somebody'} in {catalog.where(entry)}, "
                f"and this write is based on {based}",
                hint=f"read it again, and set user.opfs.base to {base_of(entry, catalog)}",
            )
        return replace(change, base_event=change.base_event or entry.last_event)

    # --- notes -------------------------------------------------------------------------------------------

    def note(self, uid: int, id: ElementId) -> Note:
        return self._notes.get((uid, id), NO_NOTE)

    def set_note(self, uid: int, id: ElementId, note: Note) -> None:
        if note == NO_NOTE:
            self._notes.pop((uid, id), None)
        else:
            self._notes[uid, id] = note

    # --- refusals ----------------------------------------------------------------------------------------

    @contextmanager
    def recorded(
        self,
        id: ElementId | None,
        path: str,
        caller: Caller,
        *,
        actor: Actor | None = None,
        content: Callable[[], bytes] | None = None,
        about: ElementId | None = None,
    ) -> Iterator[None]:
        """Record an OpfsError that leaves the block, with the bytes it is about, and let it go on.

        `actor` is who the caller was when it could still be asked; `about` the element of bytes that are not kept.
        """
        try:
            yield
        except OpfsError as error:
            if not self._refusals.has_recorded(error):
                self._refusals.record(
                    error,
                    path=path,
                    id=id,
                    content=content() if content else None,
                    actor=actor or self._identify(caller),
                    gid=caller.gid,
                    about=about,
                )
            raise
