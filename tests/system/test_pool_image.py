"""Images of pools on the real thing: attached and detached, full, on a host that is full, and nothing is left."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from guest import OWN_MOUNTS

from opfs.btrfs import ioctl
from opfs.btrfs.image import MIN_BYTES, attach, create_image, detach, image_path
from opfs.btrfs.mounts import mount_at
from opfs.btrfs.pool import Pool, load_info
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.core.names import BlockName, ElementId
from opfs.errors import CommitUnknown, InvalidRequest, NoSpace, OpfsError, PoolError
from opfs.ports import DocumentWrite

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("root", "btrfs", "loop")

ORIGIN = "test.example/opfs"


def loop_devices(image: Path) -> list[str]:
    command = ["losetup", "--associated", str(image), "--noheadings", "--output", "NAME"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def wait_until_free(image: Path) -> None:
    """Whoever else looks at a new device, udev for one, keeps it until he has closed it."""
    deadline = time.monotonic() + 60
    while left := loop_devices(image):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


@pytest.fixture
def image(work_dir, tmp_path):
    """An image of the smallest size beside the place of its pool, unmounted and freed afterwards."""
    pool = work_dir / tmp_path.name / "pool"
    pool.parent.mkdir()
    path = image_path(pool)
    create_image(path, MIN_BYTES)
    yield path
    detach(pool, path)
    path.unlink()


def mount_point_of(image: Path) -> Path:
    return image.with_suffix("")


class TestImage:
    def test_attaching_twice_and_detaching_twice(self, image):
        pool = mount_point_of(image)
        for _ in range(2):
            attach(image, pool)
        mounted = mount_at(pool)
        assert mounted.fs_type == "btrfs"
        assert {"noatime", "nosuid", "nodev"} <= mounted.options
        assert len(loop_devices(image)) == 1
        Pool.create(pool, origin=ORIGIN, created_ns=0).close()
        for _ in range(2):
            detach(pool, image)
        assert mount_at(pool) is None
        wait_until_free(image)
        attach(image, pool)
        assert load_info(pool).origin == ORIGIN

    def test_the_image_is_sparse_and_for_root_alone(self, image):
        found = image.stat()
        assert found.st_size == MIN_BYTES
        assert found.st_blocks * 512 < MIN_BYTES // 8
        assert stat.S_IMODE(found.st_mode) == 0o600

    def test_a_stale_loop_device_is_replaced(self, image):
        subprocess.run(["losetup", "--find", str(image)], check=True)
        pool = mount_point_of(image)

        attach(image, pool)
        assert loop_devices(image) == [mount_at(pool).source]
        detach(pool, image)
        wait_until_free(image)

    def test_an_image_alive_in_another_mount_namespace_is_shared(self, image):
        pool = mount_point_of(image)
        attach(image, pool)
        holding = f'. {OWN_MOUNTS}; detach_others "$0"; echo ready; read line'
        with subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", holding, pool], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as elsewhere:
            assert elsewhere.stdout.readline() == b"ready\n"
            (before,) = loop_devices(image)
            subprocess.run(["umount", str(pool)], check=True)
            attach(image, pool)
            assert loop_devices(image) == [mount_at(pool).source] == [before]
            elsewhere.stdin.close()
        detach(pool, image)
        wait_until_free(image)

    def test_an_image_mounted_elsewhere(self, image, tmp_path):
        attach(image, mount_point_of(image))

        with pytest.raises(PoolError, match=f"mounted at {mount_point_of(image)}"):
            attach(image, tmp_path / "other")

    def test_another_file_system_in_the_place(self, image):
        pool = mount_point_of(image)
        pool.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", str(pool)], check=True)
        try:
            for act in (lambda: attach(image, pool), lambda: detach(pool, image)):
                with pytest.raises(PoolError, match="none is mounted at"):
                    act()
        finally:
            subprocess.run(["umount", str(pool)], check=True)

    def test_a_mount_point_with_something_in_it(self, image):
        pool = mount_point_of(image)
        pool.mkdir()
        (pool / "letter").touch()

        with pytest.raises(PoolError, match="not an empty directory"):
            attach(image, pool)
        wait_until_free(image)
        (pool / "letter").unlink()

    def test_an_image_that_is_not_btrfs(self, image):
        with image.open("r+b") as file:
            file.seek(65536)
            file.write(bytes(4096))

        with pytest.raises(PoolError, match="mount"):
            attach(image, mount_point_of(image))
        wait_until_free(image)

    def test_what_is_not_an_image(self, tmp_path, image):
        pool = tmp_path / "pool"
        (tmp_path / "link.img").symlink_to(image)
        (tmp_path / "directory.img").mkdir()
        os.mkfifo(tmp_path / "fifo.img")
        (tmp_path / "shared.img").touch(mode=0o600)
        (tmp_path / "shared.img").chmod(0o666)
        (tmp_path / "foreign.img").touch(mode=0o600)
        os.chown(tmp_path / "foreign.img", 1000, 1000)
        for name in ("link", "directory", "fifo", "shared", "foreign", "missing"):
            with pytest.raises(PoolError, match=f"{name}.img"):
                attach(tmp_path / f"{name}.img", pool)
        assert not pool.exists()

    def test_a_directory_where_an_image_could_be_exchanged(self, tmp_path):
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)

        with pytest.raises(PoolError, match="written by others"):
            create_image(tmp_path / "open" / "pool.img", MIN_BYTES)

    def test_sizes_that_make_no_pool(self, tmp_path):
        for size, reason in ((MIN_BYTES - 1, "too small"), (1 << 60, "outgrow")):
            with pytest.raises(PoolError, match=reason):
                create_image(tmp_path / "pool.img", size)
        with pytest.raises(InvalidRequest, match="node size"):
            create_image(tmp_path / "pool.img", MIN_BYTES, 12345)
        assert os.listdir(tmp_path) == []

    def test_an_image_is_not_made_twice(self, image):
        with pytest.raises(PoolError, match="exists already"):
            create_image(image, MIN_BYTES)

    def test_the_node_size_is_the_one_asked_for(self, tmp_path):
        path = tmp_path / "pool.img"
        create_image(path, MIN_BYTES, 65536)
        attach(path, tmp_path / "pool")
        try:
            with Pool.create(tmp_path / "pool", origin=ORIGIN, created_ns=0) as pool:
                assert pool.info.node_size == 65536
        finally:
            detach(tmp_path / "pool", path)

    def test_a_pool_without_barriers_is_refused(self, image):
        pool = mount_point_of(image)
        attach(image, pool)
        Pool.create(pool, origin=ORIGIN, created_ns=0).close()
        subprocess.run(["mount", "-o", "remount,nobarrier", str(pool)], check=True)

        with pytest.raises(PoolError, match="nobarrier"):
            Pool.open(pool)

    def test_a_pool_mounted_read_only_is_refused(self, image):
        pool = mount_point_of(image)
        attach(image, pool)
        Pool.create(pool, origin=ORIGIN, created_ns=0).close()
        subprocess.run(["mount", "-o", "remount,ro", str(pool)], check=True)

        with pytest.raises(PoolError, match="read-only"):
            Pool.open(pool)

    def test_deleted_data_can_go_back_to_the_host(self, image):
        pool = mount_point_of(image)
        attach(image, pool)
        size = 64 << 20
        root = os.open(pool, os.O_RDONLY)
        try:
            (pool / "ballast").write_bytes(os.urandom(size))
            ioctl.sync_filesystem(root)
            full = image.stat().st_blocks * 512
            (pool / "ballast").unlink()
            ioctl.sync_filesystem(root)
        finally:
            os.close(root)
        subprocess.run(["fstrim", str(pool)], check=True)  # at once what discard=async does within minutes

        assert full > size
        assert image.stat().st_blocks * 512 < full - size // 2
        assert "discard=async" in mount_at(pool).super_options


def fill(store: BtrfsSnapshotStore, document_bytes: int) -> tuple[OpfsError, int, set[ElementId]]:
    """Commit random documents, one block each, until one fails: the error, its height, what was acknowledged."""
    acknowledged = set()
    for height in range(100_000):
        id = ElementId("none", f"{height}")
        try:
            write = DocumentWrite(id, os.urandom(document_bytes // 2).hex().encode())
            store.write_block(BlockName(height, "0" * 12), [write], b"{}", b"")
        except OpfsError as error:
            return error, height, acknowledged
        acknowledged.add(id)
    pytest.fail("the pool never got full")


def test_a_full_pool_says_so_and_keeps_what_it_has(image):
    pool = mount_point_of(image)
    attach(image, pool)
    Pool.create(pool, origin=ORIGIN, created_ns=0).close()
    with BtrfsSnapshotStore(pool) as store:
        assert store.space().free_bytes > 32 << 20
        error, height, acknowledged = fill(store, 1 << 20)

        assert isinstance(error, NoSpace)
        assert len(store.list_blocks()) == height
        assert store.space().free_bytes < 8 << 20
        assert {found.id for found in store.scan_block(BlockName(height - 1, "0" * 12))} == acknowledged
        assert not (pool / "@state/.new").exists()


@pytest.fixture
def full_host(work_dir):
    """A small host file system for a sparse image: when it is full, the pool's disk fails to write."""
    host = work_dir / "full-host"
    host.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MIN_BYTES + (8 << 20)},mode=0700", "none", host], check=True)
    yield host
    detach(host / "pool", host / "pool.img")
    subprocess.run(["umount", host], check=True)
    host.rmdir()


