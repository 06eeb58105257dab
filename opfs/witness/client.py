"""Asks witnesses to cosign this log's checkpoints: a task beside the commit path, which never waits for it.

In rounds, so that the cosignatures of a round are all of one checkpoint and can make a quorum: every witness that
is due is sent the newest checkpoint at the same time. No witness is asked twice within `INTERVAL_S`; one that does
not answer is asked less and less often. Trio thread only.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from opfs.core.note import Note, parse_checkpoint
from opfs.core.printable import clip, printable
from opfs.core.timestamp import NS_PER_S, format_time
from opfs.core.witness import (
    ADD_CHECKPOINT,
    AddCheckpoint,
    ClaimInstead,
    Cosigned,
    Disputed,
    NotCosigned,
    read_answer,
)
from opfs.errors import InvalidRequest, OpfsError
from opfs.witness.post import Endpoint, post

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opfs.core.note import Checkpoint
    from opfs.core.notekeys import Verifier
    from opfs.core.policy import Policy
    from opfs.core.witness import Answer, Reading

    Post = Callable[[Endpoint, str, bytes], Awaitable[Answer]]

log = logging.getLogger(__name__)

INTERVAL_S = 10.0
MAX_INTERVAL_S = 900.0
REASON_LIMIT = 300
INFINITY = float("inf")


class WitnessedLog(Protocol):
    """The log, as far as witnesses are concerned. Adapter: opfs.witness.published."""

    async def newest(self) -> Note | None:
        """The newest checkpoint, with every signature it has; None where the log could not sign any yet."""
        ...

    async def witnessed(self) -> Note | None:
        """The newest checkpoint that had a quorum."""
        ...

    async def consistency_proof(self, old_size: int, new_size: int) -> Sequence[bytes]: ...

    async def cosign(self, note: Note, *, is_witnessed: bool) -> None:
        """Take over the cosignatures of a checkpoint; `is_witnessed` where they make a quorum.

        Those of a checkpoint that is no longer the newest do not join a newer one.
        """
        ...


@dataclass(slots=True)
class _Asked:
    """What is known of one witness. `size` is what it cosigned last, as far as it let us know."""

    name: str
    key: Verifier
    endpoint: Endpoint
    size: int = 0
    text: str = ""
    """The checkpoint it cosigned last."""
    time_s: int | None = None
    problem: str = ""
    is_disputed: bool = False
    was_corrected: bool = False
    """It named another size than it was asked with, and has not cosigned since."""
    failure_count: int = 0
    not_before: float = -INFINITY
    """In trio's time."""


