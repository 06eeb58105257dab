"""Pools to measure: filled by the commit path's own code, served by the daemon as a user would start it.

Filling runs `Chain.propose`, `SnapshotStore.write_block` and `Chain.adopt` in this process, without plugins and
without a mount, which makes 10,000 documents and thousands of blocks in seconds: every byte is what the
daemon would have written. The daemon is a process of its own, ended by its process id.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opfs.btrfs.pool import Pool
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.commit.chain import Outcome, load_chain
from opfs.commit.tips import Tips
from opfs.core.actor import Actor
from opfs.core.names import ElementId
from opfs.fuse.mountpoint import recover_stale_mount
from opfs.ports import FileAttributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from opfs.commit.chain import Chain

NOOP = "opfs.testing.noop:NoopPlugin"
NOOP_NAME = "noop"
ORIGIN = "bench.example/opfs"
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 90.0

_ACTOR = Actor(0, "root", None, os.getpid(), "bench", sys.executable, "", "cli").to_json()
_ROLES = ("web server", "database", "mail relay", "build runner", "proxy", "cache", "monitor", "backup")


def element_name(index: int) -> str:
    return f"host-{index:05d}"


def document(index: int, revision: int) -> bytes:
    """About 300 bytes, different for every index and revision, readable enough to be embedded as real ones are."""
    role = _ROLES[index % len(_ROLES)]
    fields = {
        "hostname": f"{role.split()[0]}-{index:05d}",
        "description": f"the {role} of site {index % 17}, rack {index % 41}, kept by the operations team",
        "memory": 512 + 64 * (revision % 128),
        "cores": 1 + index % 8,
        "net0": f"name=eth0,bridge=vmbr{index % 4},ip=10.{index % 16}.{index // 250 % 250}.{index % 250}/16",
        "state": "running",
        "serial": f"{revision:016d}",
    }
    return json.dumps(fields).encode() + b"\n"


def changed_element(block: int, elements: int) -> int:
    """Which document a block changes: scattered, so that blocks touch the whole tree."""
    return block * 7919 % elements


class Filler:
    """Makes blocks in a pool that no daemon serves; `content` gives a document by its index and revision."""

    def __init__(self, pool: Path, content: Callable[[int, int], bytes] = document) -> None:
        self._content = content
        with ExitStack() as opened:
            opened.enter_context(Pool.open(pool))
            self._store = opened.enter_context(BtrfsSnapshotStore(pool))
            tips = opened.enter_context(closing(Tips(pool / "@log" / "tips")))
            self._chain: Chain = load_chain(self._store, tips, ORIGIN, time.time_ns())
            self.close = opened.pop_all().close

    def add_elements(self, count: int) -> None:
        """Create `count` documents in one block."""
        self._commit(range(count), revision=0)

    def add_blocks(self, count: int, elements: int) -> Iterator[int]:
        """Change one document a block, `count` times; yields how many are made."""
        for made in range(1, count + 1):
            self._commit([changed_element(made, elements)], revision=made)
            yield made

    def _commit(self, indices: range | list[int], revision: int) -> None:
        now_ns = time.time_ns()
        outcomes = [
            Outcome(
                id=(id := ElementId(NOOP_NAME, element_name(index))),
                op="create" if self._chain.catalog.get(id) is None else "update",
                content=self._content(index, revision),
                attributes=FileAttributes(0o644, 0, 0, now_ns),
                actor=_ACTOR,
            )
            for index in indices
        ]
        proposal = self._chain.propose(outcomes, now_ns)
        self._store.write_block(proposal.name, proposal.writes, proposal.header_bytes, proposal.events_bytes)
        self._chain.adopt(proposal)


class Daemon:
    """opfs serving a pool at a mount point; `start` returns when the mount answers.

    `settings` are further variables of the configuration; `program` is what runs instead of opfs itself.
    """

    def __init__(
        self,
        pool: Path,
        mount: Path,
        log: Path,
        settings: Mapping[str, str] | None = None,
        *,
        program: Sequence[str] = ("-m", "opfs"),
    ) -> None:
        self._settings = dict(settings or {})
        self._program = program
        self.pool = pool
        self.mount = mount
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the daemon is not running")
        return self._process.pid

    def start(self) -> float:
        """Start the daemon and return the seconds from the start of the process to an answer from the mount."""
        self.mount.mkdir(exist_ok=True)
        outside = self.mount.stat().st_dev
        command = [sys.executable, "-P", *self._program, "--pool", str(self.pool), "--mount", str(self.mount)]
        with self._log.open("ab") as log:
            start = time.perf_counter()
            self._process = subprocess.Popen(
                [*command, "mount", "--foreground"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**daemon_environment(self._log.parent), **self._settings},
                start_new_session=True,  # ctrl-C is for the benchmark, which then ends the daemon in order
            )
        while time.perf_counter() - start < READY_TIMEOUT_S:
            if self._process.poll() is not None:
                raise RuntimeError(f"the daemon ended before it was ready:\n{self.log_end()}")
            if self.mount.stat().st_dev != outside:
                (self.mount / "README").read_bytes()
                return time.perf_counter() - start
            time.sleep(0.002)
        raise RuntimeError(f"the mount does not answer after {READY_TIMEOUT_S:.0f} s:\n{self.log_end()}")

    def stop(self) -> None:
        """End the daemon, by force if it does not end by itself, and take its mount away."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        recover_stale_mount(self.mount)

    def log_end(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])

    def wait_indexed(self) -> float:
        """Search, which waits until every committed event is in the index; returns the seconds it took."""
        start = time.perf_counter()
        while True:
            # no request is kept waiting for ever: what did not end in time goes on, and is asked for again
            with suppress(TimeoutError):
                (self.mount / "search" / "similar" / f"{start:.6f} memory of the web server").read_bytes()
                return time.perf_counter() - start

    def block_count(self) -> int:
        """Live blocks, as the mount tells HEAD; nothing is pruned here."""
        head = os.readlink(self.mount / "chain" / "HEAD")
        return int(Path(head).name.partition("-")[0]) + 1

    def memory_mb(self, field: str) -> float:
        """A field of /proc/<pid>/status in MB, e.g. VmRSS (proc(5))."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise RuntimeError(f"/proc/{self.pid}/status has no {field}")


def daemon_environment(directory: Path) -> dict[str, str]:
    """This environment with the no-op plugin and a configuration file of our own: the host's is not read."""
    config = directory / "opfs.toml"
    config.touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPFS_", "OPDBUS_"))}
    for name in ("OPFS_MODELS",):
        if name in os.environ:
            kept[name] = os.environ[name]
    return {**kept, "OPFS_CONFIG": str(config), "OPFS_PLUGINS": NOOP}
