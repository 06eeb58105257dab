"""A device that fails under a pool in use: the right errno, reads go on, nothing acknowledged is lost, nothing dies.

The disk is a real loop device over an image whose requests a FUSE file system of the tests makes fail.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import tempfile
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from serving import serve

from opfs.btrfs.image import MIN_BYTES
from opfs.btrfs.mounts import mount_at
from opfs.btrfs.pool import Pool
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.core.names import BlockName, ElementId
from opfs.errors import CommitUnknown, PoolReadOnly
from opfs.index.generation import FLOAT
from opfs.index.packed import PackedFile
from opfs.ports import DocumentWrite
from opfs.testing.blockdevice.device import BlockDevice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serving import Serving

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse")

TIMEOUT_S = 240.0


@pytest.fixture
def disk(work_dir: Path) -> Iterator[BlockDevice]:
    place = Path(tempfile.mkdtemp(prefix="disk-", dir=work_dir))
    with BlockDevice.create(place, MIN_BYTES) as disk:
        disk.mount(place / "fs")
        yield disk


@pytest.fixture
def serving(disk: BlockDevice, work_dir: Path) -> Iterator[Serving]:
    with serve(disk.path.parent.parent / "fs", work_dir) as serving:
        for number in range(5):
            serving.put(f"noop/e{number}", n=number)
        serving.put("noop/large", text="x" * 100_000)
        yield serving


def errno_of(serving: Serving, name: str, **document: object) -> int:
    try:
        serving.put(name, **document)
    except OSError as error:
        return error.errno or 0
    return 0


def status(serving: Serving) -> str:
    return (serving.mount / "status").read_text()


@contextmanager
def the_same_daemon(serving: Serving) -> Iterator[None]:
    pid = serving.daemon()
    yield
    assert serving.daemon() == pid


def all_is_readable(serving: Serving) -> None:
    assert [serving.get(f"noop/e{number}") for number in range(5)] == [{"n": number} for number in range(5)]
    assert len(serving.get("noop/large")["text"]) == 100_000
    assert serving.events(serving.blocks()[3])


def start_anew(disk: BlockDevice, serving: Serving) -> None:
    """What an administrator does: stop, unmount, mount."""
    serving.opfs("umount")
    root = serving.pool.parent
    disk.unmount(root)
    disk.mount(root)
    serving.opfs("mount")


def test_writes_that_fail_stop_writing_and_not_reading(disk, serving):
    with the_same_daemon(serving):
        disk.fail("write", errno.EIO)
        met = {errno_of(serving, "noop/e0", text="y" * 200_000), errno_of(serving, "noop/new", n=1)}
        assert met <= {errno.EIO, errno.EROFS}
        all_is_readable(serving)
        assert errno_of(serving, "noop/e1", n="other") == errno.EROFS
        with pytest.raises(OSError, match="Read-only"):
            serving.path("noop/e1").unlink()
        assert "FAIL-SAFE" in status(serving)
        assert "restart opfs" in (serving.mount / "errors").read_text()
    disk.clear()
    start_anew(disk, serving)
    assert [serving.get(f"noop/e{number}") for number in range(1, 5)] == [{"n": number} for number in range(1, 5)]
    assert serving.get("noop/e0") in ({"n": 0}, {"text": "y" * 200_000})
    serving.put("noop/e0", n="again")


def test_a_pool_that_the_kernel_turned_read_only_says_so(disk, serving):
    """btrfs aborts the transaction whose metadata it cannot write."""
    with the_same_daemon(serving):
        disk.fail("write", errno.EIO)
        deadline = time.monotonic() + TIMEOUT_S
        while not os.statvfs(serving.pool).f_flag & os.ST_RDONLY:
            with suppress(OSError):
                (serving.pool / "@cache" / "something").write_bytes(b"x")
            os.sync()
            assert time.monotonic() < deadline
        disk.clear()
        all_is_readable(serving)
        assert errno_of(serving, "noop/new", n=1) == errno.EROFS
        assert errno_of(serving, "noop/e0", n="other") == errno.EROFS
        with pytest.raises(OSError, match="Read-only"):
            (serving.mount / "state" / "noop" / "draft~").write_text("x")
        page = status(serving)
        assert "FAIL-SAFE, writes are refused: the kernel turned the pool read-only" in page
        assert "READ-ONLY: see the kernel's log" in page
        assert "device 1 has failed" in page
        assert (serving.mount / "chain" / "log" / "checkpoint").read_text()
    serving.opfs("umount")
    done = serving.opfs("mount", check=False)
    assert "is mounted read-only" in done.stderr
    start_anew(disk, serving)
    all_is_readable(serving)
    serving.put("noop/e0", n=0)


def test_reads_that_fail_are_an_error_and_pass(disk, serving):
    """A document that cannot be read is not served wrong, and others are served; when it can be, it is."""
    serving.opfs("umount")
    disk.unmount(serving.pool.parent)
    disk.mount(serving.pool.parent)
    serving.opfs("mount")
    with the_same_daemon(serving):
        for path in (serving.pool / "@chain").glob("*/state/noop/large.json"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        disk.fail("read", errno.EIO)
        for path in serving.path("noop/large"), serving.mount / "chain" / "HEAD" / "state/noop/large.json":
            with pytest.raises(OSError, match=r"Structure needs cleaning|Input/output error"):
                path.read_bytes()
        assert status(serving)
        disk.clear()
        assert len(json.loads(serving.path("noop/large").read_bytes())["text"]) == 100_000


def test_a_full_host_under_a_sparse_image_is_not_success(disk, serving):
    """The host's ENOSPC comes to the pool as a failed write, of which the devices' counters say nothing."""
    with the_same_daemon(serving):
        disk.fail("write", errno.ENOSPC)
        met = {errno_of(serving, "noop/e0", text="z" * 200_000), errno_of(serving, "noop/new", n=1)}
        assert 0 not in met
        assert met <= {errno.EIO, errno.ENOSPC, errno.EROFS}
        all_is_readable(serving)
    disk.clear()
    start_anew(disk, serving)
    assert [serving.get(f"noop/e{number}") for number in range(1, 5)] == [{"n": number} for number in range(1, 5)]
    assert not serving.path("noop/new").exists() or serving.get("noop/new") == {"n": 1}


def test_log_files_that_cannot_be_read_stop_writing_and_not_the_start(serving):
    serving.opfs("umount")
    checkpoint = serving.pool / "@log" / "checkpoint"
    kept = checkpoint.read_bytes()
    checkpoint.unlink()
    checkpoint.mkdir()
    serving.opfs("mount")
    all_is_readable(serving)
    assert errno_of(serving, "noop/e0", n="other") == errno.EROFS
    assert "checkpoint of the log cannot be read" in status(serving)
    serving.opfs("umount")
    checkpoint.rmdir()
    checkpoint.write_bytes(kept)
    serving.opfs("mount")
    serving.put("noop/e0", n=0)


# --- the counters --------------------------------------------------------------------------------------------


def test_the_devices_counters_tell_of_a_write_that_the_snapshot_hid(disk):
    """One write of data fails and no more: the snapshot succeeds, and the block is not acknowledged."""
    pool = disk.path.parent.parent / "fs" / "pool"
    pool.mkdir(mode=0o700)
    Pool.create(pool, origin="test.example/opfs", created_ns=1).close()
    with BtrfsSnapshotStore(pool) as store:
        assert store.damage() == []
        disk.fail("write", errno.EIO, count=1)
        write = DocumentWrite(ElementId("noop", "a"), b"x" * 100_000)
        with pytest.raises(CommitUnknown):
            store.write_block(BlockName(0, "ab" * 6), (write,), b"{}", b"")
        (line,) = store.damage()
        assert "device 1 has failed: 1 writes" in line


def test_nothing_is_written_to_a_pool_that_is_read_only(disk):
    root = disk.path.parent.parent / "fs"
    pool = root / "pool"
    pool.mkdir(mode=0o700)
    Pool.create(pool, origin="test.example/opfs", created_ns=1).close()
    with BtrfsSnapshotStore(pool) as store:
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        assert mount_at(root) is not None
        with pytest.raises(PoolReadOnly) as refusal:
            store.write_block(BlockName(0, "ab" * 6), (), b"{}", b"")
        assert refusal.value.errno == errno.EROFS
        assert store.list_blocks() == []


def test_vectors_that_the_disk_does_not_give_are_an_error_and_no_signal(disk):
    """The index reads them through mmap, where touching an unreadable page would end the process."""
    path = disk.path.parent.parent / "fs" / "rows.f32"
    vectors = np.random.default_rng(1).random((4096, 16), dtype=np.float32)  # nothing that zstd could make small
    with closing(PackedFile.create(path, FLOAT, (16,), "vectors")) as file:
        file.write(0, vectors)
        file.sync()
    with closing(PackedFile.open(path, FLOAT, (16,), "vectors")) as file:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
        disk.fail("read", errno.EIO)
        with pytest.raises(OSError, match="Input/output error"):
            file.view(4096)
        with pytest.raises(OSError, match="Input/output error"):
            file.rows(4096).take(np.arange(4096))
        disk.clear()
        assert np.array_equal(file.view(4096), vectors)
