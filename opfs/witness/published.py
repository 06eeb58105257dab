"""The log that witnesses are asked about: the transparency log of a pool, and its last checkpoint with a quorum.

A commit may come every few milliseconds and a witness only every ten seconds, so the newest checkpoint mostly has no
cosignatures yet. The newest one that had a quorum is therefore kept beside it, as `checkpoint.witnessed`: whoever
asks for both needs the two files and a consistency proof. Files and proofs in a worker thread.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import trio

from opfs.core.note import MAX_NOTE_BYTES, open_note, parse_note
from opfs.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opfs.core.note import Note
    from opfs.ports import TransparencyLog

log = logging.getLogger(__name__)

WITNESSED = "checkpoint.witnessed"


class PublishedLog:
    """`opfs.witness.client.WitnessedLog` over `transparency_log`; `directory` is the log's own."""

    def __init__(self, transparency_log: TransparencyLog, directory: Path) -> None:
        self._log = transparency_log
        self._path = directory / WITNESSED

    async def newest(self) -> Note:
        return parse_note(self._log.checkpoint())

    async def witnessed(self) -> Note | None:
        return await trio.to_thread.run_sync(self._read)

    async def consistency_proof(self, old_size: int, new_size: int) -> Sequence[bytes]:
        return await trio.to_thread.run_sync(self._log.consistency_proof, old_size, new_size)

    async def cosign(self, note: Note, *, is_witnessed: bool) -> None:
        await trio.to_thread.run_sync(self._cosign, note, is_witnessed)

    # --- in a worker thread ----------------------------------------------------------------------------------

    def _read(self) -> Note | None:
        try:
            with open(os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                return open_note(file.read(MAX_NOTE_BYTES + 1), self._log.verifiers).note
        except FileNotFoundError:
            return None
        except (IntegrityError, OSError) as error:
            # The next quorum replaces it; until then witnesses are asked as if they had never been.
            log.warning("%s is not used: %s", self._path, error)
            return None

    def _cosign(self, note: Note, is_witnessed: bool) -> None:
        self._log.add_signatures(note)
        # After this line: the checkpoint has its cosignatures, if it still is the newest; a crash here loses the
        # copy below, which the next round makes anew of a newer one.
        if is_witnessed:
            unfinished = self._path.with_name(f"{WITNESSED}.new")
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(unfinished, flags, 0o644), "wb") as file:
                file.write(note.encode())
            os.rename(unfinished, self._path)