class WitnessClient:
    """Keeps the witnesses of `policy` up with `log`. `run` must be running; `wake` tells of a new checkpoint."""

    def __init__(
        self, policy: Policy, log: WitnessedLog, *, post: Post = post, jitter: Callable[[], float] = random.random
    ) -> None:
        self._policy = policy
        self._log = log
        self._post = post
        self._jitter = jitter
        self._asked = [
            _Asked(known.name, known.key, Endpoint.parse(known.url)) for known in policy.witnesses.values() if known.url
        ]
        if not self._asked:
            raise InvalidRequest("the policy has no witness with a URL", hint="write witness NAME VKEY URL")
        self._changed = trio.Event()
        self._next_round = -INFINITY
        self._collected = Note("", ())
        """The checkpoint of the round with the cosignatures that came."""
        self._quorum_size: int | None = None
        self._failure = ""

    def wake(self) -> None:
        """There is a new checkpoint. Never blocks, never raises."""
        self._changed.set()
        self._changed = trio.Event()

    async def run(self) -> None:
        """Ask, round after round, until cancelled. A bug ends the asking, not the daemon."""
        try:
            await self._remember()
            while True:
                await self._wait_until_due()
                await self._ask_all()
        except Exception as error:
            log.exception("witnesses are not asked any more")
            self._failure = f"not asked any more: {error!r}"

    # --- one round ------------------------------------------------------------------------------------------

    async def _remember(self) -> None:
        """What an earlier run was given need not be asked for again."""
        for note in (await self._log.witnessed(), await self._log.newest()):
            if note is None:
                continue
            size = parse_checkpoint(note.text).size
            for asked in self._asked:
                if (asked.key.name, asked.key.key_id) in {(line.name, line.key_id) for line in note.signatures}:
                    asked.size, asked.text = size, note.text
            if self._is_witnessed(note):
                self._quorum_size = size

    async def _wait_until_due(self) -> None:
        """Return when a round may begin and a witness is due that has not cosigned the newest checkpoint."""
        await trio.sleep_until(self._next_round)
        while True:
            changed = self._changed
            newest = await self._log.newest()
            waiting = [asked.not_before for asked in self._asked if newest is not None and asked.text != newest.text]
            if min(waiting, default=INFINITY) <= trio.current_time():
                return
            # a new checkpoint makes those wait again that had cosigned the one before
            with trio.move_on_at(min(waiting, default=INFINITY)):
                await changed.wait()

    async def _ask_all(self) -> None:
        """Send the newest checkpoint to every witness that is due, at the same time."""
        newest = await self._log.newest()
        if newest is None:
            return
        checkpoint = parse_checkpoint(newest.text)
        if self._collected.text != newest.text:
            self._collected = newest
        # its own signatures only: what other witnesses signed is of no use to a witness
        note = Note(newest.text, tuple(line for line in newest.signatures if line.name == checkpoint.origin))
        now = trio.current_time()
        self._next_round = now + INTERVAL_S
        async with trio.open_nursery() as nursery:
            for asked in self._asked:
                if asked.text != note.text and asked.not_before <= now:
                    asked.not_before = self._next_round
                    nursery.start_soon(self._ask, asked, note, checkpoint, name=f"ask {asked.name}")

    async def _ask(self, asked: _Asked, note: Note, checkpoint: Checkpoint) -> None:
        reading: Reading
        try:
            # a witness that is ahead says so itself when asked about what there is
            claimed = min(asked.size, checkpoint.size)
            proof = await self._log.consistency_proof(claimed, checkpoint.size)
            request = AddCheckpoint(claimed, tuple(proof), note.encode())
            answer = await self._post(asked.endpoint, ADD_CHECKPOINT, request.encode())
            reading = read_answer(answer, request, asked.key)
            if isinstance(reading, Cosigned):
                await self._take(asked, reading, note, checkpoint)
        except (OpfsError, OSError) as error:
            reading = NotCosigned(str(error))
        self._note(asked, reading)

    async def _take(self, asked: _Asked, cosigned: Cosigned, note: Note, checkpoint: Checkpoint) -> None:
        asked.size, asked.time_s = checkpoint.size, cosigned.time_s
        collected = self._collected = self._collected.with_signatures([cosigned.line])
        is_witnessed = self._is_witnessed(collected)
        if is_witnessed:
            self._quorum_size = checkpoint.size
        await self._log.cosign(collected, is_witnessed=is_witnessed)
        asked.text = note.text

    def _is_witnessed(self, note: Note) -> bool:
        signed = {(line.name, line.key_id) for line in note.signatures}
        names = [
            name for name, witness in self._policy.witnesses.items() if (witness.key.name, witness.key.key_id) in signed
        ]
        return self._policy.is_witnessed(names)

    def _note(self, asked: _Asked, reading: Reading) -> None:
        """Remember how it went, and when to ask again."""
        before = asked.problem
        if isinstance(reading, Cosigned):
            if before:
                log.info("witness %s cosigned %d entries", asked.name, asked.size)
            asked.problem, asked.is_disputed, asked.was_corrected, asked.failure_count = "", False, False, 0
            return
        if isinstance(reading, ClaimInstead):
            # an answer that was lost, or a witness that another process asked: the next round asks from there
            asked.size, asked.problem = reading.size, f"it cosigned {reading.size} blocks before: asking from there"
            if not asked.was_corrected:
                asked.was_corrected = True
                return
            reading = NotCosigned("it goes on naming other sizes than it is asked with")
        asked.is_disputed, asked.problem = isinstance(reading, Disputed), clip(printable(reading.reason), REASON_LIMIT)
        if asked.problem != before:
            log.log(
                logging.ERROR if asked.is_disputed else logging.WARNING, "witness %s: %s", asked.name, asked.problem
            )
        asked.failure_count += 1
        pause_s = min(INTERVAL_S * 2 ** min(asked.failure_count, 10), MAX_INTERVAL_S)
        # jitter, so that many hosts do not all come back to a witness in the moment it does
        asked.not_before = trio.current_time() + max(INTERVAL_S, pause_s * (0.5 + self._jitter() / 2))

    # --- for /status ----------------------------------------------------------------------------------------

    @property
    def trouble(self) -> str | None:
        """What an admin must look at: a witness that says that history was rewritten, or that nobody is asked."""
        disputed = [asked.name for asked in self._asked if asked.is_disputed]
        if disputed:
            return f"{', '.join(disputed)} cosigned another history of this log"
        return self._failure or None

    def report(self, size: int) -> list[str]:
        """A line for the quorum and one for every witness of a log that has `size` entries. Never blocks."""
        if self._failure:
            return [self._failure]
        lines = [f"quorum {self._policy.quorum}: {_progress(self._quorum_size, size)}"]
        for asked in self._asked:
            when = f" at {format_time(asked.time_s * NS_PER_S)[:19]}Z" if asked.time_s is not None else ""
            line = f"{asked.name}: {_progress(asked.size if asked.text else None, size)}{when}"
            lines.append(f"{line}; {asked.problem}" if asked.problem else line)
        return lines


def _progress(cosigned: int | None, size: int) -> str:
    return "nothing cosigned yet" if cosigned is None else f"{cosigned} blocks cosigned, {size - cosigned} behind"
