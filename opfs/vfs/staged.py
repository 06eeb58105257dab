"""The bytes of one open file being written, and whether they look finished.

Decides nothing about commits and does no I/O. Not thread-safe; its owner (one writer) calls it in turn.

A document is finished at the write that leaves one whole JSON object, so in principle each write asks the
parser. A megabyte written byte by byte would cost a parse per byte, hence the order of questions here: the
last byte written, the balance of braces, and then the parser, within a budget in proportion to the bytes.
Whoever spends the budget (thousands of stray braces in strings, written one by one) is committed at flush
instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from opfs.core.document import MAX_DOCUMENT_BYTES, Completeness, completeness
from opfs.errors import TooLarge

SMALL_BYTES = 4 * 1024
"""Up to here each write is parsed: so the first wrong byte is told at once where people type."""

STEP_BYTES = 16 * 1024
"""Beyond, a beginning is checked each time it grew by this much."""

# How often the bytes so far may be parsed again because they end in }. Braces balance at the end of a document,
# and before it only where strings hold braces of their own.
_PARSES_WHERE_BALANCED = 64
_PARSES_ELSEWHERE = 8

_SPACE = b" \t\n\r"


@dataclass(frozen=True, slots=True)
class Undo:
    """What one write replaced."""

    length: int
    start: int
    replaced: bytes


class StagedBytes:
    """A bytearray with a size limit, an undo, and an eye on the end of the document."""

    def __init__(self, content: bytes = b"") -> None:
        self._bytes = bytearray(content)
        self._balance: int | None = None
        self._checked_bytes = len(content)
        self._parsed_bytes = 0

    def __len__(self) -> int:
        return len(self._bytes)

    def content(self) -> bytes:
        return bytes(self._bytes)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._bytes[offset : offset + size])

    def put(self, start: int, data: bytes) -> Undo:
        """Write `data` at `start`, with NUL bytes where that leaves a gap; raises TooLarge."""
        _check_size(start + len(data))
        length = len(self._bytes)
        undo = Undo(length, start, bytes(self._bytes[start : start + len(data)]))
        if start == length and self._balance is not None:
            self._balance += data.count(b"{") - data.count(b"}")
        else:
            self._balance = None
        self._bytes.extend(bytes(max(0, start - length)))
        self._bytes[start : start + len(data)] = data
        return undo

    def undo(self, undo: Undo) -> None:
        """Take the last `put` back."""
        self._bytes[undo.start : undo.start + len(undo.replaced)] = undo.replaced
        del self._bytes[undo.length :]
        self._balance = None

    def resize(self, size: int) -> bool:
        """Cut, or extend with NUL bytes, to `size`; whether that changed anything. Raises TooLarge."""
        _check_size(size)
        length = len(self._bytes)
        del self._bytes[size:]
        self._bytes.extend(bytes(max(0, size - length)))
        self._balance = None
        return size != length

    def is_finished_by(self, data: bytes) -> bool:
        """Whether `data`, just put at the very end, made this one whole document.

        White space after a whole document finishes nothing: it waits for flush, so that a tool which
        writes the line feed apart makes one block more at most. Raises InvalidRequest for bytes that can
        be the beginning of no document, at the latest STEP_BYTES after them.
        """
        closes = data.rstrip(_SPACE).endswith(b"}")
        if not self._is_worth_parsing(closes):
            return False
        self._checked_bytes = len(self._bytes)
        return completeness(bytes(self._bytes)) is Completeness.COMPLETE and closes

    def _is_worth_parsing(self, closes: bool) -> bool:
        length = len(self._bytes)
        if length <= SMALL_BYTES or length >= self._checked_bytes + STEP_BYTES:
            return True
        if not closes:
            return False
        if self._balance is None:
            self._balance = self._bytes.count(b"{") - self._bytes.count(b"}")
        times = _PARSES_WHERE_BALANCED if self._balance == 0 else _PARSES_ELSEWHERE
        if self._parsed_bytes > times * length:
            return False
        self._parsed_bytes += length
        return True


def _check_size(size: int) -> None:
    if size > MAX_DOCUMENT_BYTES:
        raise TooLarge(
            f"the document would be {size:,} bytes long", hint=f"a document has at most {MAX_DOCUMENT_BYTES:,} bytes"
        )
