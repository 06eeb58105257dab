"""A daemon of its own on a pool of its own, driven through the kernel as a user does."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from opfs.archive.packs import ARCHIVE, Archive
from opfs.archive.store import KeptStore
from opfs.btrfs.pool import Pool
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.cli.process import find_daemon
from opfs.commit.verify import check_chain
from opfs.testing.pools import delete_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NOBODY = 65534


def lines(text: str) -> list[str]:
    """Those of a command's output that say something."""
    return [line for line in text.splitlines() if line]


@dataclass
class Serving:
    """`opfs mount` on the pool at `pool`; plugins are file, lxc (in a private LXC path) and noop."""

    pool: Path
    mount: Path
    lxc: Path
    settings: dict[str, str] = field(default_factory=dict)
    """Further variables of the configuration."""

    def opfs(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command as root would."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("OPFS_", "OPDBUS_"))}
        if "OPFS_MODELS" in os.environ:
            variables["OPFS_MODELS"] = os.environ["OPFS_MODELS"]
        variables |= {"OPFS_PLUGINS": "opfs.testing.noop:NoopPlugin", "OPFS_LXC_PATH": str(self.lxc), **self.settings}
        done = subprocess.run(
            [sys.executable, "-m", "opfs", "--pool", str(self.pool), "--mount", str(self.mount), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=variables,
        )
        if check and done.returncode:
            failure = subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
            failure.add_note(done.stderr)
            raise failure
        return done

    def sh(self, script: str, *, shell: str = "bash", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell script at the top of the mount."""
        return subprocess.run([shell, "-c", script], cwd=self.mount, capture_output=True, text=True, check=check)

    def as_nobody(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script at the top of the mount as a user with no rights, who may fail."""
        self.mount.parent.chmod(0o755)
        return subprocess.run(
            ["bash", "-c", script],
            cwd=self.mount,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )

    def path(self, name: str) -> Path:
        """The document of an element, e.g. of `noop/x`."""
        return self.mount / "state" / f"{name}.json"

    def put(self, name: str, **document: object) -> None:
        self.path(name).write_text(json.dumps(document))

    def get(self, name: str) -> dict[str, object]:
        return json.loads(self.path(name).read_text())

    def blocks(self) -> list[str]:
        return sorted(name for name in os.listdir(self.mount / "chain") if name[:1].isdigit())

    def events(self, block: str = "HEAD") -> list[dict[str, object]]:
        text = (self.mount / "chain" / block / "events.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def daemon(self) -> int:
        pid = find_daemon(self.pool)
        assert pid is not None
        return pid

    def kill(self) -> None:
        """kill -9 the daemon, and wait until it is gone."""
        process = os.pidfd_open(self.daemon())
        signal.pidfd_send_signal(process, signal.SIGKILL)
        assert select.select([process], [], [], 120)[0]
        os.close(process)

    def findings(self) -> Sequence[str]:
        """What verifying the chain says."""
        with BtrfsSnapshotStore(self.pool) as snapshots:
            store = KeptStore(snapshots, Archive(self.pool / "@log" / ARCHIVE))
            return [str(finding) for finding in check_chain(store)]


@contextmanager
def serve(
    btrfs_dir: Path, work_dir: Path, origin: str = "test.example/opfs", settings: Mapping[str, str] | None = None
) -> Iterator[Serving]:
    """A daemon on a new pool; at the end its chain has to be without a fault."""
    pool = Path(tempfile.mkdtemp(prefix="pool-", dir=btrfs_dir))
    mount = Path(tempfile.mkdtemp(prefix="mnt-", dir=work_dir))
    lxc = Path(tempfile.mkdtemp(prefix="lxc-", dir=work_dir))
    Pool.create(pool, origin=origin, created_ns=1_700_000_000_000_000_000).close()
    serving = Serving(pool, mount, lxc, dict(settings or {}))
    try:
        serving.opfs("mount")
        yield serving
    finally:
        serving.opfs("umount")
        findings = serving.findings()
        delete_tree(pool)
        mount.rmdir()
    assert findings == []
