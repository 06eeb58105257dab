"""Pools and their images on the real thing: what is made, what is refused and why, and that nothing is left."""

from __future__ import annotations

import ctypes
import json
import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from guest import OWN_MOUNTS

from opfs.btrfs import ioctl
from opfs.btrfs.image import MIN_BYTES, attach, create_image, detach, image_path
from opfs.btrfs.mounts import mount_at, mount_of
from opfs.btrfs.pool import SUBVOLUMES, Pool, is_pool, load_info
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.core.names import BlockName, ElementId
from opfs.errors import CommitUnknown, InvalidRequest, NoSpace, OpfsError, PoolError
from opfs.ports import DocumentWrite

pytestmark = pytest.mark.needs("root", "btrfs", "loop")

ORIGIN = "test.example/opfs"


def loop_devices(image: Path) -> list[str]:
    command = ["losetup", "--associated", str(image), "--noheadings", "--output", "NAME"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


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


class TestMaking:
    def test_a_pool_has_its_subvolumes_and_says_what_it_is(self, btrfs_place):
        with Pool.create(btrfs_place, origin=ORIGIN, created_ns=1_700_000_000_000_000_001) as pool:
            assert pool.info == load_info(btrfs_place)
            assert pool.info.created == "2023-11-14T22:13:20.000000001Z"
            assert (pool.info.format, pool.info.origin, pool.info.node_size) == (1, ORIGIN, 16384)
        assert is_pool(btrfs_place)
        assert sorted(os.listdir(btrfs_place)) == sorted([*SUBVOLUMES, "lock", "pool.json"])
        assert stat.S_IMODE(btrfs_place.stat().st_mode) == 0o700
        for name in SUBVOLUMES:
            assert (btrfs_place / name).stat().st_ino == ioctl.SUBVOLUME_ROOT_INODE
        assert (btrfs_place / "@drafts/rejected").is_dir()
        assert (btrfs_place / "@drafts/state").is_dir()

    def test_an_unfinished_pool_is_completed(self, btrfs_place):
        root = os.open(btrfs_place, os.O_RDONLY)
        ioctl.create_subvolume(root, "@state")
        ioctl.create_subvolume(root, "@chain")
        os.close(root)
        (btrfs_place / "pool.json.new").write_text('{"for')

        with pytest.raises(PoolError, match="not finished"):
            Pool.open(btrfs_place)
        Pool.create(btrfs_place, origin=ORIGIN, created_ns=0).close()
        Pool.open(btrfs_place).close()

    def test_a_pool_is_not_made_over_another(self, pool_dir):
        with pytest.raises(PoolError, match="pool already"):
            Pool.create(pool_dir, origin=ORIGIN, created_ns=0)

    def test_a_pool_is_not_made_over_blocks_without_a_description(self, pool_dir):
        with BtrfsSnapshotStore(pool_dir) as store:
            store.write_block(BlockName(0, "0" * 12), [], b"{}", b"")
        (pool_dir / "pool.json").unlink()

        with pytest.raises(PoolError, match="has blocks"):
            Pool.create(pool_dir, origin=ORIGIN, created_ns=0)

    def test_a_directory_with_something_in_it_is_left_alone(self, btrfs_place):
        (btrfs_place / "letters").mkdir()

        with pytest.raises(PoolError, match="'letters'"):
            Pool.create(btrfs_place, origin=ORIGIN, created_ns=0)
        assert os.listdir(btrfs_place) == ["letters"]

    @pytest.mark.parametrize("origin", ["", "https://host/opfs", "two words", "a+b", "x" * 256])
    def test_an_origin_that_cannot_name_a_log(self, btrfs_place, origin):
        with pytest.raises(InvalidRequest):
            Pool.create(btrfs_place, origin=origin, created_ns=0)
        assert os.listdir(btrfs_place) == []


class TestOpening:
    def test_a_second_opener_is_told_who_is_first(self, pool_dir):
        with Pool.open(pool_dir), pytest.raises(PoolError, match=f"in use by process {os.getpid()}"):
            Pool.open(pool_dir)
        Pool.open(pool_dir).close()

    def test_the_lock_goes_with_its_process(self, pool_dir):
        script = (
            "import pathlib, sys; from opfs.btrfs.pool import Pool; pool = Pool.open(pathlib.Path(sys.argv[1]));"
            "print('open', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, str(pool_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        ) as holder:
            assert holder.stdout.readline() == b"open\n"
            with pytest.raises(PoolError, match=f"in use by process {holder.pid}"):
                Pool.open(pool_dir)
            holder.kill()
        Pool.open(pool_dir).close()

    def test_a_newer_format(self, pool_dir):
        description = json.loads((pool_dir / "pool.json").read_text())
        (pool_dir / "pool.json").write_text(json.dumps(description | {"format": 2, "unheard": "of"}))

        with pytest.raises(PoolError, match="has format 2; this opfs reads up to 1"):
            Pool.open(pool_dir)

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "one"}', '{"format": 1, "id": 3}', "\xff"])
    def test_a_damaged_description(self, pool_dir, content):
        (pool_dir / "pool.json").write_bytes(content.encode("latin-1"))

        with pytest.raises(PoolError, match="damaged"):
            Pool.open(pool_dir)

    def test_a_subvolume_that_is_missing_or_is_none(self, pool_dir):
        root = os.open(pool_dir, os.O_RDONLY)
        ioctl.delete_subvolume(root, "@index")
        os.close(root)
        with pytest.raises(PoolError, match="no @index"):
            Pool.open(pool_dir)
        (pool_dir / "@index").mkdir()
        with pytest.raises(PoolError, match="not a subvolume"):
            Pool.open(pool_dir)

    def test_a_place_that_is_no_pool(self, btrfs_place):
        with pytest.raises(PoolError, match="not a pool"):
            Pool.open(btrfs_place)

    def test_a_place_that_does_not_exist(self, tmp_path):
        with pytest.raises(PoolError, match="does not exist"):
            Pool.open(tmp_path / "nowhere")

    def test_a_link_to_a_pool(self, pool_dir, tmp_path):
        (tmp_path / "link").symlink_to(pool_dir)

        with pytest.raises(PoolError, match="symbolic link"):
            Pool.open(tmp_path / "link")

    def test_a_file(self, tmp_path):
        (tmp_path / "file").touch()

        with pytest.raises(PoolError, match="not a directory"):
            Pool.open(tmp_path / "file")

    def test_another_file_system(self, tmp_path):
        (tmp_path / "here").mkdir(mode=0o700)

        with pytest.raises(PoolError, match="lies on"):
            Pool.create(tmp_path / "here", origin=ORIGIN, created_ns=0)

    def test_a_pool_that_others_own_or_may_write(self, pool_dir):
        pool_dir.chmod(0o770)
        with pytest.raises(PoolError, match="written by others"):
            Pool.open(pool_dir)
        pool_dir.chmod(0o700)
        os.chown(pool_dir, 1000, 0)
        with pytest.raises(PoolError, match="belongs to uid 1000"):
            Pool.open(pool_dir)

    def test_a_pool_that_others_may_read_is_closed_to_them(self, pool_dir):
        pool_dir.chmod(0o755)

        Pool.open(pool_dir).close()
        assert stat.S_IMODE(pool_dir.stat().st_mode) == 0o700


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
        assert loop_devices(image) == []
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
        assert loop_devices(image) == []

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
        assert loop_devices(image) == []

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
        assert loop_devices(image) == []
        (pool / "letter").unlink()

    def test_an_image_that_is_not_btrfs(self, image):
        with image.open("r+b") as file:
            file.seek(65536)
            file.write(bytes(4096))

        with pytest.raises(PoolError, match="mount"):
            attach(image, mount_point_of(image))
        assert loop_devices(image) == []

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


def test_the_layer_is_swept_of_what_a_crash_left(pool_dir):
    (pool_dir / "@state/.new").write_bytes(b'{"half')
    with BtrfsSnapshotStore(pool_dir) as store:
        assert (pool_dir / "@state/.new").exists(), "reading changes nothing"
        store.write_block(BlockName(0, "0" * 12), [], b"{}", b"")
        assert sorted(os.listdir(store.block_path(BlockName(0, "0" * 12)))) == ["block.json", "events.jsonl", "state"]


def test_only_subvolumes_with_the_name_of_a_block_are_blocks(pool_dir):
    with BtrfsSnapshotStore(pool_dir) as store:
        (pool_dir / "@chain/00000007-000000000000").mkdir()
        (pool_dir / "@chain/HEAD").symlink_to("00000007-000000000000")
        root = os.open(pool_dir / "@chain", os.O_RDONLY)
        ioctl.create_subvolume(root, "notes")
        os.close(root)
        store.write_block(BlockName(0, "0" * 12), [], b"{}", b"")

        assert store.list_blocks() == [BlockName(0, "0" * 12)]


def test_a_block_is_a_read_only_snapshot_of_the_layer(pool_dir):
    with BtrfsSnapshotStore(pool_dir) as store:
        name = BlockName(0, "0" * 12)
        store.write_block(name, [DocumentWrite(ElementId("lxc", "1"), b"{}")], b"{}", b"")
        layer = os.open(pool_dir / "@state", os.O_RDONLY)
        block = os.open(store.block_path(name), os.O_RDONLY)
        try:
            assert ioctl.is_read_only(block)
            assert not ioctl.is_read_only(layer)
            assert ioctl.subvolume_info(block).parent_uuid == ioctl.subvolume_info(layer).uuid
        finally:
            os.close(layer)
            os.close(block)
        with pytest.raises(OSError, match="Read-only"):
            (store.block_path(name) / "state/lxc/1.json").write_bytes(b"forged")


def test_links_and_devices_planted_in_the_pool_are_not_followed(pool_dir):
    state = pool_dir / "@state/state"
    (state / "lxc").mkdir()
    (state / "lxc/link.json").symlink_to("/etc/passwd")
    with BtrfsSnapshotStore(pool_dir) as store:
        with pytest.raises(OpfsError, match="layer"):
            list(store.scan_layer())
        (state / "lxc/link.json").unlink()
        os.mkfifo(state / "lxc/fifo.json")
        with pytest.raises(OpfsError, match="not a regular file"):
            list(store.scan_layer())
        (state / "lxc/fifo.json").unlink()
        (state / "other").symlink_to("/etc")
        with pytest.raises(CommitUnknown):
            store.write_block(BlockName(0, "0" * 12), [DocumentWrite(ElementId("other", "x"), b"{}")], b"{}", b"")
        assert not Path("/etc/x.json").exists()


def test_the_mount_of_an_open_file_is_found(pool_dir, btrfs_dir):
    fd = os.open(pool_dir / "@state", os.O_RDONLY)
    try:
        assert mount_of(fd).mount_point == btrfs_dir
    finally:
        os.close(fd)
