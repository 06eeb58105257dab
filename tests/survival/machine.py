"""A machine of its own: a pool and the host's files side by side on one disk, and the daemon that serves them.

The plugin `file` writes below `<disk>/host`, the plugin `shelf` inside the pool: what the chain says and what the
host has go through the same power cut. Blocking.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from opfs.btrfs.pool import Pool, is_pool
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.cli.process import find_daemon, is_serving
from opfs.commit.change import Change, Request
from opfs.commit.recovery import recover
from opfs.commit.verify import StoreReader, Verification
from opfs.config import load_config
from opfs.core.actor import Actor
from opfs.core.event import decode_events
from opfs.core.names import OWN_EVENTS, ElementId
from opfs.daemon.parts import open_parts
from opfs.daemon.rotation import finish_rotation
from opfs.testing.shelf import look
from opfs.tlog.audit import LogAudit
from opfs.tlog.keys import DIRECTORY as KEYS
from opfs.tlog.keys import KeyStore
from survival.ledger import FAILED, Seen, final_documents

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from opfs.core.names import BlockName
    from opfs.daemon.parts import Parts

ORIGIN = "survival.example/opfs"
SHELF = "opfs.testing.shelf:ShelfPlugin"
PROBE = ElementId("shelf", "probe")
"""Written after every recovery, to see that the pool takes writes again."""
DEADLINE_S = 180


@dataclass
class Machine:
    """`disk` is the mounted btrfs, `mount` where the daemon shows the tree, `interval` how often it makes blocks."""

    disk: Path
    mount: Path
    interval: str = "per-op"
    tried: dict[str, bytes] = field(default_factory=dict)
    """Documents by their hash: of those that one block had several of, it keeps the last."""
    _daemon: subprocess.Popen[bytes] | None = None
    _seen: dict[BlockName, list[Seen]] = field(default_factory=dict)
    """What blocks hold: their names say it, so each is read once."""

    def __post_init__(self) -> None:
        self._config.touch()

    @property
    def _config(self) -> Path:
        """A configuration file of our own: the host's is not read."""
        return self.mount.with_suffix(".toml")

    @property
    def pool(self) -> Path:
        return self.disk / "pool"

    @property
    def host(self) -> Path:
        return self.disk / "host"

    @property
    def state(self) -> Path:
        return self.mount / "state"

    @property
    def environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("OPFS_", "OPDBUS_"))}
        models = {"OPFS_MODELS": os.environ["OPFS_MODELS"]} if "OPFS_MODELS" in os.environ else {}
        return {
            **ours,
            **models,
            "OPFS_PLUGINS": SHELF,
            "OPFS_CONFIG": str(self._config),
            "OPFS_SCRUB_INTERVAL_S": "0",
            "OPFS_SNAPSHOT_INTERVAL": self.interval,
        }

    # --- the daemon --------------------------------------------------------------------------------------

    def make_pool(self) -> None:
        """Make the pool, or finish making it, unless that is done."""
        self.host.mkdir(exist_ok=True)
        self.pool.mkdir(mode=0o700, exist_ok=True)
        if not is_pool(self.pool):
            Pool.create(self.pool, origin=ORIGIN, created_ns=time.time_ns()).close()

    def opfs(self, *arguments: str) -> str:
        """Run the command as root would; raises with its own words if it fails."""
        place = ["--pool", str(self.pool), "--mount", str(self.mount)]
        command = [sys.executable, "-m", "opfs", *place, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False)
        if done.returncode != 0:
            raise AssertionError(f"opfs {' '.join(arguments)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def start(self) -> None:
        """Start `opfs mount --foreground`, as systemd does, and return at once; its words go beside the mount."""
        place = ["--pool", str(self.pool), "--mount", str(self.mount)]
        with self.mount.with_suffix(".log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [sys.executable, "-m", "opfs", *place, "mount", "--foreground"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def wait_serving(self) -> None:
        """Return when the mount answers; raises with the daemon's last words if it ends instead."""
        give_up_at = time.monotonic() + DEADLINE_S
        while not is_serving(self.pool, self.mount):
            status = self._daemon.poll() if self._daemon else None
            if status is not None or time.monotonic() > give_up_at:
                words = self.mount.with_suffix(".log").read_text(errors="replace")[-2000:]
                raise AssertionError(f"the daemon does not serve (exit status {status}): {words}")
            time.sleep(0.005)

    def died_within(self, seconds: float) -> bool:
        """Wait so long for the daemon to die; whether it did."""
        with self._process() as process:
            return process is None or bool(select.select([process], [], [], seconds)[0])

    def kill(self) -> None:
        """kill -9 the daemon, and wait until it is gone. There may be none."""
        with self._process() as process:
            if process is not None:
                signal.pidfd_send_signal(process, signal.SIGKILL)
                if not select.select([process], [], [], DEADLINE_S)[0]:
                    raise AssertionError("the daemon does not die")
        if self._daemon is not None:
            self._daemon.wait()
            self._daemon = None

    @contextmanager
    def _process(self) -> Iterator[int | None]:
        """The daemon as a pidfd, started by us or by the command; None where there is none."""
        is_ours = self._daemon is not None and self._daemon.poll() is None
        pid = self._daemon.pid if self._daemon is not None and is_ours else find_daemon(self.pool)
        if pid is None:
            yield None
            return
        process = os.pidfd_open(pid)
        try:
            yield process
        finally:
            os.close(process)

    # --- after a crash -----------------------------------------------------------------------------------

    def recover(self) -> list[str]:
        """Do what a start does, in this process and without a mount, and write once; returns what is wrong."""
        flags = {"pool": self.pool, "mount": self.mount}
        with open_parts(load_config(flags, self.environment)) as parts:
            trio.run(_settle, parts)
            problems = [] if parts.failsafe.reason is None else [f"fail-safe: {parts.failsafe.reason}"]
            if parts.logbook.failure:
                problems.append(f"the log is behind: {parts.logbook.failure}")
            return problems

    def verify(self, since: int = 0, *, is_live: bool = False) -> list[str]:
        """Every block from `since` on, the layer and the log; nothing of the index, which follows later."""
        log = LogAudit(self.pool / "@log", ORIGIN, KeyStore(self.pool / KEYS, ORIGIN))
        with BtrfsSnapshotStore(self.pool) as store:
            verification = Verification(store, StoreReader(store), since, true_header=log.true_header)
            findings = [finding for _, found in verification.run() for finding in found]
            findings += verification.check_layer()
            findings += log.check(verification.leaves_now, settled=len(verification.blocks) if is_live else 0)
        return [str(finding) for finding in findings]

    def events(self) -> list[Seen]:
        """What the chain tells of the writers' elements, in order."""
        seen = []
        with BtrfsSnapshotStore(self.pool) as store:
            for name in store.list_blocks():
                if name not in self._seen:
                    self._seen[name] = _read(store, name, self.tried)
                seen += self._seen[name]
        return seen

    def shown(self) -> dict[str, bytes]:
        """Every document of the writers that the mount shows."""
        return {
            f"{plugin}/{path.stem}": path.read_bytes()
            for plugin in ("shelf", "file")
            for path in (self.state / plugin).iterdir()
            if path.suffix == ".json" and not path.name.startswith(".") and path.stem != PROBE.element
        }

    def check_host(self, events: list[Seen]) -> list[str]:
        """Whether the host is what the chain of `events` says."""
        problems = []
        documents = final_documents(events)
        shelf = {
            f"shelf/{element}": document for element, document in look(self.pool / "@drafts/plugins/shelf").items()
        }
        shelf.pop(str(PROBE), None)
        on_shelf = {e: json.loads(content) for e, content in documents.items() if e.startswith("shelf/")}
        for element in sorted(shelf.keys() | on_shelf.keys()):
            if shelf.get(element) != on_shelf.get(element):
                problems.append(f"{element}: the host has {shelf.get(element)}, the chain {on_shelf.get(element)}")
        files = {path.name: path.read_text() for path in self.host.iterdir() if not path.name.startswith(".opfs-")}
        wanted = {e[5:]: json.loads(content)["content"] for e, content in documents.items() if e.startswith("file/")}
        for name in sorted(files.keys() | wanted.keys()):
            if files.get(name) != wanted.get(name):
                problems.append(f"file/{name}: the host has {files.get(name)!r}, the chain {wanted.get(name)!r}")
        return problems


async def _settle(parts: Parts) -> None:
    """What opfs.daemon.serve does before the mount answers; and one write."""
    async with trio.open_nursery() as nursery:
        await nursery.start(parts.sequencer.run)
        await recover(parts.chain, parts.journal, parts.sequencer)
        await finish_rotation(parts)
        if parts.failsafe.reason is None:
            content = json.dumps({"written": time.time_ns()}).encode()
            actor = Actor(0, "root", source="survival")
            await parts.sequencer.submit(Request((Change(PROBE, content),), actor))
        nursery.cancel_scope.cancel()


def _read(store: BtrfsSnapshotStore, name: BlockName, tried: Mapping[str, bytes]) -> list[Seen]:
    seen = []
    events = [event for event in decode_events(store.read_events(name)) if event.id.plugin != OWN_EVENTS]
    last = {event.id: event.content for event in events}
    for event in events:
        if event.id == PROBE:
            continue
        content = None
        if event.content is not None and event.op != FAILED:
            is_kept = event.content == last[event.id]
            content = store.read_document(name, event.id) if is_kept else tried.get(event.content, b"never tried")
        seen.append(Seen(str(event.id), event.op, content, name.height))
    return seen
