"""The reserve: who is refused and when, what is given back, and when it is taken up again."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
from commitpath import delete, write

from opfs.commit.reserve import SYNC_PAUSE_S, Marks, Reserve
from opfs.errors import ApplyNoSpace, NoSpace
from opfs.testing.commitpath import CommitPath
from opfs.testing.memoryhost import MemoryPlugin

MIB = 1 << 20
TOTAL = 1 << 30
MARKS = Marks.of(TOTAL)


@dataclass
class Disk:
    """A file system that counts what is written only when it is synced; also its own ballast."""

    total_bytes: int = TOTAL
    free_data_bytes: int = 500 * MIB
    free_metadata_bytes: int = 500 * MIB
    unwritten_bytes: int = 0
    syncs: int = 0
    is_filled: bool = False
    dropped: list[str] = field(default_factory=list)

    def sync(self) -> None:
        self.syncs += 1
        self.free_data_bytes -= self.unwritten_bytes
        self.unwritten_bytes = 0

    def fill(self) -> bool:
        self.is_filled = True
        return True

    def drop(self) -> bool:
        self.is_filled = False
        self.dropped.append("ballast")
        return True


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def reserve(disk: Disk) -> Reserve:
    made = Reserve(lambda: disk, disk.sync, disk)
    made.prepare()
    return made


def test_marks_are_a_share_within_limits():
    assert Marks.of(256 * MIB) == Marks(16 * MIB, 24 * MIB)
    assert Marks.of(4096 * MIB) == Marks(64 * MIB, 64 * MIB)
    assert Marks.of(1 << 40) == Marks(256 * MIB, 256 * MIB)


async def test_with_room_nobody_waits_for_the_disk(reserve, disk):
    for _ in range(100):
        await reserve.require_room(MIB)
    assert disk.syncs == 0
    assert not reserve.is_reached


async def test_what_the_kernel_has_not_counted_is_counted(reserve, disk):
    """A burst cannot run past the mark: it is synced, and then refused."""

    async def write_for_ever() -> None:
        while True:
            await reserve.require_room(MIB)
            disk.unwritten_bytes += MIB

    with pytest.raises(NoSpace):
        await write_for_ever()
    assert disk.free_data_bytes - disk.unwritten_bytes == MARKS.data_bytes
    assert disk.syncs < 20


async def test_metadata_alone_is_enough_to_be_refused(reserve, disk):
    disk.free_metadata_bytes = MARKS.metadata_bytes - 1
    assert reserve.is_reached
    with pytest.raises(NoSpace, match="kept for deletes"):
        await reserve.require_room(1)
    disk.free_metadata_bytes = 500 * MIB
    await reserve.require_room(1)


async def test_after_a_refusal_a_little_room_is_no_room_until_something_is_taken_again(reserve, disk):
    disk.free_metadata_bytes = MARKS.metadata_bytes - 1
    with pytest.raises(NoSpace):
        await reserve.require_room(1)
    disk.free_metadata_bytes = MARKS.metadata_bytes + 8 * MIB
    assert reserve.is_reached
    await reserve.require_room(1)
    assert not reserve.is_reached


async def test_who_is_refused_has_the_disk_synced_now_and_then(reserve, disk, autojump_clock):
    disk.free_data_bytes = 0
    for _ in range(10):
        with pytest.raises(NoSpace):
            await reserve.require_room(1)
    assert disk.syncs == 1
    await trio.sleep(SYNC_PAUSE_S)
    with pytest.raises(NoSpace):
        await reserve.require_room(1)
    assert disk.syncs == 2


async def test_ballast_is_dropped_once_and_taken_up_when_there_is_room(reserve, disk):
    assert disk.is_filled
    disk.free_data_bytes = 0
    assert await reserve.give_way()
    assert not await reserve.give_way()
    await reserve.restore()
    assert not disk.is_filled
    disk.free_data_bytes = 500 * MIB
    await reserve.restore()
    assert disk.is_filled
    assert disk.dropped == ["ballast"]


def test_ballast_of_an_earlier_run_counts_in_a_full_pool(disk):
    disk.free_data_bytes, disk.is_filled = 0, True
    reserve = Reserve(lambda: disk, disk.sync, disk)
    reserve.prepare()
    assert trio.run(reserve.give_way)


# --- in the commit path ----------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path, disk, reserve) -> CommitPath:
    made = CommitPath(tmp_path, [MemoryPlugin()])
    made.reserve = reserve
    return made


async def test_documents_are_refused_and_deletes_go_on(path, disk):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("b", size=1))
        disk.free_metadata_bytes = 0
        for request in (write("c", size=1), write("a", size=2)):
            with pytest.raises(NoSpace):
                await sequencer.submit(request)
        await sequencer.submit(delete("a"))
        disk.free_metadata_bytes = 500 * MIB
        await sequencer.submit(write("c", size=1))
    assert [event.op for event in path.events()] == ["create", "create", "delete", "create"]
    assert path.findings() == []


async def test_a_delete_that_meets_a_full_disk_has_the_ballast_dropped(path, disk):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        path.store.fail("events", NoSpace("not a byte left"))
        await sequencer.submit(delete("a"))
    assert disk.dropped == ["ballast"]
    assert [event.op for event in path.events()] == ["create", "delete"]


async def test_a_document_that_meets_a_full_disk_does_not(path, disk):
    async with path.started() as sequencer:
        path.store.fail("events", NoSpace("not a byte left"))
        with pytest.raises(NoSpace, match="everything was undone"):
            await sequencer.submit(write("a", size=1))
    assert disk.dropped == []
    assert path.plugins["memory"].host == {}


async def test_a_layer_that_cannot_be_put_back_is_put_back_before_the_next_block(path):
    """Else the next block would carry a document of one that was never made."""
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        path.store.fail("header", NoSpace("full"))
        path.store.fail("restore", NoSpace("full"))
        with pytest.raises(NoSpace):
            await sequencer.submit(write("a", size=2))
        path.store.fail("restore", NoSpace("still full"))
        with pytest.raises(NoSpace):
            await sequencer.submit(write("b", size=1))
        await sequencer.submit(write("c", size=1))
    assert path.findings() == []
    async with path.started() as sequencer:
        assert sorted(sequencer.catalog.elements("memory")) == ["a", "c"]


async def test_a_start_serves_although_there_is_no_room_to_put_the_layer_back(path, caplog):
    async with path.started() as sequencer:
        await sequencer.submit(write("a", size=1))
        await sequencer.submit(write("b", size=1))
    for id in list(path.store.layer):
        if id.element == "a":
            del path.store.layer[id]
    path.store.fail("restore", NoSpace("full"))
    async with path.started() as sequencer:
        assert sorted(sequencer.catalog.elements("memory")) == ["a", "b"]
        await sequencer.submit(write("c", size=1))
    assert "the next block will have to do it" in caplog.text
    assert path.findings() == []


async def test_a_full_disk_under_a_plugin_is_no_bug_of_it(path, monkeypatch):
    async def full(action):
        raise OSError(28, "No space left on device")

    async with path.started() as sequencer:
        monkeypatch.setattr(path.plugins["memory"], "apply", full)
        with pytest.raises(ApplyNoSpace, match="No space left on device"):
            await sequencer.submit(write("a", size=1))
    assert [event.op for event in path.events()] == ["apply-failed"]
