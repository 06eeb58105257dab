"""The log that witnesses are asked about: the transparency log of a pool, reached without blocking.

A commit may come every few milliseconds and a witness only every ten seconds, so the newest checkpoint mostly has no
cosignatures yet. The newest one that had a quorum is therefore kept beside it, as `checkpoint.witnessed`.
Files and proofs in a worker thread.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from opfs.core.note import parse_note
from opfs.errors import IntegrityError, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.core.note import Note
    from opfs.ports import TransparencyLog

log = logging.getLogger(__name__)


class PublishedLog:
    """`opfs.witness.client.WitnessedLog` over a `TransparencyLog`."""

    def __init__(self, transparency_log: TransparencyLog) -> None:
        self._log = transparency_log

    async def newest(self) -> Note | None:
        try:
            return parse_note(self._log.checkpoint())
        except NotFound:
            return None

    async def witnessed(self) -> Note | None:
        return await trio.to_thread.run_sync(self._witnessed)

    async def consistency_proof(self, old_size: int, new_size: int) -> Sequence[bytes]:
        return await trio.to_thread.run_sync(self._log.consistency_proof, old_size, new_size)

    async def cosign(self, note: Note, *, is_witnessed: bool) -> None:
        await trio.to_thread.run_sync(self._cosign, note, is_witnessed)

    # --- in a worker thread ----------------------------------------------------------------------------------

    def _witnessed(self) -> Note | None:
        try:
            return parse_note(self._log.witnessed())
        except NotFound:
            return None
        except IntegrityError as error:
            log.warning("the last checkpoint with a quorum is not used, and will be replaced: %s", error)
            return None

    def _cosign(self, note: Note, is_witnessed: bool) -> None:
        self._log.add_signatures(note)
        # After this line: the checkpoint has its cosignatures, if it still is the newest; a crash here loses the
        # copy below; the next round makes one of a newer checkpoint.
        if is_witnessed:
            self._log.keep_witnessed(note)
