"""Real daemons on real pools: `opfs` for one that a module's tests share, `fresh` for one of a test's own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from serving import Serving

from opfs.btrfs.pool import Pool
from opfs.testing.pools import delete_tree

if TYPE_CHECKING:
    from collections.abc import Iterator


def _serve(btrfs_dir: Path, work_dir: Path) -> Iterator[Serving]:
    pool = Path(tempfile.mkdtemp(prefix="pool-", dir=btrfs_dir))
    mount = Path(tempfile.mkdtemp(prefix="mnt-", dir=work_dir))
    lxc = Path(tempfile.mkdtemp(prefix="lxc-", dir=work_dir))
    Pool.create(pool, origin="test.example/opfs", created_ns=1_700_000_000_000_000_000).close()
    serving = Serving(pool, mount, lxc)
    try:
        serving.opfs("mount")
        yield serving
    finally:
        serving.opfs("umount")
        findings = serving.findings()
        delete_tree(pool)
        mount.rmdir()
    assert findings == []


@pytest.fixture(scope="module")
def opfs(btrfs_dir: Path, work_dir: Path) -> Iterator[Serving]:
    """A daemon that the tests of a module share; each uses element names of its own."""
    yield from _serve(btrfs_dir, work_dir)


@pytest.fixture
def fresh(btrfs_dir: Path, work_dir: Path) -> Iterator[Serving]:
    """A daemon of this test alone, on an empty pool."""
    yield from _serve(btrfs_dir, work_dir)