def fill_up(path: Path) -> None:
    """Write to a file until its file system is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give a part of a file back to the file system: fallocate(2) with PUNCH_HOLE and KEEP_SIZE."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, 3, ctypes.c_int64(offset), ctypes.c_int64(length)) < 0:
        raise OSError(ctypes.get_errno(), "fallocate")


@pytest.mark.parametrize("document_bytes", [1_000, 4_096, 1 << 20])
def test_a_full_host_is_never_acknowledged(full_host, document_bytes):
    image, pool = full_host / "pool.img", full_host / "pool"
    create_image(image, MIN_BYTES)
    left = 24 << 20
    (full_host / "ballast").write_bytes(bytes(os.statvfs(full_host).f_bavail * 4096 - left))
    attach(image, pool)
    Pool.create(pool, origin=ORIGIN, created_ns=0).close()
    with BtrfsSnapshotStore(pool) as store:
        error, height, acknowledged = fill(store, document_bytes)
    assert isinstance(error, CommitUnknown)

    detach(pool, image)
    (full_host / "ballast").unlink()
    attach(image, pool)
    with BtrfsSnapshotStore(pool) as store:
        assert store.list_blocks()[-1].height >= height - 1
        found = {document.id for document in store.scan_block(BlockName(height - 1, "0" * 12))}
    assert found == acknowledged


def test_data_that_cannot_be_written_is_never_acknowledged(full_host):
    """Of the whole disk only the data fails, which neither the snapshot ioctl nor the devices' counters show.

    The counters leave out ENOSPC, which is what the disk says when its host is full.
    """
    image, pool = full_host / "pool.img", full_host / "pool"
    create_image(image, MIN_BYTES)
    attach(image, pool)
    Pool.create(pool, origin=ORIGIN, created_ns=0).close()
    genesis, following = BlockName(0, "0" * 12), BlockName(1, "0" * 12)
    with BtrfsSnapshotStore(pool) as store:
        store.write_block(genesis, [], b"{}", b"")
        leave_no_room_for_data(image, pool)
        write = DocumentWrite(ElementId("none", "1"), os.urandom(100_000))
        with pytest.raises(NoSpace):
            store.write_block(following, [write], b"{}", b"")

        assert store.list_blocks() == [genesis]
        store.restore_layer(genesis, [write.id])
        assert list(store.scan_layer()) == []
        write = DocumentWrite(ElementId("none", "2"), b'{"small": "is metadata"}')
        store.write_block(following, [write], b"{}", b"")
        assert store.read_document(following, write.id) == write.content


def leave_no_room_for_data(image: Path, pool: Path) -> None:
    """Give the whole image its room on the host but for the part where the pool's next data will go."""
    marker = os.urandom(8192)
    with (pool / "marker").open("wb", buffering=0) as file:
        file.write(marker)
        ioctl.sync_filesystem(file.fileno())
    with image.open("r+b") as file:
        data_at = file.read().index(marker)
        os.posix_fallocate(file.fileno(), 0, MIN_BYTES)
        punch_hole(file.fileno(), data_at + len(marker), 4 << 20)
    fill_up(image.with_name("ballast"))
