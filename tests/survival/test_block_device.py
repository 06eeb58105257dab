"""The disk of our own: what it records is what it was told, what is to fail fails, and the file system sees it."""

import errno
import os
import threading
from pathlib import Path

import pytest

from opfs.testing.blockdevice.device import BlockDevice
from opfs.testing.blockdevice.faults import Fault, FaultTable
from opfs.testing.blockdevice.writelog import Kind, apply_record, read_log

needs_disk = pytest.mark.needs("root", "btrfs", "loop", "fuse")


def write_durably(path, content):
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@pytest.fixture
def disk(tmp_path):
    with BlockDevice.create(tmp_path, log=tmp_path / "log") as device:
        yield device


@needs_disk
def test_the_log_makes_the_same_disk_again(disk, tmp_path):
    pool = tmp_path / "pool"
    disk.mount(pool)
    base = tmp_path / "replayed.img"
    base.write_bytes(b"")
    os.truncate(base, os.path.getsize(tmp_path / "disk.img"))
    for number in range(5):
        write_durably(pool / f"f{number}", b"%d" % number * 5000)
        disk.mark(number)
    disk.unmount(pool)
    disk.sync_log()
    written = []
    with base.open("r+b") as image:
        for record in read_log(tmp_path / "log"):
            apply_record(image.fileno(), record)
            written.append(record.kind)
    assert written.count(Kind.MARK) == 5
    assert written.count(Kind.FLUSH) == disk.requests("flush") > 5
    # whatever was written is the same; what mkfs wrote before the recording is not in the log
    with base.open("rb") as replayed, (tmp_path / "disk.img").open("rb") as real:
        for record in read_log(tmp_path / "log"):
            replayed.seek(record.offset)
            real.seek(record.offset)
            assert replayed.read(len(record.data)) == real.read(len(record.data)) or record.kind is not Kind.WRITE


@needs_disk
def test_a_mark_stands_behind_the_flush_that_was_waited_for(disk, tmp_path):
    pool = tmp_path / "pool"
    disk.mount(pool)
    disk.mark("before")
    write_durably(pool / "f", b"x" * 5000)
    disk.mark("after")
    disk.sync_log()
    kinds = [record.data if record.kind is Kind.MARK else record.kind for record in read_log(tmp_path / "log")]
    between = kinds[kinds.index(b'"before"') : kinds.index(b'"after"')]
    assert Kind.FLUSH in between
    assert Kind.WRITE in between


@needs_disk
def test_an_error_reaches_whoever_syncs_and_the_next_write_is_well(disk, tmp_path):
    pool = tmp_path / "pool"
    disk.mount(pool)
    number = disk.fail("write", errno.EIO, count=1)
    with pytest.raises(OSError, match="Input/output"):
        write_durably(pool / "f", b"x" * 50_000)
    assert disk.hits(number) == 1


@needs_disk
def test_what_waits_goes_on_when_the_fault_is_cleared(disk, tmp_path):
    pool = tmp_path / "pool"
    disk.mount(pool)
    number = disk.fail("flush")
    writer = threading.Thread(target=write_durably, args=(pool / "f", b"x" * 5000))
    writer.start()
    while disk.hits(number) == 0:
        assert writer.is_alive()
    disk.clear(number)
    writer.join(30)
    assert not writer.is_alive()


@needs_disk
def test_the_server_ends_with_its_pool_mounted_and_failing(disk, tmp_path):
    pool = tmp_path / "pool"
    disk.mount(pool)
    disk.fail("write", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        write_durably(pool / "f", b"x" * 50_000)
    disk.close()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_which_requests_a_fault_hits():
    table = FaultTable()
    number = table.add(Fault("write", errno.EIO, skip=1, count=2, start=100, end=200))
    judged = [
        table.judge("write", 0, 100),  # ends where the range begins
        table.judge("read", 100, 10),  # not a write
        table.judge("write", 90, 20),  # the first of the range is skipped
        table.judge("write", 150, 1),
        table.judge("write", 199, 100),
        table.judge("write", 150, 1),  # two have been hit
        table.judge("write", 200, 1),
    ]
    assert [hit is not None for hit in judged] == [False, False, False, True, True, False, False]
    assert table.hits[number] == 2
    assert table.requests == {"write": 6, "read": 1}


def test_flushes_have_no_place_and_cleared_faults_hit_nothing():
    table = FaultTable()
    number = table.add(Fault("flush", errno.EIO, start=1 << 30))
    assert table.judge("flush") == (number, Fault("flush", errno.EIO, start=1 << 30))
    table.clear(number)
    assert table.judge("flush") is None
    assert not table.is_in_force(number)
