"""What opfs is compared with, each on a btrfs of the same kind: fsync, a bare snapshot, git, etckeeper.

Every `change` is one changed document made durable, or as durable as that program makes it. Single-threaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from harness.pools import changed_element, document, element_name
from opfs.btrfs import ioctl
from opfs.btrfs.tree import open_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Fsync:
    """One file of a document's size, overwritten and fsynced."""

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / "fsync", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._revision = 0

    def change(self) -> None:
        self._revision += 1
        os.pwrite(self._fd, document(0, self._revision), 0)
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class BareSnapshots:
    """The least a block can cost: a document renamed into place in a subvolume, and one read-only snapshot of it.

    No events, no header, no hashes, no checks, no journal, no fsync. The tree and the number of live snapshots
    are those of the pool that it is compared with.
    """

    def __init__(self, root: Path, elements: int) -> None:
        self._elements = elements
        self.snapshot_count = 0
        with ExitStack() as opened:
            root_fd = open_directory(str(root))
            opened.callback(os.close, root_fd)
            ioctl.create_subvolume(root_fd, "layer")
            ioctl.create_subvolume(root_fd, "chain")
            (root / "layer/state/documents").mkdir(parents=True)
            self._layer = open_directory("layer", root_fd)
            self._chain = open_directory("chain", root_fd)
            self._documents = open_directory("layer/state/documents", root_fd)
            for index in range(elements):
                self._put(index, document(index, 0))
            ioctl.sync_filesystem(root_fd)
        self._snapshot()

    def change(self) -> None:
        index = changed_element(self.snapshot_count, self._elements)
        self._put(index, document(index, self.snapshot_count))
        self._snapshot()

    def grow(self, snapshot_count: int) -> Iterator[int]:
        """Change documents until there are so many live snapshots; yields how many there are."""
        while self.snapshot_count < snapshot_count:
            self.change()
            yield self.snapshot_count

    def close(self) -> None:
        for fd in (self._layer, self._chain, self._documents):
            os.close(fd)

    def _put(self, index: int, content: bytes) -> None:
        fd = os.open(".new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=self._documents)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)
        os.rename(".new", f"{element_name(index)}.json", src_dir_fd=self._documents, dst_dir_fd=self._documents)

    def _snapshot(self) -> None:
        ioctl.create_snapshot(self._layer, self._chain, f"{self.snapshot_count:08d}")
        self.snapshot_count += 1


class GitRepository:
    """`git add FILE && git commit`, as a person would type it, with no configuration but an author."""

    def __init__(self, directory: Path, elements: int) -> None:
        self._directory, self._environment = directory, _environment(directory.with_name(directory.name + "-home"))
        self._elements = elements
        self._revision = 0
        _write_documents(directory, elements)
        self._git("init", "--quiet")
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", "all documents")

    def change(self) -> None:
        self._revision += 1
        name = _rewrite(self._directory, self._elements, self._revision)
        self._git("add", name)
        self._git("commit", "--quiet", "--message", f"change {name}")

    def close(self) -> None:
        """Nothing is held open."""

    def _git(self, *arguments: str) -> None:
        _run(["git", "-C", str(self._directory), *arguments], self._environment)


class Etckeeper:
    """`etckeeper commit` of a directory of its own; the host's /etc is neither read for content nor written."""

    def __init__(self, directory: Path, elements: int) -> None:
        home = directory.with_name(directory.name + "-home")
        self._directory, self._environment = directory, _environment(home)
        self._environment["ETCKEEPER_CONF_DIR"] = str(_etckeeper_configuration(home))
        self._elements = elements
        self._revision = 0
        _write_documents(directory, elements)
        self._etckeeper("init")
        self._etckeeper("commit", "all documents")

    def change(self) -> None:
        self._revision += 1
        name = _rewrite(self._directory, self._elements, self._revision)
        self._etckeeper("commit", f"change {name}")

    def close(self) -> None:
        """Nothing is held open."""

    def _etckeeper(self, command: str, *arguments: str) -> None:
        _run(["etckeeper", command, "-d", str(self._directory), *arguments], self._environment)


def is_etckeeper_here() -> bool:
    return shutil.which("etckeeper") is not None


def _write_documents(directory: Path, elements: int) -> None:
    directory.mkdir(mode=0o700)
    for index in range(elements):
        (directory / f"{element_name(index)}.json").write_bytes(document(index, 0))


def _rewrite(directory: Path, elements: int, revision: int) -> str:
    index = changed_element(revision, elements)
    path = directory / f"{element_name(index)}.json"
    path.write_bytes(document(index, revision))
    return path.name


def _etckeeper_configuration(home: Path) -> Path:
    """A copy of the installed hooks and settings, so that only the directory is another than usual."""
    installed = Path(os.environ.get("ETCKEEPER_CONF_DIR", "/etc/etckeeper"))
    copy = home / "etckeeper"
    with suppress(FileExistsError):
        shutil.copytree(installed, copy, symlinks=True)
    return copy


def _environment(home: Path) -> dict[str, str]:
    home.mkdir(mode=0o700)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "bench",
        "GIT_AUTHOR_EMAIL": "bench@example.org",
        "GIT_COMMITTER_NAME": "bench",
        "GIT_COMMITTER_EMAIL": "bench@example.org",
    }


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
