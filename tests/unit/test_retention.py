"""Which snapshots are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.names import BlockName
from opfs.core.retention import MinFree, Retention, plan_retention
from opfs.core.timestamp import NS_PER_S

START = datetime(2026, 1, 1, tzinfo=UTC)


def blocks_every(step: timedelta, count: int):
    """So many blocks at that distance, and the time of each in ns."""
    blocks = [BlockName(height, f"{height:012x}") for height in range(count)]
    times = {block: int((START + step * block.height).timestamp()) * NS_PER_S for block in blocks}
    return blocks, times.__getitem__


def heights(plan) -> dict[int, str]:
    return {block.height: why for block, why in sorted(plan.kept.items())}


def test_the_last_of_each_period_and_the_newest():
    blocks, time_ns = blocks_every(timedelta(minutes=20), 3 * 24 * 4)  # four days
    plan = plan_retention(blocks, time_ns, [], Retention(newest=2, hourly=3, daily=3, weekly=2, quarterly=1))
    last = len(blocks) - 1
    assert heights(plan) == {
        143: "daily",  # the last block of 2 January
        215: "daily",
        last - 6: "hourly",
        last - 3: "hourly",
        last - 1: "newest",
        last: "newest",
    }
    assert len(plan.kept) + len(plan.pruned) == len(blocks)


def test_labels_are_kept_and_the_head_always():
    blocks, time_ns = blocks_every(timedelta(seconds=1), 50)
    nothing = Retention(newest=0, hourly=0, daily=0, weekly=0, quarterly=0)
    assert heights(plan_retention(blocks, time_ns, [blocks[7]], nothing)) == {7: "labelled", 49: "newest"}
    assert plan_retention([], time_ns, [], nothing).pruned == []


def test_years_of_blocks_leave_a_handful():
    blocks, time_ns = blocks_every(timedelta(hours=3), 8 * 365 * 3)
    plan = plan_retention(blocks, time_ns, [], Retention(newest=10))
    assert len(plan.kept) <= 30
    assert min(plan.kept).height <= blocks[-1].height - 8 * 365, "the last of five quarters reaches back a year"


@given(
    st.integers(0, 60),
    st.integers(1, 10**7),
    st.builds(Retention, *[st.integers(0, 8)] * 5),
    st.sets(st.integers(0, 59)),
)
def test_every_block_is_kept_or_pruned_and_pruning_again_prunes_nothing(count, step_s, retention, labels):
    blocks, time_ns = blocks_every(timedelta(seconds=step_s), count)
    labelled = [block for block in blocks if block.height in labels]
    plan = plan_retention(blocks, time_ns, labelled, retention)
    assert sorted([*plan.kept, *plan.pruned]) == blocks
    assert set(labelled) <= set(plan.kept)
    assert not blocks or blocks[-1] in plan.kept
    assert plan_retention(sorted(plan.kept), time_ns, labelled, retention).pruned == []


def test_for_room_the_oldest_go_but_never_the_newest_nor_those_with_a_label():
    blocks, time_ns = blocks_every(timedelta(hours=1), 60)
    plan = plan_retention(blocks, time_ns, [blocks[50]], Retention(newest=3, hourly=20, daily=0, weekly=0, quarterly=0))
    assert [block.height for block in plan.spare] == [*range(40, 50), *range(51, 57)]
    assert {plan.why_pruned(block) for block in plan.pruned} == {"rule"}
    more = plan.without(plan.spare[:2])
    assert sorted(set(more.pruned) - set(plan.pruned)) == blocks[40:42]
    assert (more.why_pruned(blocks[41]), more.why_pruned(blocks[39])) == ("room", "rule")
    assert heights(plan.without(plan.spare)) == {50: "labelled", 57: "newest", 58: "newest", 59: "newest"}


@pytest.mark.parametrize(
    ("text", "of_a_gigabyte"),
    [("0", 0), ("10%", 10**8), ("0.5 %", 5 * 10**6), ("2G", 2 << 30), ("64 MiB", 64 << 20), ("1000", 1000)],
)
def test_room_is_said_in_percent_or_bytes(text, of_a_gigabyte):
    assert MinFree.parse(text).of(10**9) == of_a_gigabyte
    assert MinFree.parse(str(MinFree.parse(text))) == MinFree.parse(text)


@pytest.mark.parametrize("text", ["", "100%", "-1", "10 %%", "2X", "1e3", "٣%"])
def test_other_words_are_no_room(text):
    with pytest.raises(ValueError, match="10%"):
        MinFree.parse(text)
