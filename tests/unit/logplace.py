"""A pool's log directory and keys, for the tests of the log on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.core.note import open_note, parse_checkpoint
from opfs.tlog.keys import KeyStore
from opfs.tlog.log import FileLog

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN = "test.example/opfs"
TIME_NS = 1_800_000_000 * 10**9


def header(number: int, history: str = "") -> bytes:
    return b"header %d%s" % (number, history.encode())


def headers(start: int, end: int, history: str = "") -> list[bytes]:
    return [header(number, history) for number in range(start, end)]


class Place:
    """A pool's log directory and keys, opened as often as a test likes."""

    def __init__(self, path: Path) -> None:
        self.log, self.keys = path / "@log", path / "keys"
        self.log.mkdir()

    def store(self) -> KeyStore:
        return KeyStore(self.keys, ORIGIN)

    def open(self) -> FileLog:
        return FileLog.open(self.log, ORIGIN, self.store())

    def grown(self, size: int, history: str = "") -> FileLog:
        log = self.open()
        log.append(headers(log.size, size, history), TIME_NS)
        log.store()
        return log

    def files(self) -> dict[str, bytes]:
        """Everything but the checkpoint, which is signed with randomness."""
        found = {str(path.relative_to(self.log)): path.read_bytes() for path in self.log.rglob("*") if path.is_file()}
        found.pop("checkpoint", None)
        return found


def root_of(log: FileLog) -> bytes:
    return parse_checkpoint(open_note(log.checkpoint(), log.verifiers).text).root
