"""kill -9 at random moments, again and again, also while the daemon starts: nothing that was acknowledged is lost.

`scripts/bench campaign` does the same for hundreds of rounds.
"""

from __future__ import annotations

from random import SystemRandom

import pytest

from survival.campaign import Campaign
from survival.machine import Machine

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse", "model")

ROUNDS = 20


def is_worth_it(course):
    """There was something to lose, and something was under way when the kills came."""
    return course.acknowledged > ROUNDS and course.unanswered > 0 and course.reads > ROUNDS // 2


def test_kills_at_random_moments(btrfs_place, tmp_path):
    machine = Machine(btrfs_place, tmp_path / "mnt")
    machine.make_pool()
    course = Campaign(machine, str(SystemRandom().randrange(1 << 32))).run(ROUNDS, is_worth_it)
    assert course.problems == [], f"seed {course.seed}"
    assert course.kills >= ROUNDS
    print(course)
