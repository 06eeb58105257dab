"""The witness protocol (C2SP tlog-witness): its bodies, what a witness decides, what a log makes of the answer.

A witness keeps, for each log, the newest checkpoint it cosigned, and cosigns another only if that one provably
contains the first. Pure: no clock, no keys of its own, no network. Adapter: opfs.witness.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.merkle import EMPTY_ROOT, HASH_BYTES, check_consistency
from opfs.core.note import MAX_SIZE, Checkpoint, from_base64, open_note, parse_checkpoint, parse_note, to_base64
from opfs.core.printable import clip, printable
from opfs.errors import IntegrityError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from opfs.core.note import Note, SignatureLine
    from opfs.core.notekeys import Verifier

ADD_CHECKPOINT = "/add-checkpoint"
MAX_PROOF_LINES = 63
"""tlog-witness: a tree of 2^63 leaves needs no more."""
MAX_REQUEST_BYTES = 128 << 10
"""Room for a proof of 63 lines and a checkpoint with some two dozen post-quantum signatures."""
MAX_TIME_S = 253_402_300_799
"""9999-12-31T23:59:59Z: later cannot be written as RFC 3339 has it."""
SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"

_SIZE = re.compile(rb"(?:0|[1-9][0-9]{0,18})\Z")
_REASON_LIMIT = 200


# --- bodies --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A log's request: "you cosigned my first `old_size` entries; `proof` shows that `checkpoint` contains them".

    `checkpoint` is the signed note, byte for byte.
    """

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        head = "".join(f"{line}\n" for line in (f"old {self.old_size}", *map(to_base64, self.proof), ""))
        return head.encode() + self.checkpoint

    @classmethod
    def decode(cls, body: bytes) -> AddCheckpoint:
        """Read a request; raises InvalidRequest for a head that `encode` would not write."""
        if len(body) > MAX_REQUEST_BYTES:
            raise InvalidRequest(f"the request has {len(body)} bytes", hint=f"at most {MAX_REQUEST_BYTES} are read")
        head, separator, checkpoint = body.partition(b"\n\n")
        if not separator:
            raise InvalidRequest("the request has no empty line", hint="it stands between proof and checkpoint")
        first, *lines = head.split(b"\n")
        if not first.startswith(b"old "):
            raise InvalidRequest("the first line does not begin with 'old '", hint="send 'old SIZE'")
        if len(lines) > MAX_PROOF_LINES:
            raise InvalidRequest(f"the proof has {len(lines)} lines", hint=f"a proof has at most {MAX_PROOF_LINES}")
        return cls(_parse_size(first[4:]), tuple(map(_parse_hash, lines)), checkpoint)


def _parse_size(digits: bytes) -> int:
    if not _SIZE.match(digits) or int(digits) > MAX_SIZE:
        raise InvalidRequest("a tree size is no number", hint="write decimal digits without leading zeroes")
    return int(digits)


