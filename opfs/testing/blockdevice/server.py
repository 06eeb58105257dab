"""The disk as a file system: `python -m opfs.testing.blockdevice.server IMAGE MOUNTPOINT CONTROL [LOG]`.

Mounts a directory with the one file `image`, whose bytes are those of IMAGE, and answers requests for as long as
its standard input stays open. It does not write through to any real disk: what a flush promises is in the log.

Control is a Unix socket: one JSON object a line, one answer a line. Commands: `fail` (the fields of a Fault;
answers its number), `clear` (`number` or all), `counts`, `mark` (`data`, goes into the log), `sync` (the log).

Concurrency: one trio thread. A request takes effect and enters the log without an await in between, so the log's
order is the disk's; answers follow, so whoever puts a mark after an answer finds it after the request.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyfuse3
import trio

from opfs.testing.blockdevice.faults import Fault, FaultTable
from opfs.testing.blockdevice.writelog import Kind, Record, WriteLog

if TYPE_CHECKING:
    from opfs.testing.blockdevice.faults import Operation

IMAGE_NAME = b"image"
_IMAGE_INODE = 2
_MAX_REQUESTS = 1000
_OPTIONS = frozenset({"fsname=opfs-test-disk", "subtype=blockdevice", "nosuid", "nodev", "noexec"})
_LINE_MAX_BYTES = 1 << 20


class Disk(pyfuse3.Operations):
    """One file. Anything that is not about it is ENOENT or, by pyfuse3's defaults, ENOSYS."""

    def __init__(self, image: int, log: WriteLog | None) -> None:
        super().__init__()
        self._image = image
        self._log = log
        self._faults = FaultTable()
        self._cleared = trio.Event()
        self._size = os.fstat(image).st_size

    # --- the disk ----------------------------------------------------------------------------------------

    async def read(self, fh: int, off: int, size: int) -> bytes:
        await self._suffer("read", off, size)
        return os.pread(self._image, size, off)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        if off + len(buf) > self._size:
            raise pyfuse3.FUSEError(errno.ENOSPC)
        record = Record(Kind.WRITE, off, buf)
        await self._suffer("write", off, len(buf), record)
        self._take(record)
        return len(buf)

    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._suffer("flush")
        self._take(Record(Kind.FLUSH))

    async def _suffer(self, operation: Operation, offset: int = 0, length: int = 0, lost: Record | None = None) -> None:
        """Fail or wait as the faults in force say."""
        hit = self._faults.judge(operation, offset, length)
        if hit is None:
            return
        number, fault = hit
        if fault.errno is not None:
            if fault.persists and lost is not None:
                self._take(lost)
            raise pyfuse3.FUSEError(fault.errno)
        while self._faults.is_in_force(number):
            await self._cleared.wait()

    def _take(self, record: Record) -> None:
        if record.kind is Kind.WRITE:
            os.pwrite(self._image, record.data, record.offset)
        if self._log is not None:
            self._log.append(record)

    # --- the file system around it -----------------------------------------------------------------------

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_nlink = 1
        if inode == pyfuse3.ROOT_INODE:
            entry.st_mode = stat.S_IFDIR | 0o700
        else:
            entry.st_mode = stat.S_IFREG | 0o600
            entry.st_size = self._size
        entry.attr_timeout = entry.entry_timeout = 3600
        return entry

    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        if name != IMAGE_NAME:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(_IMAGE_INODE, ctx)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        # Direct: no page of the image is kept by the kernel, so every request of the loop device arrives.
        return pyfuse3.FileInfo(fh=_IMAGE_INODE, direct_io=True)

    async def release(self, fh: int) -> None:
        pass

    async def flush(self, fh: int) -> None:
        """What close(2) sends. Only fsync is the disk's flush."""

    # --- control -----------------------------------------------------------------------------------------

    def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command and return the answer; raises KeyError, TypeError, ValueError for a bad one."""
        match command.pop("do"):
            case "fail":
                return {"number": self._faults.add(Fault(**command))}
            case "clear":
                self._faults.clear(command.get("number"))
                self._cleared.set()
                self._cleared = trio.Event()
                return {}
            case "counts":
                return {"requests": self._faults.requests, "hits": self._faults.hits}
            case "mark":
                self._take(Record(Kind.MARK, data=json.dumps(command["data"]).encode()))
                return {}
            case "sync":
                if self._log is not None:
                    self._log.sync()
                return {}
            case unknown:
                raise ValueError(f"no command {unknown!r}")


async def _control(disk: Disk, stream: trio.SocketStream) -> None:
    """Answer one client until it hangs up."""
    waiting = b""
    async for chunk in stream:
        waiting += chunk
        while (end := waiting.find(b"\n")) >= 0:
            line, waiting = waiting[:end], waiting[end + 1 :]
            try:
                answer = disk.obey(json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                answer = {"error": repr(error)}
            await stream.send_all(json.dumps(answer).encode() + b"\n")
        if len(waiting) > _LINE_MAX_BYTES:
            return


async def _serve(disk: Disk, mountpoint: Path, control: Path) -> None:
    with trio.socket.socket(trio.socket.AF_UNIX) as socket:
        await socket.bind(str(control))
        socket.listen()
        listener = trio.SocketListener(socket)
        pyfuse3.init(disk, str(mountpoint), set(_OPTIONS))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(trio.serve_listeners, partial(_control, disk), [listener]))
                nursery.start_soon(partial(pyfuse3.main, max_tasks=_MAX_REQUESTS))
                print("ready", flush=True)
                await _wait_for_the_parent()
                nursery.cancel_scope.cancel()
        finally:
            pyfuse3.close(unmount=True)


async def _wait_for_the_parent() -> None:
    """Return when standard input ends: whoever started us has closed it, or is dead."""
    stream = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))
    async for _ in stream:
        pass


def main(image: Path, mountpoint: Path, control: Path, log: Path | None) -> None:
    descriptor = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    write_log = None if log is None else WriteLog(log)
    try:
        trio.run(_serve, Disk(descriptor, write_log), mountpoint, control)
    finally:
        if write_log is not None:
            write_log.close()
        os.close(descriptor)


if __name__ == "__main__":
    arguments = [Path(argument) for argument in sys.argv[1:]]
    main(arguments[0], arguments[1], arguments[2], arguments[3] if len(arguments) > 3 else None)
