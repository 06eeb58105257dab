"""/at: what names mean a block, and what labels do there."""

from __future__ import annotations

import json
import os
from contextlib import suppress

import pytest

from opfs.commit.labels import Label
from opfs.commit.timeline import Timeline
from opfs.core.timestamp import NS_PER_S, format_time
from opfs.errors import NotFound, ReadOnly
from opfs.vfs.at import AtDirectory
from opfs.vfs.node import FLEETING, Caller, Symlink

ROOT, ALICE = Caller(0, 0, 1), Caller(1000, 1000, 2)


class Given:
    def __init__(self):
        self.labels, self.asked = {}, 0

    async def all(self):
        self.asked += 1
        return self.labels

    def give(self, name, block, message="why"):
        self.labels[name] = Label(name, block, message, "root", 1_800_000_000 * NS_PER_S)


@pytest.fixture
async def given(world, shell):
    """Five blocks, two hours apart."""
    for number in range(4):
        await shell.redirect("memory/a.json", b'{"size": %d}' % number)
        world.state.services.clock.now += 7200 * NS_PER_S
    given = Given()
    given.timeline = Timeline(world.store.list_blocks, world.store.read_header, world.state.services.clock)
    given.blocks = world.store.list_blocks()
    given.at = AtDirectory(("at",), given.timeline, given)
    return given


async def target(given, name, caller=ROOT):
    link = await given.at.lookup(name, caller)
    assert isinstance(link, Symlink)
    return link.target.removeprefix("../chain/")


async def test_heights_hashes_names_and_times(given):
    block = given.blocks[2]
    time = format_time(given.timeline.time_ns(block))
    prefix = next(block.short_hash[:end] for end in range(4, 13) if not block.short_hash[:end].isdecimal())
    for name in ("2", "00000002", str(block), prefix, time, f"{time[:-1]}+00:00"):
        assert await target(given, name) == str(block), name


@pytest.mark.parametrize("words", ["3 hours ago", "180 minutes ago", "3h ago", "3_hours_ago", "3 HOURS AGO"])
async def test_words_as_people_say_them(given, words):
    assert await target(given, words) == str(given.blocks[3])


async def test_now_is_head_whenever_it_is_asked(given, shell):
    assert await target(given, "now") == str(given.blocks[-1])
    await shell.redirect("memory/b.json", b"{}")
    link = await given.at.lookup("now", ROOT)
    assert link.target.startswith("../chain/00000005-")
    assert link.cache == FLEETING


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("99", "there is no block 99; there is 0 to 4"),
        ("00000002-ffffffffffff", "does not begin with"),
        ("yesterday", "no block yet"),
        ("someday", "neither a block nor a time; e.g. 41"),
        ("1 fortnight ago", "neither a block nor a time"),
        ("", "neither"), (".", "neither"), ("..", "neither"), ("-1", "neither"), ("2026-13-45", ""),
        ("9" * 300, "neither"), ("HEAD", "neither"), ("\ud800", "neither"), ("9999999999y ago", "neither"),
        ("999999999 years ago", "no block yet"),
        ("0001-01-01", "no block yet"), ("0001-01-01T00:00+14:00", ""), ("1960-02-29T01:01:01.5Z", "no block yet"),
    ],
)  # fmt: skip
async def test_what_means_no_block_does_not_exist_and_why(given, name, said):
    with pytest.raises(NotFound) as caught:
        await given.at.lookup(name, ROOT)
    assert said in str(caught.value)


async def test_a_label_is_a_name_that_moves_and_goes(given):
    given.give("good", given.blocks[1])
    assert await target(given, "good", ALICE) == str(given.blocks[1])
    given.give("good", given.blocks[3])
    assert await target(given, "good") == str(given.blocks[3])
    del given.labels["good"]
    with pytest.raises(NotFound):
        await given.at.lookup("good", ROOT)


async def test_times_and_blocks_are_found_without_asking_for_labels(given):
    """The history, in which labels are, may be being made again."""
    for name in ("now", "2", str(given.blocks[2]), "3 hours ago", given.blocks[2].short_hash[:5] + "f"):
        with suppress(NotFound):
            await given.at.lookup(name, ROOT)
    assert given.asked == 0


async def test_a_listing_has_labels_and_the_words_for_which_there_was_a_block(given):
    given.give("zebra", given.blocks[1])
    given.give("ant", given.blocks[2])
    listed = dict(await given.at.entries(ALICE))
    assert list(listed) == ["now", "1 hour ago", "ant", "zebra"]
    assert listed["1 hour ago"].target == f"../chain/{given.blocks[-1]}"
    attributes = await listed["ant"].attributes(ALICE)
    assert attributes.mtime_ns == given.timeline.time_ns(given.blocks[2])


async def test_who_gave_labels_and_why_is_told_to_everybody(given):
    given.give("good", given.blocks[1], 'a "quoted"\x1b word')
    handle = await (await given.at.lookup(".labels", ALICE)).open(os.O_RDONLY, ALICE)
    (told,) = map(json.loads, (await handle.read(0, 4096)).splitlines())
    assert told == {
        "label": "good",
        "block": str(given.blocks[1]),
        "time": format_time(1_800_000_000 * NS_PER_S),
        "user": "root",
        "message": 'a "quoted"\x1b word',
    }
    assert ".labels" not in dict(await given.at.entries(ALICE))


async def test_nothing_is_made_there(given):
    with pytest.raises(ReadOnly):
        await given.at.create("mine", 0o644, os.O_WRONLY, ROOT)
    with pytest.raises(ReadOnly):
        await given.at.unlink("now", ROOT)