def _parse_hash(line: bytes) -> bytes:
    try:
        value = from_base64(line.decode("ascii"))
    except (UnicodeDecodeError, IntegrityError):
        value = b""
    if len(value) != HASH_BYTES:
        raise InvalidRequest("a line of the proof is no hash", hint=f"write {HASH_BYTES} bytes in base64")
    return value


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, as far as the protocol knows one."""

    status: int
    content_type: str
    body: bytes


def refusal(status: int, reason: str) -> Answer:
    """An answer that says why not, in a line for a person."""
    return Answer(status, TEXT_TYPE, f"{clip(printable(reason), _REASON_LIMIT)}\n".encode())


def conflict(size: int) -> Answer:
    """409: the last size cosigned is not the one that the request claims."""
    return Answer(409, SIZE_TYPE, b"%d\n" % size)


def consent(lines: Collection[SignatureLine]) -> Answer:
    """200: the cosignatures."""
    return Answer(200, TEXT_TYPE, "".join(map(str, lines)).encode())


# --- what a witness decides ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submission:
    """A request whose checkpoint a known log has signed; whether it may be cosigned is not decided yet."""

    request: AddCheckpoint
    note: Note
    checkpoint: Checkpoint


def open_submission(body: bytes, logs: Mapping[str, Collection[Verifier]]) -> Submission | Answer:
    """Read a request; `logs` holds the keys of every origin. An `Answer` is the refusal."""
    try:
        request = AddCheckpoint.decode(body)
        note = parse_note(request.checkpoint)
        checkpoint = parse_checkpoint(note.text)
    except (InvalidRequest, IntegrityError) as error:
        return refusal(400, str(error))
    keys = logs.get(checkpoint.origin)
    if not keys:
        return refusal(404, f"the log {checkpoint.origin} is not known here")
    try:
        open_note(request.checkpoint, keys)
    except IntegrityError as error:
        return refusal(403, str(error))
    if request.old_size > checkpoint.size:
        return refusal(400, f"the checkpoint of size {checkpoint.size} is older than {request.old_size}")
    return Submission(request, note, checkpoint)


def judge(submission: Submission, last: Checkpoint | None) -> Answer | None:
    """The refusal, or None where the checkpoint may be cosigned; `last` is the newest one of this log that was.

    A witness that asks this, keeps the checkpoint, and only then signs, one request of a log at a time, never
    signs two that contradict each other.
    """
    request, new = submission.request, submission.checkpoint
    size, root = (last.size, last.root) if last else (0, EMPTY_ROOT)
    if request.old_size != size or is_fork(new, last):
        return conflict(size)
    try:
        check_consistency(size, new.size, root, new.root, request.proof)
    except IntegrityError as error:
        return refusal(422, str(error))
    return None


def is_fork(new: Checkpoint, last: Checkpoint | None) -> bool:
    """Whether one log signed two roots of one size: proof, by itself, that it shows two histories."""
    return last is not None and new.size == last.size and new.root != last.root


# --- what the log makes of the answer ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cosigned:
    """It is cosigned; `time_s` is when, as the witness says."""

    line: SignatureLine
    time_s: int | None


@dataclass(frozen=True, slots=True)
class ClaimInstead:
    """The witness holds a checkpoint of another size than claimed: ask again, from there."""

    size: int


@dataclass(frozen=True, slots=True)
class Disputed:
    """The witness says that it cosigned a history of this log which the checkpoint does not continue."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotCosigned:
    """Anything else; asking again later may help."""

    reason: str


Reading = Cosigned | ClaimInstead | Disputed | NotCosigned


def read_answer(answer: Answer, request: AddCheckpoint, key: Verifier) -> Reading:
    """What a witness with that key said to the request. The answer is a stranger's: nothing in it is believed
    but a signature that verifies.
    """
    checkpoint = parse_checkpoint(parse_note(request.checkpoint).text)
    if answer.status == 200:
        return _find_cosignature(answer.body, checkpoint, key)
    said = clip(printable(answer.body.decode(errors="replace").strip()), _REASON_LIMIT)
    if answer.status == 422:
        return Disputed(f"it refuses the proof from {request.old_size} to {checkpoint.size}: {said}")
    if answer.status == 409:
        return _read_conflict(answer, request.old_size, checkpoint)
    return NotCosigned(f"it answers {answer.status}: {said}" if said else f"it answers {answer.status}")


def _find_cosignature(body: bytes, checkpoint: Checkpoint, key: Verifier) -> Reading:
    try:
        note = parse_note(checkpoint.text.encode() + b"\n" + body)
        for line in note.signatures:
            if (line.name, line.key_id) == (key.name, key.key_id):
                time_s = key.check(note.text, line.signature)
                if time_s is not None and time_s > MAX_TIME_S:
                    raise IntegrityError("its time is past the year 9999")
                return Cosigned(line, time_s)
    except IntegrityError as error:
        return NotCosigned(f"its cosignature is not good: {error}")
    return NotCosigned(f"its answer has no cosignature by {key.name}")


def _read_conflict(answer: Answer, claimed: int, checkpoint: Checkpoint) -> Reading:
    size: int | None = None
    if answer.content_type.partition(";")[0].strip().lower() == SIZE_TYPE:
        try:
            size = _parse_size(answer.body.removesuffix(b"\n"))
        except InvalidRequest:
            return NotCosigned("it answers 409 with something that is no size")
    if size is not None and size > checkpoint.size:
        return Disputed(f"it cosigned {size} entries, more than the {checkpoint.size} that there are")
    if size is not None and size != claimed:
        return ClaimInstead(size)
    if claimed == checkpoint.size:
        return Disputed(f"it cosigned another root of the first {claimed} entries")
    return NotCosigned(f"it answers 409 to the size it holds, {claimed}")
