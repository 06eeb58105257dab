"""Kills at random moments: writers, readers and searches at work, the daemon killed, started, killed while it starts.

After every kill the daemon is started again, the new blocks are verified, and the chain and the host are compared with
everything that all writers were told since the beginning. The mount may die of the kill only. Moments come from a
seed; what happens at a moment depends on the machine, so a seed repeats the plan and not the course.

Writers and readers are processes of their own. Blocking.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from errno import ENOENT, errorcode
from random import Random
from typing import TYPE_CHECKING

from opfs.fuse.mountpoint import MOUNT_TYPE
from survival.ledger import Answer, Attempt, Ledger, final_documents
from survival.writers import GONE, MountGone, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

    from survival.machine import Machine

WRITERS, READERS = 4, 2
ROUND_MAX_S = 1.2
"""The longest time between a start and the kill."""
STARTS_KILLED_OF = 4
"""One start of so many is killed before it serves, after at most START_MAX_S."""
START_MAX_S = 1.2
ROUNDS_AT_MOST = 10
"""Times as many as were asked for."""
BY_COMMAND_OF = 5
DEADLINE_S = 120
_fork = multiprocessing.get_context("fork")


@dataclass(slots=True)
class Course:
    """What happened in a campaign."""

    seed: str
    rounds: int = 0
    kills: int = 0
    kills_while_starting: int = 0
    acknowledged: int = 0
    unanswered: int = 0
    reads: int = 0
    blocks: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return sum("LOST" in problem for problem in self.problems)

    @property
    def unverifiable(self) -> int:
        return sum("verify:" in problem for problem in self.problems)

    @property
    def deaths(self) -> int:
        return sum("died" in problem for problem in self.problems)


class Campaign:
    """Rounds on one pool, which `machine` has made and nobody serves."""

    def __init__(self, machine: Machine, seed: str) -> None:
        self.course = Course(seed)
        self._machine = machine
        self._random = Random(seed)
        self._ledger = Ledger()
        self._verified = 0
        self._children: list[_Child] = []

    def run(self, rounds: int, is_enough: Callable[[Course], bool] = lambda _: True) -> Course:
        """So many rounds, then a start, an end and `opfs verify`; the problems are in the course.

        Where too little happened before the kills, as on a busy machine, there are further rounds until it `is_enough`.
        """
        machine, course = self._machine, self.course
        with self._children_at_work():
            try:
                while course.rounds < rounds or not is_enough(course):
                    self._round()
                    course.rounds += 1
                    if course.problems:
                        break
                    if course.rounds == rounds * ROUNDS_AT_MOST:
                        course.problems.append(f"too little happened in {course.rounds} rounds: {course}")
                        break
            finally:
                machine.kill()
        machine.opfs("mount")
        self._check()
        machine.opfs("umount")
        with suppress(AssertionError):
            machine.opfs("verify")
            return course
        course.problems.append("verify: opfs verify says that something is wrong")
        return course

    def _round(self) -> None:
        self._start()
        self._check()
        for child in self._children:
            child.go()
        if self._machine.died_within(self._random.uniform(0.02, ROUND_MAX_S)):
            self.course.problems.append(f"round {self.course.rounds}: the daemon died by itself")
        self._machine.kill()
        self.course.kills += 1
        for child in self._children:
            self._take(child)

    def _start(self) -> None:
        """Start the daemon, having killed some starts before they were done."""
        machine, random = self._machine, self._random
        while random.randrange(STARTS_KILLED_OF) == 0:
            machine.start()
            machine.died_within(random.uniform(0.1, START_MAX_S))
            machine.kill()
            self.course.kills += 1
            self.course.kills_while_starting += 1
        if random.randrange(BY_COMMAND_OF) == 0:
            machine.opfs("mount")
        else:
            machine.start()
            machine.wait_serving()

    def _check(self) -> None:
        """After a recovery, with nobody at work: everything that is known to be there is there, and verifies."""
        machine, course = self._machine, self.course
        where = f"round {course.rounds}: "
        problems = [f"verify: {finding}" for finding in machine.verify(self._verified, is_live=True)]
        machine.tried = self._ledger.contents()
        events = machine.events()
        problems += self._ledger.judge(events)
        problems += machine.check_host(events)
        if machine.shown() != final_documents(events):
            problems.append("the mount shows something else than the chain")
        mounts = _mounts_at(machine.mount)
        if mounts != 1:
            problems.append(f"{mounts} mounts are stacked on {machine.mount}")
        course.blocks = max((event.height for event in events), default=0)
        self._verified = course.blocks
        course.problems += [where + problem for problem in problems]

    def _take(self, child: _Child) -> None:
        """Hear what a child has done in this round."""
        attempts, reads, problems = child.report()
        course = self.course
        for attempt in attempts:
            self._ledger.add(attempt)
            course.acknowledged += attempt.answer is Answer.DONE
            course.unanswered += attempt.answer is Answer.NONE
        course.reads += reads
        course.problems += [f"round {course.rounds}: {problem}" for problem in problems]

    @contextmanager
    def _children_at_work(self) -> Iterator[None]:
        machine, seed = self._machine, self.course.seed
        works = [_WriterAtWork(machine.state, machine.host, f"w{n}", seed) for n in range(WRITERS)]
        readers = [_ReaderAtWork(machine.mount, f"{seed} r{n}") for n in range(READERS)]
        self._children = [_Child(work) for work in [*works, *readers]]
        try:
            yield
        finally:
            for child in self._children:
                child.end()


# --- processes of their own --------------------------------------------------------------------------------

_Round = tuple[list[Attempt], int, list[str]]


class _Child:
    """One process: works from `go` until the mount is gone, then reports."""

    def __init__(self, work: _WriterAtWork | _ReaderAtWork) -> None:
        self._pipe, theirs = _fork.Pipe()
        self._process = _fork.Process(target=_obey, args=(work, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def go(self) -> None:
        self._pipe.send(True)

    def report(self) -> _Round:
        if not self._pipe.poll(DEADLINE_S):
            raise AssertionError("a writer or reader hangs although the daemon is dead")
        found: _Round = self._pipe.recv()
        return found

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self._pipe.close()


def _obey(work: _WriterAtWork | _ReaderAtWork, pipe: Connection) -> None:
    while pipe.recv():
        pipe.send(work.round())


class _WriterAtWork:
    """A writer, and what it tried since the last report."""

    def __init__(self, state: Path, host: Path, name: str, seed: str) -> None:
        self._writer = Writer(state, host, name, seed, self)
        self._attempts: list[Attempt] = []

    def begin(self, attempt: Attempt) -> None:
        self._attempts.append(attempt)

    def end(self, attempt: Attempt) -> None:
        """The answer is in the attempt."""

    def round(self) -> _Round:
        self._attempts, self._writer.problems = [], []
        with suppress(MountGone, OSError):
            self._writer.look_again()
            while True:
                self._writer.step()
        return self._attempts, 0, self._writer.problems


class _ReaderAtWork:
    """Lists, reads, searches; whatever it is given is whole. Keeps a file open through the death of its daemon."""

    def __init__(self, mount: Path, seed: str) -> None:
        self._mount = mount
        self._random = Random(seed)
        self._kept: int | None = None

    def round(self) -> _Round:
        reads, problems = 0, []
        try:
            self._look_at_what_was_kept(problems)
            while True:
                self._random.choice([self._documents, self._chain, self._search, self._pages])(problems)
                reads += 1
        except OSError as error:
            if error.errno not in GONE:
                problems.append(f"a reader got {errorcode[error.errno or 0]}: {error}")
        return [], reads, problems

    def _look_at_what_was_kept(self, problems: list[str]) -> None:
        """A file of the dead mount gives an error and nothing else; then another is opened for the next death."""
        kept, self._kept = self._kept, None
        if kept is not None:
            try:
                os.pread(kept, 1, 0)
                problems.append("a file of a dead mount could be read")
            except OSError as error:
                if error.errno not in GONE:
                    problems.append(f"a file of a dead mount gives {errorcode[error.errno or 0]}")
            os.close(kept)
        self._kept = os.open(self._mount / "status", os.O_RDONLY)

    def _documents(self, problems: list[str]) -> None:
        for directory in ("shelf", "file"):
            for name in os.listdir(self._mount / "state" / directory):
                if name.endswith(".json") and not name.startswith("."):
                    try:
                        json.loads((self._mount / "state" / directory / name).read_bytes())
                    except ValueError as error:
                        problems.append(f"{directory}/{name} was read and is no document: {error}")
                    except OSError as error:
                        if error.errno != ENOENT:
                            raise

    def _chain(self, problems: list[str]) -> None:
        head = os.readlink(self._mount / "chain" / "HEAD")
        header = json.loads((self._mount / "chain" / head / "block.json").read_bytes())
        if header["height"] != int(head.partition("-")[0]):
            problems.append(f"{head} has the header of block {header['height']}")

    def _search(self, problems: list[str]) -> None:
        query = f"writer w{self._random.randrange(WRITERS)} changed something"
        for line in (self._mount / "search" / "similar" / f"{query}.json").read_text().splitlines():
            json.loads(line)

    def _pages(self, problems: list[str]) -> None:
        for name in ("status", "errors", "README"):
            (self._mount / name).read_bytes()


def _mounts_at(mount: Path) -> int:
    with open("/proc/self/mountinfo") as table:
        lines = table.read().splitlines()
    return sum(f" {mount} " in line and f" - {MOUNT_TYPE} " in line for line in lines)
