"""What every test may count on: the features of this machine, and a real btrfs to play on.

A test that needs something of the machine says so with `@pytest.mark.needs("root", "btrfs")`, or asks for a
fixture that does (tests/features.py). Without it the test is skipped and the header says why; where CI is set it
fails instead.
"""

from __future__ import annotations

import fcntl
import math
import secrets
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from features import FEATURES, models_directory, require
from guest import booted, remove_group
from hypothesis import settings
from lxcworld import lxc_directory, new_name
from ovs import Switch
from serving import serve
from trio.testing import MockClock

from opfs.btrfs.image import attach, create_image, detach
from opfs.btrfs.pool import Pool
from opfs.testing.pools import delete_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guest import Guest
    from serving import Serving

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("opfs", deadline=None)
settings.load_profile("opfs")

WORK_PREFIX = "opfs-test-"
"""Begins the name of every directory of these tests outside pytest's own, so that stale ones can be swept."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"needs(*features): what the machine must have, of {', '.join(FEATURES)}")


def pytest_report_header() -> list[str]:
    missing = {name: reason for name, why_not in FEATURES.items() if (reason := why_not())}
    lines = [f"features: {' '.join(name for name in FEATURES if name not in missing) or 'none'}"]
    return lines + [f"MISSING {name}: {reason}" for name, reason in missing.items()]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        require(*marker.args)


@pytest.fixture
def autojump_clock(monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """Time jumps to the next deadline when all tasks wait, but not while one of them waits for a thread at work."""
    clock = MockClock(autojump_threshold=0)
    run_sync, at_work = trio.to_thread.run_sync, 0

    async def counted(*arguments: object, **options: object) -> object:
        nonlocal at_work
        at_work += 1
        clock.autojump_threshold = math.inf
        try:
            return await run_sync(*arguments, **options)
        finally:
            at_work -= 1
            if not at_work:
                clock.autojump_threshold = 0

    monkeypatch.setattr(trio.to_thread, "run_sync", counted)
    return clock


@pytest.fixture(scope="session")
def work_dir() -> Iterator[Path]:
    """A directory of this run for mounts and images; those of killed runs are swept first.

    The lock in it tells a live run's from a dead one's.
    """
    for stale in Path(tempfile.gettempdir()).glob(f"{WORK_PREFIX}*"):
        _sweep(stale)
    path = Path(tempfile.mkdtemp(prefix=WORK_PREFIX))
    with (path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path
        leaks = _leaks_below(path)
        _unmount_below(path)
    shutil.rmtree(path)
    assert leaks == [], "tests left something behind"


def _leaks_below(path: Path) -> list[str]:
    """Mounts, loop devices and processes that name `path`: whoever made them has not ended them."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    leaks = [f"mount {point}" for point in mounts if Path(point).is_relative_to(path)]
    for backing_file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            image = backing_file.read_text().strip()
            leaks += [f"loop device of {image}"] if Path(image).is_relative_to(path) else []
    for command_line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = command_line.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            leaks += [f"process {command}"] if str(path) in command else []
    return leaks


def _sweep(path: Path) -> None:
    try:
        lock = (path / "lock").open("r")
    except OSError:
        return  # not ours, or just being made
    with lock, suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for place in path.glob("guest-*"):
            remove_group(place)
        _unmount_below(path)
        shutil.rmtree(path)


def _unmount_below(path: Path) -> None:
    """Unmount what lies below `path`, innermost first, and free the loop devices of images in it."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(points):
        if Path(point).is_relative_to(path):
            subprocess.run(["umount", "--lazy", point], check=True)
    for image in path.glob("**/*.img"):
        found = subprocess.run(
            ["losetup", "--associated", image, "--noheadings", "--output", "NAME"], capture_output=True
        )
        for device in found.stdout.decode().split():
            subprocess.run(["losetup", "--detach", device], check=False)


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The directory with the real language model in it."""
    require("model")
    return models_directory()


@pytest.fixture(scope="session")
def btrfs_dir(work_dir: Path) -> Iterator[Path]:
    """The root of a real btrfs file system, one for the whole run, in an image of 1 GiB."""
    require("root", "btrfs", "loop")
    image, mount_point = work_dir / "btrfs.img", work_dir / "btrfs"
    create_image(image, 1 << 30)
    attach(image, mount_point)
    yield mount_point
    detach(mount_point, image)


@pytest.fixture
def btrfs_place(btrfs_dir: Path) -> Iterator[Path]:
    """An empty directory of root's on btrfs, of mode 0700."""
    path = Path(tempfile.mkdtemp(prefix="place-", dir=btrfs_dir))
    yield path
    delete_tree(path)


@pytest.fixture
def pool_dir(btrfs_place: Path) -> Path:
    """A new pool, not locked, with nothing in it; its origin is `test.example/opfs`."""
    Pool.create(btrfs_place, origin="test.example/opfs", created_ns=1_700_000_000_000_000_000).close()
    return btrfs_place


@pytest.fixture(scope="module")
def opfs(btrfs_dir: Path, work_dir: Path) -> Iterator[Serving]:
    """A daemon that the tests of a module share; each uses element names of its own."""
    with serve(btrfs_dir, work_dir) as serving:
        yield serving


@pytest.fixture
def fresh(btrfs_dir: Path, work_dir: Path) -> Iterator[Serving]:
    """A daemon of this test alone, on an empty pool."""
    with serve(btrfs_dir, work_dir) as serving:
        yield serving


@pytest.fixture(scope="module")
def guest(work_dir: Path) -> Iterator[Guest]:
    """A host that the tests of a module share, and may break."""
    require("guest")
    with booted("guest", Path(tempfile.mkdtemp(prefix="guest-", dir=work_dir))) as guest:
        yield guest


@pytest.fixture
def new_guest(work_dir: Path) -> Iterator[Callable[..., Guest]]:
    """A function that boots further hosts, with the arguments of `booted` but the place; they end with the test."""
    require("guest")
    with ExitStack() as guests:

        def boot(name: str, **options: object) -> Guest:
            place = Path(tempfile.mkdtemp(prefix="guest-", dir=work_dir))
            return guests.enter_context(booted(name, place, **options))

        yield boot


@pytest.fixture(scope="session")
def private_switch(work_dir: Path) -> Iterator[Switch]:
    """One Open vSwitch for the whole run; tests take `switch`."""
    require("root", "ovs")
    switch = Switch(work_dir)
    yield switch
    switch.close()


@pytest.fixture
def switch(private_switch: Switch) -> Iterator[Switch]:
    """An Open vSwitch of its own network namespace, running, without bridges (tests/ovs.py)."""
    private_switch.clear()
    yield private_switch
    private_switch.clear()


@pytest.fixture
def lxc_name() -> str:
    """Of a container, as no other run has one."""
    return new_name()


@pytest.fixture
def lxcpath(lxc_name: str) -> Iterator[Path]:
    """An LXC directory of its own; what runs in it ends with the test."""
    with lxc_directory(lxc_name) as path:
        yield path


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge of the kernel, up, with nothing on it."""
    name = f"opfsbr{secrets.token_hex(2)}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    yield name
    subprocess.run(["ip", "link", "del", name], check=True)
