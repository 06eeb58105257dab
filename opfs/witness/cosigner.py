"""A witness: judges what logs send, remembers it durably, and only then signs.

What may be signed is decided in opfs.core.witness; what is remembered, in opfs.witness.state. Requests of one log
are taken one after the other, of different logs side by side. Trio.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import trio

from opfs.core.printable import printable
from opfs.core.witness import Answer, consent, is_fork, judge, open_submission, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from opfs.core.notekeys import Verifier
    from opfs.witness.state import WitnessState

log = logging.getLogger(__name__)


class Cosigner:
    """Cosigns for the logs whose keys `logs` holds, by origin."""

    def __init__(
        self,
        state: WitnessState,
        logs: Mapping[str, Collection[Verifier]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._logs = logs
        self._clock = clock
        self._locks = {origin: trio.Lock() for origin in logs}

    async def add_checkpoint(self, body: bytes) -> Answer:
        """Answer one request, whatever it holds."""
        submission = open_submission(body, self._logs)
        if isinstance(submission, Answer):
            return submission
        new, note = submission.checkpoint, submission.request.checkpoint
        shown = f"{printable(new.origin)} at {new.size}"
        # Held until the signature exists: between judging and remembering no other request of this log may come,
        # and a signature says that nothing larger had been seen when it was made.
        async with self._locks[new.origin]:
            last = self._state.newest.get(new.origin)
            refused = judge(submission, last)
            try:
                if is_fork(new, last):
                    log.error("%s: the log signed another root than the one that was cosigned", shown)
                    await trio.to_thread.run_sync(self._state.keep_fork, new, note)
                if refused is not None:
                    log.info("%s: refused with %d", shown, refused.status)
                    return refused
                if last is None or new.size > last.size:
                    await trio.to_thread.run_sync(self._state.keep, new, note)
            except OSError as error:
                log.exception("%s: it cannot be remembered, so it is not signed", shown)
                return refusal(500, f"the witness cannot write: {error.strerror}")
            # After this line: the checkpoint is the newest cosigned, and no signature exists; a crash here costs
            # the log one more request, which names the size it did not know was taken.
            now_s = int(self._clock())
            return consent([signer.sign(submission.note.text, now_s) for signer in self._state.signers])
