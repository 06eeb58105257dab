"""Checking a proof bundle, step by step from the key down: what holds, and where it breaks; pure.

Each step vouches for the next: the key for the checkpoint, its root for the header, the header for the events and
the state tree, and these for the document. So the first step that fails is where the bundle was altered, and
nothing below it is looked at. Needs no pool and no clock; whether a signature's time is late is the reader's to
judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from opfs.core.bundle import ConsistencyBundle, ElementBundle, EventBundle, decode_bundle
from opfs.core.canonical import hash_bytes
from opfs.core.endorsement import Cosigners, SignedCheckpoint, name_of
from opfs.core.event import Event
from opfs.core.header import BlockHeader
from opfs.core.merkle import check_consistency, check_inclusion, leaf_hash
from opfs.core.notekeys import Kind
from opfs.core.policy import Policy
from opfs.core.stateproof import parse_hash
from opfs.errors import IntegrityError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opfs.core.bundle import BlockProof
    from opfs.core.note import Checkpoint
    from opfs.core.notekeys import Verifier


class ProofStep(StrEnum):
    """The steps, by the names that format.md gives them."""

    CHECKPOINT = "checkpoint"
    SIGNATURE = "signature"
    COSIGNATURE = "cosignature"
    CONSISTENCY = "consistency"
    HEADER = "header"
    LOG_INCLUSION = "log-inclusion"
    STATE_PATH = "state-path"
    EVENT = "event"
    DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class Rung:
    """One step and how it went: `holds` is None where it was not looked at; `said` is for a person."""

    step: ProofStep
    holds: bool | None
    said: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a bundle; `claim` says in a sentence what it shows, and is empty unless it verifies."""

    kind: str
    rungs: tuple[Rung, ...]
    claim: str

    @property
    def failed(self) -> ProofStep | None:
        """The step that fails; None where all hold."""
        return next((rung.step for rung in self.rungs if rung.holds is False), None)

    @property
    def is_verified(self) -> bool:
        return self.failed is None


def verify_bundle(
    data: bytes,
    keys: Sequence[Verifier],
    *,
    witnesses: Sequence[Verifier] = (),
    policy: Policy | None = None,
    document: bytes | None = None,
    held: Checkpoint | None = None,
) -> Verdict:
    """Check a bundle's bytes with the log's keys.

    Of each kind of key in `keys`, one must have signed: so both keys of a log are asked for, and earlier pairs
    may be given too. All of `witnesses` must have cosigned, and the quorum of `policy`. Where given, `document`
    must be the one that is proved, and `held`, a checkpoint from before, the older one of a consistency proof.
    Raises InvalidRequest for bytes that are no bundle and for what cannot be checked with this kind of bundle.
    """
    _check_kinds(keys, {Kind.ED25519, Kind.ML_DSA_44}, "a log", "a witness signs with it")
    _check_kinds(witnesses, {Kind.COSIGNATURE, Kind.ML_DSA_44}, "a witness", "a log signs with it")
    if not keys:
        raise InvalidRequest("nothing can be verified without a key of the log", hint="it is in chain/log/log.vkey")
    wanted = Cosigners(witnesses, policy or Policy())
    bundle = decode_bundle(data)
    if isinstance(bundle, ConsistencyBundle):
        return _Consistency(bundle, keys, wanted, document, held).verdict()
    if held is not None:
        raise InvalidRequest(f"a proof of {bundle.KIND} has no older checkpoint", hint="opfs prove --consistency")
    block = _Block(bundle.block, keys, wanted)
    if isinstance(bundle, ElementBundle):
        return _Element(bundle, block, document).verdict()
    return _Event(bundle, block, document).verdict()


def _check_kinds(keys: Sequence[Verifier], kinds: set[Kind], whose: str, else_: str) -> None:
    for key in keys:
        if key.kind not in kinds:
            raise InvalidRequest(f"the key {name_of(key)} is not one of {whose}", hint=else_)


Check = tuple[ProofStep, "Callable[[], str]"]


def _climb(checks: Sequence[Check]) -> tuple[Rung, ...]:
    """Make the checks until one raises IntegrityError."""
    rungs: list[Rung] = []
    for step, check in checks:
        if rungs and rungs[-1].holds is not True:
            rungs.append(Rung(step, None, "not looked at"))
            continue
        try:
            rungs.append(Rung(step, True, check()))
        except IntegrityError as error:
            rungs.append(Rung(step, False, str(error)))
    return tuple(rungs)


