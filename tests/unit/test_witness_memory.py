"""A witness never signs two checkpoints that contradict each other: whatever is sent, in whatever order, wherever
it crashes."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from opfs.core.note import parse_checkpoint, parse_note
from opfs.core.witness import AddCheckpoint, Cosigned, read_answer
from opfs.errors import IntegrityError, InvalidRequest, PoolError
from opfs.testing.growinglog import GrowingLog
from opfs.witness import state as state_module
from opfs.witness.cosigner import Cosigner
from opfs.witness.state import create_state, load_forked, load_signers, open_state

MAX_SIZE = 12
TRUE = GrowingLog(size=MAX_SIZE)
HISTORIES = [TRUE, TRUE.fork_at(4, MAX_SIZE - 4), TRUE.fork_at(0, MAX_SIZE)]
LOGS = {TRUE.origin: TRUE.verifiers}

sizes = st.integers(0, MAX_SIZE)
histories = st.sampled_from(HISTORIES)


class Crash(BaseException):
    """The machine stops here."""


class WitnessMemory(RuleBasedStateMachine):
    """Requests of three histories of one log, crashes around the rename, starts."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="opfs-test-witness-"))
        self.keys = create_state(self.directory / "w", "w.example")
        self.signed: list[tuple[int, bytes]] = []
        self.start()

    def start(self) -> None:
        self.running = ExitStack()
        self.cosigner = Cosigner(self.running.enter_context(open_state(self.directory / "w")), LOGS)

    def teardown(self) -> None:
        self.running.close()
        shutil.rmtree(self.directory)

    @rule()
    def restart(self) -> None:
        self.running.close()
        self.start()

    @rule(log=histories, old=sizes, new=sizes)
    def ask(self, log: GrowingLog, old: int, new: int) -> None:
        self.answer([request_of(log, old, new)])

    @rule(asked=st.lists(st.tuples(histories, sizes), min_size=2, max_size=4))
    def ask_at_once(self, asked: list[tuple[GrowingLog, int]]) -> None:
        held = self.held_size()
        self.answer([request_of(log, held, new) for log, new in asked])

    @rule(log=histories, new=sizes)
    def ask_from_what_it_holds(self, log: GrowingLog, new: int) -> None:
        self.answer([request_of(log, self.held_size(), new)])

    @rule(log=histories, new=sizes, after_rename=st.booleans())
    def crash_while_it_remembers(self, log: GrowingLog, new: int, after_rename: bool) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(state_module.os, "rename", crashing(os.rename, after=after_rename))
            try:
                self.answer([request_of(log, self.held_size(), new)])
            except Crash:
                self.restart()

    @rule(log=histories, new=sizes)
    def the_disk_fails(self, log: GrowingLog, new: int) -> None:
        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(state_module.os, "fsync", fail)
            self.answer([request_of(log, self.held_size(), new)])

    @precondition(lambda self: self.signed)
    @rule()
    def what_was_signed_last_is_signed_again(self) -> None:
        size, root = self.signed[-1]
        log = next(log for log in HISTORIES if root_of(log, size) == root)
        if self.held_size() == size:
            count = len(self.signed)
            self.answer([request_of(log, size, size)])
            assert len(self.signed) == count + 1

    @invariant()
    def all_signatures_are_of_one_history_and_never_smaller(self) -> None:
        possible = [log for log in HISTORIES if all(root_of(log, size) == root for size, root in self.signed)]
        assert possible or not self.signed
        assert [size for size, _ in self.signed] == sorted(size for size, _ in self.signed)

    @invariant()
    def what_was_signed_is_remembered(self) -> None:
        if self.signed:
            assert self.held_size() >= self.signed[-1][0]

    def held_size(self) -> int:
        newest = self.cosigner._state.newest.get(TRUE.origin)
        return newest.size if newest else 0

    def answer(self, requests: list[AddCheckpoint]) -> None:
        async def ask(request: AddCheckpoint) -> None:
            answer = await self.cosigner.add_checkpoint(request.encode())
            if answer.status == 200:
                # each key signs: both lines are of the checkpoint that was sent
                for signer in self.keys:
                    assert isinstance(read_answer(answer, request, signer.verifier), Cosigned)
                checkpoint = parse_checkpoint(parse_note(request.checkpoint).text)
                self.signed.append((checkpoint.size, checkpoint.root))

        async def ask_all() -> None:
            async with trio.open_nursery() as nursery:
                for request in requests:
                    nursery.start_soon(ask, request)

        try:
            trio.run(ask_all)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


