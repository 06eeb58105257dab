"""A rollback of many elements, through a daemon and a mount of its own; the elements are files of a directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opfs.btrfs.pool import Pool
from opfs.claims.claim import Finding, Lines, Series, Table, Verdict
from opfs.claims.samples import in_ms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opfs.claims.bench import Bench

CLAIMED_S = 1.0
_WRITERS = 16


def measure(bench: Bench) -> Finding:
    counts = ((1, 10), (1, 100, 1000))[min(bench.effort, 1)]
    found = []
    with bench.filesystem(2 << 30) as place, _daemon(bench, place / "pool") as mount:
        for number, count in enumerate(counts):
            found.append((count, _roll_back(mount, bench.directory / f"files-{count}", count)))
            bench.progress(number, len(counts))
    return judge(found)


def judge(found: list[tuple[int, float]]) -> Finding:
    """(elements, seconds): true where each took at most a second."""
    good = [seconds <= CLAIMED_S for _, seconds in found]
    verdict = Verdict.TRUE if all(good) else Verdict.PARTLY if any(good) else Verdict.FALSE
    told = ", ".join(f"{in_ms(seconds)} for {count:,}" for count, seconds in found)
    said = (
        f"{told}, elements of the plugin `file`, in one block, each applied and checked on the host. What takes "
        "longer than a file, as a container does, takes longer to go back; turning to an old snapshot alone would "
        "be quick and change nothing on the host."
    )
    rows = tuple((f"{count:,}", in_ms(seconds)) for count, seconds in found)
    lines = Lines("A rollback", "elements", "seconds", (Series("rollback", tuple((float(n), s) for n, s in found)),))
    return Finding(verdict, said, (Table(("elements", "rollback"), rows),), (lines,))


def _roll_back(mount: Path, directory: Path, count: int) -> float:
    directory.mkdir()
    _write(mount, directory, count, 1)
    source = _head(mount)
    _write(mount, directory, count, 2)
    start = time.perf_counter()
    (mount / "ctl").write_text(f"rollback {source}\n")
    took_s = time.perf_counter() - start
    for number in range(count):
        if (directory / str(number)).read_text() != "revision 1\n":
            raise RuntimeError("a rollback left a file as it was")
    return took_s


def _write(mount: Path, directory: Path, count: int, revision: int) -> None:
    def put(number: int) -> None:
        document = {"path": str(directory / str(number)), "content": f"revision {revision}\n"}
        (mount / "state/file" / f"{directory.name}-{number}.json").write_text(json.dumps(document))

    with ThreadPoolExecutor(_WRITERS) as writers:
        list(writers.map(put, range(count)))


def _head(mount: Path) -> int:
    return int(os.readlink(mount / "chain/HEAD").partition("-")[0])


@contextmanager
def _daemon(bench: Bench, pool: Path) -> Iterator[Path]:
    """A daemon as `opfs mount` starts it; it knows nothing of the configuration of this host."""
    mount = bench.directory / "mnt"
    mount.mkdir()
    pool.mkdir()
    Pool.create(pool, origin="claims.example/opfs", created_ns=time.time_ns()).close()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPFS_", "OPDBUS_"))}
    settings = bench.directory / "opfs.toml"
    settings.write_text(f"models = {json.dumps(str(bench.models))}\n")

    def opfs(word: str) -> None:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "opfs", "--pool", str(pool), "--mount", str(mount), word],
            capture_output=True, text=True, check=False, env={**environment, "OPFS_CONFIG": str(settings)},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"opfs {word} failed: {done.stderr.strip()}")

    opfs("mount")
    try:
        yield mount
    finally:
        opfs("umount")
