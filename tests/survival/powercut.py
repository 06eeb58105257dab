"""Power cuts: a recorded run, cut at its flushes, brought back and judged.

A cut before flush k leaves everything that was written before flush k-1, and of what was written since then any
part: nothing of it, or pieces of 4 KiB chosen at random. Everything that writers had been told before flush k has to
be there. Each cut is mounted, recovered by the functions of a start, written to once, verified and compared with the
ledger and with the host. Some are also given to `btrfs check`, and started and verified by the commands themselves.

Blocking and single-threaded.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opfs.testing.blockdevice.writelog import Kind, Record, apply_record, read_log
from survival.copies import mounted_copy
from survival.ledger import final_documents
from survival.machine import Machine
from survival.recording import ANSWERED, BEGUN, READY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from contextlib import ExitStack
    from pathlib import Path
    from random import Random

    from survival.recording import Recording

PIECE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Epoch:
    """What happened between two flushes, and what writers had been told when it ended."""

    number: int
    writes: list[Record]
    is_ready: bool
    begun: frozenset[tuple[str, int]]
    answered: frozenset[tuple[str, int]]


def epochs(log: Path) -> Iterator[Epoch]:
    """The log, cut at its flushes."""
    writes: list[Record] = []
    is_ready, number = False, 0
    begun: set[tuple[str, int]] = set()
    answered: set[tuple[str, int]] = set()
    for record in read_log(log):
        if record.kind is Kind.WRITE:
            writes.append(record)
        elif record.kind is Kind.MARK:
            what, *key = json.loads(record.data)
            is_ready = is_ready or what == READY
            if key:
                {BEGUN: begun, ANSWERED: answered}[what].add((key[0], key[1]))
        else:
            yield Epoch(number, writes, is_ready, frozenset(begun), frozenset(answered))
            writes, number = [], number + 1
    yield Epoch(number, writes, is_ready, frozenset(begun), frozenset(answered))


@dataclass(slots=True)
class Outcome:
    """What became of the cuts of one recording."""

    cuts: int = 0
    torn: int = 0
    by_command: int = 0
    acknowledged: int = 0
    """Attempts that had been acknowledged, summed over all cuts."""
    problems: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return sum("LOST" in problem for problem in self.problems)

    @property
    def unverifiable(self) -> int:
        return sum("verify:" in problem for problem in self.problems)


class Replay:
    """The cuts of one recording; `place` is a directory on btrfs."""

    def __init__(self, recording: Recording, place: Path, resources: ExitStack) -> None:
        self._recording = recording
        self.machine = Machine(recording.disk, recording.mount, tried=recording.ledger.contents())
        master, self._copy = place / "master.img", place / "copy.img"
        subprocess.run(["cp", "--sparse=always", "--", recording.base, master], check=True)
        resources.callback(master.unlink)
        self._master = os.open(master, os.O_RDWR | os.O_CLOEXEC)
        resources.callback(os.close, self._master)

    def run(
        self,
        wanted: Collection[int],
        torn: Collection[int],
        by_command: Collection[int],
        random: Random,
        done: Callable[[Outcome], object] = lambda _: None,
    ) -> Outcome:
        """Cut before the end of each wanted epoch, those that are `torn` as well with some of its writes.

        Epochs `by_command` are also looked at by the programs a person would use. `done` hears of every epoch.
        """
        outcome = Outcome()
        gc.collect()
        gc.freeze()  # each cut collects what it made; what was there before need not be looked at every time
        for epoch in epochs(self._recording.log):
            if epoch.number in wanted:
                self._cut(epoch, (), epoch.number in by_command, outcome)
                if epoch.number in torn and epoch.writes:
                    pieces = [piece for piece in _pieces(epoch.writes) if random.random() < 0.5]
                    self._cut(epoch, pieces, epoch.number in by_command, outcome)
                    outcome.torn += 1
                done(outcome)
            for record in epoch.writes:
                apply_record(self._master, record)
        gc.unfreeze()
        return outcome

    def _cut(self, epoch: Epoch, pieces: Sequence[Record], by_command: bool, outcome: Outcome) -> None:
        outcome.cuts += 1
        outcome.acknowledged += self._recording.ledger.acknowledged(set(epoch.answered))
        where = f"cut at flush {epoch.number}{', torn' if pieces else ''}: "
        judges = [self._judge, self._judge_by_command] if by_command else [self._judge]
        outcome.by_command += by_command
        for judge in judges:
            with mounted_copy(self._master, pieces, self._copy, self.machine.disk), _nothing_kept():
                try:
                    outcome.problems += [where + problem for problem in judge(epoch)]
                except Exception as error:
                    outcome.problems.append(f"{where}{type(error).__name__}: {error}")

    def _judge(self, epoch: Epoch) -> Iterator[str]:
        if not epoch.is_ready:
            self.machine.make_pool()
        yield from self.machine.recover()
        for finding in self.machine.verify():
            yield f"verify: {finding}"
        events = self.machine.events()
        yield from self._recording.ledger.judge(events, set(epoch.begun), set(epoch.answered))
        yield from self.machine.check_host(events)

    def _judge_by_command(self, epoch: Epoch) -> Iterator[str]:
        """The same without a shortcut: opfs mount, look, opfs umount, opfs verify, btrfs check."""
        machine = self.machine
        if not epoch.is_ready:
            machine.make_pool()
        machine.opfs("mount")
        try:
            shown = machine.shown()
        finally:
            machine.opfs("umount")
        events = machine.events()
        if shown != final_documents(events):
            yield f"the mount shows {sorted(shown)}, the chain ends with {sorted(final_documents(events))}"
        yield from self._recording.ledger.judge(events, set(epoch.begun), set(epoch.answered))
        yield from machine.check_host(events)
        machine.opfs("verify")
        check = ["btrfs", "check", "--readonly", "--force", "--", self._copy]
        os.sync()
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            yield f"btrfs check: {done.stderr}{done.stdout}"


@contextmanager
def _nothing_kept() -> Iterator[None]:
    """Let go of every file of the pool: the index' vectors stay mapped for as long as anybody knows the index.

    A log record that somebody collects knows the error it is about, and that every frame it came through.
    """
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        gc.collect()


def _pieces(writes: list[Record]) -> Iterator[Record]:
    """Writes as a disk keeps them: whole blocks of 4 KiB."""
    for record in writes:
        for start in range(0, len(record.data), PIECE_BYTES):
            yield Record(Kind.WRITE, record.offset + start, record.data[start : start + PIECE_BYTES])
