"""BlockDevice: a disk of a test's own, on which a pool is mounted and whose requests it makes fail.

Does not judge what becomes of the pool. Blocking; one thread at a time uses an object, except that `mark` may be
called by any number of threads, and from other processes through `ControlClient`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from opfs.btrfs.image import attach, create_image, detach
from opfs.btrfs.mounts import mount_at
from opfs.testing.blockdevice.server import IMAGE_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from opfs.testing.blockdevice.faults import Operation

DEFAULT_BYTES = 512 << 20
_TIMEOUT_S = 30.0


class ControlClient:
    """A connection to the server of a disk; `path` is the socket. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.connect(str(path))
        self._answers = self._socket.makefile("rb")
        self._lock = threading.Lock()

    def close(self) -> None:
        self._answers.close()
        self._socket.close()

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """Send one command and return the answer; raises ValueError for one that was refused."""
        with self._lock:
            self._socket.sendall(json.dumps({"do": do, **fields}).encode() + b"\n")
            line = self._answers.readline()
        if not line:
            raise ConnectionError("the disk's server is gone")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def mark(self, data: Any) -> None:
        """Put a mark into the log of writes: after everything that has been answered by now."""
        self.ask("mark", data=data)


class BlockDevice:
    """A served image; `path` is what to attach a loop device to.

    `place` is an empty directory for the mount and the socket. With `log`, a file that must not exist yet, every
    write, flush and mark is recorded from the beginning on.
    """

    def __init__(self, image: Path, place: Path, log: Path | None = None) -> None:
        self._mountpoint = place / "disk"
        self.control_path = place / "control"
        self.path = self._mountpoint / os.fsdecode(IMAGE_NAME)
        self._pools: list[Path] = []
        self._mountpoint.mkdir()
        arguments = [image, self._mountpoint, self.control_path, *([log] if log else [])]
        with ExitStack() as undo:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "opfs.testing.blockdevice.server", *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            undo.callback(self._end_server)
            if self._server.stdout is None or self._server.stdout.readline() != b"ready\n":
                raise OSError("the disk's server did not start; its own words are on standard error")
            self.control = ControlClient(self.control_path)
            undo.pop_all()

    @classmethod
    def create(cls, place: Path, size_bytes: int = DEFAULT_BYTES, log: Path | None = None) -> Self:
        """A disk with an empty btrfs on it, made as `opfs up` makes one; the image is `<place>/disk.img`."""
        image = place / "disk.img"
        create_image(image, size_bytes)
        return cls(image, place, log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmount what `mount` mounted and end the server; faults are cleared first. Again is fine."""
        if self._server.returncode is not None:
            return
        with ExitStack() as everything:
            everything.callback(self._end_server)
            everything.callback(self.control.close)
            for pool in self._pools:
                everything.callback(self.unmount, pool)
            everything.callback(self.clear)

    def mount(self, pool: Path) -> None:
        """Attach a loop device and mount the btrfs on it at `pool`, with the options of a real pool."""
        attach(self.path, pool)
        if pool not in self._pools:
            self._pools.append(pool)

    def unmount(self, pool: Path) -> None:
        """Unmount and free the loop device; not mounted is fine."""
        if mount_at(pool.resolve()) is not None:
            detach(pool, self.path)

    # --- faults ------------------------------------------------------------------------------------------

    def fail(
        self,
        operation: Operation | None = None,
        errno: int | None = None,
        *,
        skip: int = 0,
        count: int | None = None,
        start: int = 0,
        end: int | None = None,
        persists: bool = False,
    ) -> int:
        """Put a fault in force from now on (see opfs.testing.blockdevice.faults.Fault); returns its number."""
        fields = {
            "operation": operation,
            "errno": errno,
            "skip": skip,
            "count": count,
            "start": start,
            "end": end,
            "persists": persists,
        }
        return int(self.control.ask("fail", **fields)["number"])

    def clear(self, number: int | None = None) -> None:
        """Take one fault back, or all of them; what waits goes on."""
        self.control.ask("clear", number=number)

    def requests(self, operation: Operation) -> int:
        """How many requests of this kind there were."""
        return int(self.control.ask("counts")["requests"].get(operation, 0))

    def hits(self, number: int) -> int:
        """How many requests a fault has hit."""
        return int(self.control.ask("counts")["hits"].get(str(number), 0))

    # --- the log -----------------------------------------------------------------------------------------

    def mark(self, data: Any) -> None:
        self.control.mark(data)

    def sync_log(self) -> None:
        """Let readers of the log see every record so far."""
        self.control.ask("sync")

    def _end_server(self) -> None:
        """Closing its standard input ends the server, which unmounts."""
        for stream in (self._server.stdin, self._server.stdout):
            if stream is not None:
                stream.close()
        try:
            self._server.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        if mount_at(self._mountpoint.resolve()) is not None:
            subprocess.run(["umount", "--lazy", "--", str(self._mountpoint)], check=True)
