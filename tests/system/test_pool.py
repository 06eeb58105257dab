"""Pools on the real thing: what is made, what is refused and why, and what a store finds in them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from opfs.btrfs import ioctl
from opfs.btrfs.mounts import mount_of
from opfs.btrfs.pool import SUBVOLUMES, Pool, is_pool, load_info
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.core.names import BlockName, ElementId
from opfs.errors import CommitUnknown, InvalidRequest, OpfsError, PoolError
from opfs.ports import DocumentWrite

pytestmark = pytest.mark.needs("root", "btrfs", "loop")

ORIGIN = "test.example/opfs"


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
