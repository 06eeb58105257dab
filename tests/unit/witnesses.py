"""Witnesses in memory that decide as real ones do (opfs.core.witness), and a log whose client asks them."""

from __future__ import annotations

import trio
import trio.testing

from opfs.core.note import parse_checkpoint
from opfs.core.notekeys import Kind, Signer
from opfs.core.policy import parse_policy
from opfs.core.witness import AddCheckpoint, Answer, conflict, consent, judge, open_submission
from opfs.errors import OpfsError
from opfs.testing.growinglog import GrowingLog
from opfs.witness.client import WitnessClient
from opfs.witness.post import TIMEOUT_S, Endpoint


class Witness:
    """A witness in memory. `fault` takes the place of what it would do; `asked_at` are the times of requests."""

    def __init__(self, name: str, log: GrowingLog) -> None:
        self.signer = Signer(f"{name}.example", Kind.COSIGNATURE, name.encode().ljust(32, b"."))
        self.url = f"https://{name}.example"
        self.logs = {log.origin: log.verifiers}
        self.last = None
        self.fault = None
        self.requests: list[AddCheckpoint] = []
        self.asked_at: list[float] = []

    async def answer(self, body: bytes) -> Answer:
        self.asked_at.append(trio.current_time())
        self.requests.append(AddCheckpoint.decode(body))
        return await self.fault(body) if self.fault else self.decide(body)

    def decide(self, body: bytes) -> Answer:
        submission = open_submission(body, self.logs)
        if isinstance(submission, Answer):
            return submission
        refused = judge(submission, self.last)
        if refused:
            return refused
        self.last = submission.checkpoint
        return consent([self.signer.sign(submission.note.text, 1_800_000_000)])

    # --- faults

    async def loses_the_answer(self, body: bytes) -> Answer:
        self.decide(body)
        raise OpfsError(f"{self.url} cannot be reached: reset")

    async def is_gone(self, body: bytes) -> Answer:
        raise OpfsError(f"{self.url} cannot be reached: refused")

    async def hangs(self, body: bytes) -> Answer:
        await trio.sleep(TIMEOUT_S)
        raise OpfsError(f"{self.url} did not answer")

    async def cannot_make_up_its_mind(self, body: bytes) -> Answer:
        return conflict(0 if AddCheckpoint.decode(body).old_size else 1)


class World:
    """A log, witnesses called a, b, c, and the client that asks them."""

    def __init__(self, quorum: str = "group all all a b c\nquorum all", log: GrowingLog | None = None) -> None:
        self.log = log or GrowingLog(size=3)
        self.witnesses = {name: Witness(name, self.log) for name in "abc"}
        lines = [f"witness {name} {w.signer.verifier.vkey} {w.url}/" for name, w in self.witnesses.items()]
        self.policy = parse_policy("\n".join([*lines, quorum]))
        self.a, self.b, self.c = self.witnesses.values()
        self.client = self.make_client()

    def make_client(self) -> WitnessClient:
        return WitnessClient(self.policy, self.log, post=self.post, jitter=lambda: 0.0)

    async def post(self, endpoint: Endpoint, path: str, body: bytes) -> Answer:
        assert path == "/add-checkpoint"
        (witness,) = [witness for witness in self.witnesses.values() if witness.url == str(endpoint)]
        return await witness.answer(body)

    def grow(self, count: int = 1) -> None:
        self.log.grow(count)
        self.client.wake()

    def line(self, name: str) -> str:
        (line,) = [line for line in self.client.report(self.log.size) if line.startswith(f"{name}: ")]
        return line

    @property
    def quorum_line(self) -> str:
        return self.client.report(self.log.size)[0]


async def settle(seconds: float = 0.5) -> None:
    """Let everything happen that happens within this time."""
    await trio.sleep(seconds)


def sizes_asked(witness: Witness) -> list[tuple[int, int]]:
    return [
        (r.old_size, parse_checkpoint(r.checkpoint.decode().partition("\n\n")[0] + "\n").size) for r in witness.requests
    ]
