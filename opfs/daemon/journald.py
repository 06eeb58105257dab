"""Log records to journald with their fields, by its native protocol: `journalctl -u opfs OPFS_ELEMENT=lxc/100`.

    MESSAGE  PRIORITY  SYSLOG_IDENTIFIER  LOGGER  CODE_FILE  CODE_LINE  CODE_FUNC      of every record
    OPFS_ELEMENT  OPFS_BLOCK                                                            where it is about one

Element and block are found among the arguments of the message. Where journald does not take a record it goes to stderr
as before. Thread-safe as logging's handlers are. Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL
"""

from __future__ import annotations

import array
import errno
import fcntl
import logging
import os
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from opfs.core.names import BlockName, ElementId

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SOCKET = Path("/run/systemd/journal/socket")
SEND_TIMEOUT_S = 1.0
_SEND_BUFFER_BYTES = 8 << 20
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_FIELDS = "journal_fields"


def is_journal(descriptor: int, stream: str) -> bool:
    """Whether a descriptor is the connection to journald that `stream` names, as in JOURNAL_STREAM; systemd.exec(5)."""
    status = os.fstat(descriptor)
    return stream == f"{status.st_dev}:{status.st_ino}"


def priority_of(level: int) -> int:
    """Of a logging level, the one of syslog(3)."""
    for least, priority in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)):
        if level >= least:
            return priority
    return 7


class PrefixedFormatter(logging.Formatter):
    """Lines with a priority before, which journald reads from stderr; sd-daemon(3)."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return f"<{priority_of(record.levelno)}>{super().format(record)}"


class JournalHandler(logging.Handler):
    """Sends each record to the journald at `path`."""

    def __init__(self, path: Path = SOCKET) -> None:
        super().__init__()
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(SEND_TIMEOUT_S)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._else = logging.StreamHandler(sys.stderr)
        self._else.setFormatter(PrefixedFormatter())
        self.setFormatter(logging.Formatter("%(message)s"))
        # a filter of its own, and the first: a later one may turn the arguments into text
        self.addFilter(_keep_fields)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._send(_encode(self._fields(record)))
        except OSError:
            self._else.emit(record)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._socket.close()
        super().close()

    def _fields(self, record: logging.LogRecord) -> Mapping[str, str]:
        return {
            "MESSAGE": self.format(record),
            "PRIORITY": str(priority_of(record.levelno)),
            "SYSLOG_IDENTIFIER": "opfs",
            "LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
            "CODE_FUNC": record.funcName or "",
            **getattr(record, _FIELDS, {}),
        }

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_by_file(data)

    def _send_by_file(self, data: bytes) -> None:
        """What is too large for a datagram goes as a sealed file in memory."""
        file = os.memfd_create("opfs-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(file, "wb", closefd=False) as writer:
                writer.write(data)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))
            self._socket.sendmsg([], [rights], 0, self._path)
        finally:
            os.close(file)


def _keep_fields(record: logging.LogRecord) -> bool:
    setattr(record, _FIELDS, dict(_subjects(record.args)))
    return True


def _subjects(args: object) -> Iterator[tuple[str, str]]:
    """The last element and the last block that a message names."""
    for value in args if isinstance(args, tuple) else ():
        if isinstance(value, ElementId):
            yield "OPFS_ELEMENT", str(value)
        elif isinstance(value, BlockName):
            yield "OPFS_BLOCK", str(value)


def _encode(fields: Mapping[str, str]) -> bytes:
    data = bytearray()
    for name, text in fields.items():
        value = text.encode("utf-8", "replace")
        data += name.encode()
        data += b"\n" + struct.pack("<Q", len(value)) if b"\n" in value else b"="
        data += value + b"\n"
    return bytes(data)