# --- a block -------------------------------------------------------------------------------------------


class _Block:
    """A header that the log holds. The steps fill in `header`, for whoever builds upon it."""

    header: BlockHeader

    def __init__(self, proof: BlockProof, keys: Sequence[Verifier], wanted: Cosigners) -> None:
        self._proof = proof
        self._signed = SignedCheckpoint(proof.checkpoint, keys)
        self._wanted = wanted

    def checks(self) -> list[Check]:
        checks: list[Check] = [
            (ProofStep.CHECKPOINT, self._signed.parse),
            (ProofStep.SIGNATURE, self._signed.check_signatures),
        ]
        if self._wanted:
            checks.append((ProofStep.COSIGNATURE, lambda: self._signed.check_cosignatures(self._wanted)))
        return [*checks, (ProofStep.HEADER, self._check_header), (ProofStep.LOG_INCLUSION, self._check_inclusion)]

    def __str__(self) -> str:
        return f"block {self.header.name} of {self.header.origin}, made {self.header.time}"

    def _check_header(self) -> str:
        self.header = BlockHeader.decode(self._proof.header.encode())
        checkpoint = self._signed.checkpoint
        if self.header.origin != checkpoint.origin:
            raise IntegrityError(f"the header is not one of the log {checkpoint.origin}")
        if self.header.height >= checkpoint.size:
            raise IntegrityError(f"block {self.header.height} is not among the {checkpoint.size} of the checkpoint")
        return f"block {self.header.name}, made {self.header.time}"

    def _check_inclusion(self) -> str:
        leaf, checkpoint = leaf_hash(self._proof.header.encode()), self._signed.checkpoint
        try:
            check_inclusion(leaf, self.header.height, checkpoint.size, self._proof.log_path, checkpoint.root)
        except IntegrityError as error:
            raise IntegrityError(f"this header is not entry {self.header.height} of the log: {error}") from error
        return f"entry {self.header.height} of the log is this header"


# --- the three kinds -----------------------------------------------------------------------------------


class _Element:
    """An element, present or absent, in a block."""

    def __init__(self, bundle: ElementBundle, block: _Block, document: bytes | None) -> None:
        self._bundle = bundle
        self._block = block
        self._documents = _Documents(bundle.document, document)

    def verdict(self) -> Verdict:
        checks = [*self._block.checks(), (ProofStep.STATE_PATH, self._check_path)]
        rungs = _climb(checks + self._documents.checks(lambda: self._bundle.content))
        bundle = self._bundle
        what = f"has the document {bundle.content.hex()}" if bundle.content else "does not exist"
        return Verdict(bundle.KIND, rungs, f"{bundle.id} {what} in {self._block}" if _all_hold(rungs) else "")

    def _check_path(self) -> str:
        bundle, root = self._bundle, bytes.fromhex(self._block.header.state_root)
        bundle.state_path.check(bundle.id, bundle.content, root)
        if bundle.content is not None:
            return f"{bundle.id} is in the state tree, document {_short(bundle.content)}"
        there = "another element's leaf" if bundle.state_path.other else "nothing"
        return f"{bundle.id} is not in the state tree: {there} stands in its place"


class _Event:
    """An event in a block."""

    _event: Event
    _content: bytes | None

    def __init__(self, bundle: EventBundle, block: _Block, document: bytes | None) -> None:
        self._bundle = bundle
        self._block = block
        self._documents = _Documents(bundle.document, document)

    def verdict(self) -> Verdict:
        checks = [*self._block.checks(), (ProofStep.EVENT, self._check_event)]
        rungs = _climb(checks + self._documents.checks(lambda: self._content))
        return Verdict(self._bundle.KIND, rungs, f"{self._told()}, is in {self._block}" if _all_hold(rungs) else "")

    def _check_event(self) -> str:
        data, header = self._bundle.event.encode(), self._block.header
        self._event = Event.decode(data)
        seq, first, count = self._event.seq, header.events_first, header.events_count
        if type(seq) is not int or not first <= seq < first + count:
            raise IntegrityError(f"event {seq} is not one of the {count} events from {first} on of this block")
        root = bytes.fromhex(header.events_root)
        check_inclusion(leaf_hash(data), seq - first, count, self._bundle.path, root)
        self._content = None if self._event.content is None else _content_hash(self._event.content)
        return self._told()

    def _told(self) -> str:
        event = self._event
        user = event.actor.get("user") or event.actor.get("uid", "nobody known")
        return f"event {event.seq}, {event.op} of {event.id} by {user} at {event.time}"


