"""A pool without room, through the mount: ENOSPC and nothing else, deletes go on, and so does all when there is room.

Small pools in images of their own, filled by drafts, by documents, and by somebody else to the last byte.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from features import FEATURES
from serving import serve

from opfs.btrfs.image import MIN_BYTES, attach, create_image, detach
from opfs.btrfs.pool import Pool
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.commit.reserve import Marks

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator
    from pathlib import Path

    from serving import Serving

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse")

CHUNK = os.urandom(1 << 20)
ROOM_TIMEOUT_S = 240.0
"""btrfs gives room back with its next transaction, which may be half a minute away."""


@pytest.fixture
def small_dir(work_dir: Path, request) -> Iterator[Path]:
    """The root of a btrfs of the smallest size that opfs makes a pool in."""
    name = request.node.name.replace("[", "-").replace("]", "")
    image, mount_point = work_dir / f"{name}.img", work_dir / name
    create_image(image, MIN_BYTES)
    attach(image, mount_point)
    yield mount_point
    detach(mount_point, image)
    image.unlink()


@pytest.fixture
def small(small_dir: Path, work_dir: Path) -> Iterator[Serving]:
    with serve(small_dir, work_dir) as serving:
        for number in range(20):
            serving.put(f"noop/e{number}", n=number)
        yield serving


def fill_with_data(directory: Path) -> Path:
    """Write until not a byte more is taken."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while file.write(CHUNK[:size]) == size:
                    pass
        os.fsync(file.fileno())
    return path


def leave_little_for_metadata(directory: Path) -> None:
    """Have all of the device but its last part allocated to data, so that the metadata are soon full."""
    with (directory / "large").open("wb", buffering=0) as file:
        for _ in range(130):
            file.write(CHUNK)
        os.fsync(file.fileno())


