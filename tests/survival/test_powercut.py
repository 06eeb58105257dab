"""Nothing that was acknowledged is lost in a power cut, and the chain always verifies: cuts of recorded runs.

`scripts/bench powercut` does the same with thousands.
"""

from __future__ import annotations

from contextlib import ExitStack
from random import Random

import pytest

from survival.copies import room_for_copies
from survival.ledger import Answer
from survival.powercut import Replay, epochs
from survival.recording import Script, record

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse", "model")

SEED = "tests"
BY_COMMAND = 3


def spread(count: int, numbers: list[int]) -> set[int]:
    """So many of the numbers, at equal distances."""
    return {numbers[i * len(numbers) // count] for i in range(count)}


@pytest.mark.parametrize(("interval", "plain_count", "torn_count"), [("per-op", 140, 60), ("weekly", 20, 10)])
def test_power_cuts(tmp_path, interval, plain_count, torn_count):
    with ExitStack() as resources:
        recording = record(tmp_path, Script(SEED, writers=3, attempts=7, interval=interval))
        copies = resources.enter_context(room_for_copies(tmp_path))
        log = list(epochs(recording.log))
        with_writes = [epoch.number for epoch in log if epoch.writes]
        wanted = spread(plain_count, with_writes)
        replay = Replay(recording, copies, resources)
        random = Random(SEED)
        outcome = replay.run(wanted, spread(torn_count, sorted(wanted)), spread(BY_COMMAND, sorted(wanted)), random)
    assert outcome.problems == []
    assert outcome.cuts == plain_count + torn_count
    assert outcome.acknowledged > 10 * outcome.cuts
    # the run was one worth cutting: many ways to write, and answers of every kind
    assert len({attempt.way for attempt in recording.ledger.attempts}) >= 7
    assert {Answer.DONE, Answer.FAILED, Answer.REFUSED} <= {attempt.answer for attempt in recording.ledger.attempts}