class _Consistency:
    """Two checkpoints of one log."""

    def __init__(
        self,
        bundle: ConsistencyBundle,
        keys: Sequence[Verifier],
        wanted: Cosigners,
        document: bytes | None,
        held: Checkpoint | None,
    ) -> None:
        self._bundle = bundle
        self._old = SignedCheckpoint(bundle.old, keys)
        self._new = SignedCheckpoint(bundle.new, keys)
        self._wanted = wanted
        self._held = held
        self._documents = _Documents(None, document)

    def verdict(self) -> Verdict:
        checks: list[Check] = [(ProofStep.CHECKPOINT, self._parse), (ProofStep.SIGNATURE, self._check_signatures)]
        if self._wanted:
            checks.append((ProofStep.COSIGNATURE, lambda: self._new.check_cosignatures(self._wanted)))
        checks.append((ProofStep.CONSISTENCY, self._check_consistency))
        rungs = _climb(checks + self._documents.checks(lambda: None))
        return Verdict(self._bundle.KIND, rungs, self._told() if _all_hold(rungs) else "")

    def _parse(self) -> str:
        told = f"{self._old.parse(may_be_unsigned=True)}; then {self._new.parse()}"
        old, new = self._old.checkpoint, self._new.checkpoint
        if old.origin != new.origin:
            raise IntegrityError(f"the checkpoints are of two logs, {old.origin} and {new.origin}")
        if old.size > new.size:
            raise IntegrityError(f"the older checkpoint has {old.size} blocks, the newer {new.size}")
        if self._held is not None and old != self._held:
            held = f"{self._held.origin}, {self._held.size} blocks, root {self._held.root.hex()}"
            raise IntegrityError(f"the older checkpoint is not the one you hold, which says {held}")
        return told

    def _check_signatures(self) -> str:
        # What the newer tree begins with is settled by its root: the older one's signature adds that the log said so.
        older = self._old.check_signatures() if self._old.note.signatures else "not signed"
        return f"newer {self._new.check_signatures()}; older {older}"

    def _check_consistency(self) -> str:
        old, new = self._old.checkpoint, self._new.checkpoint
        check_consistency(old.size, new.size, old.root, new.root, self._bundle.path)
        return self._told()

    def _told(self) -> str:
        old, new = self._old.checkpoint, self._new.checkpoint
        if self._old.note.signatures:
            return (
                f"the {old.size} blocks {new.origin} signed for before are the first of the {new.size} it signs for now"
            )
        return f"{old.size} blocks with the root {old.root.hex()} are the first of the {new.size} of {new.origin}"


class _Documents:
    """The document in a bundle and the one that the reader holds: both must be what is proved."""

    def __init__(self, carried: str | None, given: bytes | None) -> None:
        self._documents = [(d, n) for d, n in ((carried, "of the bundle"), (given, "given")) if d is not None]

    def checks(self, content: Callable[[], bytes | None]) -> list[Check]:
        return [(ProofStep.DOCUMENT, lambda: self._check(content()))] if self._documents else []

    def _check(self, content: bytes | None) -> str:
        told = []
        for document, which in self._documents:
            data = document.encode() if isinstance(document, str) else document
            if content is None:
                raise IntegrityError(f"there is a document {which}, and what is proved has none")
            if hash_bytes(data) != content:
                raise IntegrityError(f"the document {which} has another hash, {hash_bytes(data).hex()}")
            told.append(f"the document {which}, {len(data)} bytes, has the hash proved")
        return "; ".join(told)


def _all_hold(rungs: Sequence[Rung]) -> bool:
    return all(rung.holds for rung in rungs)


def _content_hash(text: str) -> bytes:
    try:
        return parse_hash(text)
    except InvalidRequest:
        raise IntegrityError("the event's content is neither a hash nor null") from None


def _short(value: bytes) -> str:
    return value.hex()[:12]