def request_of(log: GrowingLog, old: int, new: int) -> AddCheckpoint:
    proof = log.proof(old, new) if old <= new else ()
    return AddCheckpoint(old, tuple(proof), log.note(new).encode())


def root_of(log: GrowingLog, size: int) -> bytes:
    return parse_checkpoint(log.note(size).text).root


def crashing(function, *, after: bool):
    def call(*arguments: object) -> None:
        if after:
            function(*arguments)
        raise Crash

    return call


TestWitnessMemory = WitnessMemory.TestCase
TestWitnessMemory.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


# --- the directory


@pytest.fixture
def directory(tmp_path):
    create_state(tmp_path / "w", "w.example")
    return tmp_path / "w"


def remember(directory, note):
    with open_state(directory) as state:
        state.keep(parse_checkpoint(note.text), note.encode())


def test_keys_are_private_and_stay(directory):
    assert (directory / "key").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    first = load_signers(directory)
    assert [signer.verifier.kind for signer in first] == [4, 6]
    assert {signer.verifier.name for signer in first} == {"w.example"}
    with pytest.raises(InvalidRequest, match="not empty"):
        create_state(directory, "w.example")
    assert [signer.secret for signer in load_signers(directory)] == [signer.secret for signer in first]


def test_keys_that_others_can_read_are_not_used(directory):
    (directory / "key").chmod(0o640)
    with pytest.raises(InvalidRequest, match="chmod 600"):
        load_signers(directory)


def test_a_name_that_no_key_can_have_leaves_nothing(tmp_path):
    with pytest.raises(InvalidRequest, match="blanks"):
        create_state(tmp_path / "w", "not a name")
    assert not (tmp_path / "w").exists()


def test_one_process_serves_a_witness(directory):
    with open_state(directory), pytest.raises(PoolError, match="another process"), open_state(directory):
        pass
    with open_state(directory):
        pass


@pytest.mark.parametrize("missing", ["key", "logs"])
def test_a_witness_without_its_memory_does_not_serve(directory, missing):
    path = directory / missing
    path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(InvalidRequest, match="no witness in"), open_state(directory):
        pass


@pytest.mark.parametrize(
    "damage", [lambda text: b"", lambda text: text[:40], lambda text: text.replace(b"log.", b"gol.")]
)
def test_a_witness_whose_memory_is_damaged_does_not_serve(directory, damage):
    remember(directory, TRUE.note(5))
    (path,) = (directory / "logs").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IntegrityError), open_state(directory):
        pass


def test_what_a_crash_left_unfinished_is_not_read(directory):
    remember(directory, TRUE.note(5))
    (path,) = (directory / "logs").iterdir()
    path.with_name(path.name + ".new").write_bytes(b"half a check")
    with open_state(directory) as state:
        assert state.newest[TRUE.origin].size == 5
        state.keep(parse_checkpoint(TRUE.note(6).text), TRUE.note(6).encode())
    with open_state(directory) as state:
        assert state.newest[TRUE.origin].size == 6


async def test_a_fork_is_kept_as_evidence(directory):
    fork = HISTORIES[1]
    kept, other = request_of(TRUE, 0, 8), request_of(fork, 8, 8)
    with open_state(directory) as state:
        cosigner = Cosigner(state, LOGS)
        assert (await cosigner.add_checkpoint(kept.encode())).status == 200
        assert load_forked(directory) == set()
        assert (await cosigner.add_checkpoint(other.encode())).status == 409
        assert load_forked(directory) == {TRUE.origin}
        (path,) = (directory / "forks").iterdir()
        assert path.read_bytes() == kept.checkpoint + b"\n" + other.checkpoint