def fill_with_names(directory: Path) -> None:
    """Make small files, which lie in the metadata, until no more are taken."""
    leave_little_for_metadata(directory)
    with suppress(OSError):
        for number in range(1_000_000):
            descriptor = os.open(directory / f"filler-{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                os.write(descriptor, CHUNK[:1900])
            finally:
                os.close(descriptor)


def write_often(file: io.RawIOBase, size: int) -> None:
    for _ in range(MIN_BYTES // size):
        assert file.write(CHUNK[:size]) == size


def put_often(serving: Serving, name: str) -> None:
    for number in range(2000):
        serving.put(name, n=number)


def refused_with(serving: Serving, name: str, **document: object) -> int:
    """The errno that a write is answered with, 0 for success."""
    try:
        serving.put(name, **document)
    except OSError as error:
        return error.errno or 0
    return 0


def wait_for_room(serving: Serving, name: str) -> None:
    """The same daemon takes documents again, without anybody's help."""
    deadline = time.monotonic() + ROOM_TIMEOUT_S
    while True:
        number = refused_with(serving, name, n="room again")
        if number == 0:
            return
        assert number == errno.ENOSPC
        assert time.monotonic() < deadline, "there is room, and it is not used"


def all_is_readable(serving: Serving, *, but: tuple[str, ...] = ()) -> None:
    for number in range(20):
        if f"noop/e{number}" not in but:
            assert serving.get(f"noop/e{number}") == {"n": number}
    assert serving.events(serving.blocks()[1])
    assert "FULL" in (serving.mount / "status").read_text()


@contextmanager
def the_same_daemon(serving: Serving) -> Iterator[None]:
    pid = serving.daemon()
    yield
    assert serving.daemon() == pid


def test_drafts_cannot_fill_a_pool(small):
    """They are refused while there is room for deletes, although their bytes are counted late by the kernel."""
    draft = small.mount / "state" / "noop" / "big~"
    with the_same_daemon(small):
        with draft.open("wb", buffering=0) as file:
            for size in (len(CHUNK), 16_384, 256, 1):
                with pytest.raises(OSError, match="No space left"):
                    write_often(file, size)
        assert draft.stat().st_size > 100 << 20
        assert refused_with(small, "noop/new", n=1) == errno.ENOSPC
        assert refused_with(small, "noop/e0", n="other") == errno.ENOSPC
        all_is_readable(small)
        small.path("noop/e0").unlink()
        small.path("noop/e1").unlink()
        all_is_readable(small, but=("noop/e0", "noop/e1"))
        draft.unlink()
        wait_for_room(small, "noop/new")
        assert "FULL" not in (small.mount / "status").read_text()


def test_documents_cannot_fill_a_pool(small):
    """Every block costs metadata; the last of it is kept for deletes."""
    with BtrfsSnapshotStore(small.pool) as store, the_same_daemon(small):
        marks = Marks.of(store.space().total_bytes)
        leave_little_for_metadata(small.pool / "@cache")
        number = 0
        while store.space().free_metadata_bytes > marks.metadata_bytes + (4 << 20):
            (small.pool / "@cache" / f"filler-{number}").write_bytes(CHUNK[:1900])
            number += 1
            if number % 1000 == 0:
                os.sync()
        os.sync()
        with pytest.raises(OSError, match="No space left"):
            put_often(small, "noop/grows")
        all_is_readable(small)
        for number in range(10):
            small.path(f"noop/e{number}").unlink()
        for path in [small.pool / "@cache" / "large", *(small.pool / "@cache").glob("filler-*")]:
            path.unlink()
        wait_for_room(small, "noop/grows")


@pytest.mark.parametrize("kind", ["data", "names"])
def test_somebody_else_fills_the_file_system_to_the_last_byte(small, kind):
    """Nothing is lost, nothing but ENOSPC is answered, a restart works, and room is all it takes to go on."""
    place = small.pool / "@cache" / "elsewhere"
    place.mkdir()
    if kind == "data":
        fill_with_data(place)
    else:
        fill_with_names(place)
    with the_same_daemon(small):
        assert refused_with(small, "noop/new", n=1) == errno.ENOSPC
        assert refused_with(small, "noop/e0", text="x" * 100_000) == errno.ENOSPC
        all_is_readable(small)
        if kind == "data":
            small.path("noop/e0").unlink()
            small.path("noop/e1").unlink()
        else:
            with suppress(OSError):
                small.path("noop/e0").unlink()
        with pytest.raises(OSError, match="No space left"):
            (small.mount / "state" / "noop" / "draft~").write_bytes(CHUNK)
        for word in ("memory", "disk"):
            if FEATURES["model"]() is None:
                with suppress(OSError):
                    (small.mount / "search" / "similar" / f"{word}.json").read_bytes()
    small.kill()
    small.opfs("mount")
    with the_same_daemon(small):
        all_is_readable(small, but=("noop/e0", "noop/e1"))
        assert refused_with(small, "noop/new", n=1) == errno.ENOSPC
        for path in place.iterdir():
            path.unlink()
        wait_for_room(small, "noop/new")
        wait_for_room(small, "noop/e19")
        small.path("noop/e2").unlink()
        if FEATURES["model"]() is None:
            deadline = time.monotonic() + ROOM_TIMEOUT_S
            while True:
                try:
                    assert (small.mount / "search" / "similar" / "room again.json").read_text()
                    break
                except OSError:
                    assert time.monotonic() < deadline, "search does not come back"


def test_a_pool_is_made_with_its_reserve(small_dir):
    """What is kept free is less than half of even the smallest pool."""
    pool = small_dir / "pool"
    pool.mkdir(mode=0o700)
    Pool.create(pool, origin="test.example/opfs", created_ns=1).close()
    with BtrfsSnapshotStore(pool) as store:
        space = store.space()
        marks = Marks.of(space.total_bytes)
        assert space.free_data_bytes > 4 * marks.data_bytes
        assert space.free_metadata_bytes > 4 * marks.metadata_bytes
